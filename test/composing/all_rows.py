"""All rows, by theme."""

from test.composing import (
    attention,
    autocast,
    custom_functions,
    distributed,
    grad_modes,
    hooks,
    in_place,
    numbers,
    recurrent,
    threads,
    training,
)
from test.composing.rows import Row

THEMES = (
    custom_functions,
    hooks,
    autocast,
    grad_modes,
    training,
    in_place,
    attention,
    recurrent,
    numbers,
    threads,
    distributed,
)
ROWS: list[Row] = [row for theme in THEMES for row in theme.ROWS]
