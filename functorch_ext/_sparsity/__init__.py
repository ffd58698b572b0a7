"""Which elements of a Jacobian can be other than zero, and which of its columns share a product."""
