"""Looking inside: what a function's operators are computed by, and where things go wrong."""
