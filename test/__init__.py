"""The test suite: every answer is compared with a per-sample Python loop over plain torch."""
