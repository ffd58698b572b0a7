"""Programs in which transforms meet ``torch.compile``, and tests that run them."""
