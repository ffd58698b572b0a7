"""What the sweep over dtypes knows in advance, beyond what is known of the operator in any dtype."""

# (operator, kind): a tolerance of its own
TOLERANCE = {}

# (operator, kind and mode): why
ERRORS = {}
LOOPS = {}
WRONG = {}
