"""``vmap``: its arguments and results, chunks, randomness, values read."""
