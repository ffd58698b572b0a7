"""What is refused: the type of the error, its message, and no state left behind."""
