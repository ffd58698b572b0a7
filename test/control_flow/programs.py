"""Programs with PyTorch's control flow, each beside the same program in plain Python.

Each takes two vectors of three numbers, on which its way depends, and returns one.
"""

from typing import NamedTuple

import torch
from torch._higher_order_ops import associative_scan, map, scan


class Program(NamedTuple):
    """A function with an operator of control flow, and the same function without."""

    with_operator: object
    plain: object


def _cond(x, y):
    return torch.cond(x.sum() > 0, lambda x, y: x.sin() * y, lambda x, y: x * y.cos(), (x, y))


def _cond_plain(x, y):
    return x.sin() * y if x.sum() > 0 else x * y.cos()


def _closing_over(x, y):
    return torch.cond(x.sum() > 0, lambda: x.sin() * y, lambda: y[0].exp() * x, ())


def _closing_over_plain(x, y):
    return x.sin() * y if x.sum() > 0 else y[0].exp() * x


def _infinite(x, y):
    """Where the first element isn't positive, the branch not taken is NaN."""
    return torch.cond(
        x[0] > 0, lambda x: x[0].log() * x[0].sqrt() * y, lambda x: (-x[0]).sqrt() * y * x, (x,)
    )


def _infinite_plain(x, y):
    return x[0].log() * x[0].sqrt() * y if x[0] > 0 else (-x[0]).sqrt() * y * x


def _nested_cond(x, y):
    def positive(x):
        return torch.cond(y.sum() > 0, lambda x: x * y, lambda x: x.exp() - y, (x,))

    return torch.cond(x.sum() > 0, positive, lambda x: x.cos() * y.sin(), (x,))


def _nested_cond_plain(x, y):
    if x.sum() > 0:
        return x * y if y.sum() > 0 else x.exp() - y
    return x.cos() * y.sin()


def _containers(x, y):
    found = torch.cond(
        x.sum() > 0,
        lambda given: {"a": given["x"] * 2, "b": (y.sin(),)},
        lambda given: {"a": given["x"].exp(), "b": (y * 3,)},
        ({"x": x},),
    )
    return found["a"] * found["b"][0]


def _containers_plain(x, y):
    return x * 2 * y.sin() if x.sum() > 0 else x.exp() * (y * 3)


def _while_loop(x, y):
    """As often as it takes to get below a bound."""
    count, x = torch.while_loop(
        lambda count, x: (x.abs().sum() > 1) & (count < 9),
        lambda count, x: (count + 1, 0.6 * x.sin() + 0.1 * y),
        (torch.zeros((), dtype=torch.long), x),
    )
    return x * count


def _while_loop_plain(x, y):
    count = 0
    while x.abs().sum() > 1 and count < 9:
        count, x = count + 1, 0.6 * x.sin() + 0.1 * y
    return x * count


def _while_infinite(x, y):
    """A step beyond the last would be NaN."""
    (x,) = torch.while_loop(
        lambda x: x[0].abs() > 0.5, lambda x: ((x[0].abs() - 0.5).sqrt() * x * 0.3 * y.cos(),), (x,)
    )
    return x * y


def _while_infinite_plain(x, y):
    while x[0].abs() > 0.5:
        x = (x[0].abs() - 0.5).sqrt() * x * 0.3 * y.cos()
    return x * y


def _counting(x, y):
    """A fixed number of times, counted by an int."""
    _, x = torch.while_loop(lambda i, x: i < 3, lambda i, x: (i + 1, x.sin() * y), (0, x))
    return x


def _counting_plain(x, y):
    for _ in range(3):
        x = x.sin() * y
    return x


def _scan(x, y):
    def step(carry, element):
        following = carry * element.cos() + y.sum()
        return following, following.sin() * x

    carry, outputs = scan(step, x[0], y)
    return outputs.sum(0) * carry


def _scan_plain(x, y):
    carry, outputs = x[0], []
    for element in y:
        carry = carry * element.cos() + y.sum()
        outputs.append(carry.sin() * x)
    return torch.stack(outputs).sum(0) * carry


def _reverse_scan(x, y):
    def step(carry, elements):
        following = {"a": carry["a"] * elements[0].cos(), "b": carry["b"] + elements[1]}
        return following, (following["b"] * following["a"],)

    carry, outputs = scan(step, {"a": x[0], "b": y[1]}, (x, y), reverse=True)
    return outputs[0] * carry["a"] + carry["b"]


def _reverse_scan_plain(x, y):
    a, b, outputs = x[0], y[1], []
    for u, v in zip(x.flip(0), y.flip(0), strict=True):
        a, b = a * u.cos(), b + v
        outputs.append(b * a)
    return torch.stack(outputs).flip(0) * a + b


def _scan_of_cond(x, y):
    def step(carry, element):
        following = torch.cond(carry > 0, lambda c: c - element, lambda c: c * 0.5 + 1, (carry,))
        return following, following * y

    return scan(step, x[0], x)[1].sum(0)


def _scan_of_cond_plain(x, y):
    carry, total = x[0], 0
    for element in x:
        carry = carry - element if carry > 0 else carry * 0.5 + 1
        total = total + carry * y
    return total


def _associative_scan(x, y):
    def combine(left, right):
        return left[0] * right[0], left[1] * right[0] + right[1]

    first, second = associative_scan(combine, (x, y), 0, combine_mode="generic")
    return first + second


def _associative_scan_plain(x, y):
    a, b = x[0], y[0]
    results = [a + b]
    for u, v in zip(x[1:], y[1:], strict=True):
        a, b = a * u, b * u + v
        results.append(a + b)
    return torch.stack(results)


def _map(x, y):
    return map(lambda element, other: (element * other).sin().sum() + x[0], x, y)


def _map_plain(x, y):
    return torch.stack([(element * y).sin().sum() + x[0] for element in x])


PROGRAMS = {
    "cond": Program(_cond, _cond_plain),
    "cond closing over": Program(_closing_over, _closing_over_plain),
    "cond, NaN in the other branch": Program(_infinite, _infinite_plain),
    "cond in cond": Program(_nested_cond, _nested_cond_plain),
    "cond with containers": Program(_containers, _containers_plain),
    "while_loop": Program(_while_loop, _while_loop_plain),
    "while_loop, NaN beyond its end": Program(_while_infinite, _while_infinite_plain),
    "while_loop with an int": Program(_counting, _counting_plain),
    "scan": Program(_scan, _scan_plain),
    "scan in reverse": Program(_reverse_scan, _reverse_scan_plain),
    "cond in scan": Program(_scan_of_cond, _scan_of_cond_plain),
    "associative_scan": Program(_associative_scan, _associative_scan_plain),
    "map": Program(_map, _map_plain),
}
