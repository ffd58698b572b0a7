"""Seeded ways to spoil a call. Most results are refused by PyTorch; some are valid all the same."""

import torch

from test.bad_inputs.calls import Call, Slot

DTYPES = (
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.complex64,
    torch.complex128,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
)
NOT_TENSORS = (2, 1.5, True, None, "text", [1, 2], 2j)
NOT_NUMBERS = (None, "text", 1.5, True, 2j, [1], (1, 2, 3), 2**63, -(2**63) - 1, float("nan"))
FAR = (99, -99, 7, -7, -1, 0)


def drop_dimension(x, random):
    return x.select(random.randrange(x.dim()), 0) if x.dim() and x.numel() else None


def add_dimension(x, random):
    return x.unsqueeze(random.randint(0, x.dim()))


def add_two_dimensions(x, random):
    return x[None, None]


def repeat_in_new_dimension(x, random):
    return torch.stack([x, x], random.randint(0, x.dim()))


def drop_all_dimensions(x, random):
    return x.flatten()[0] if x.dim() and x.numel() else None


def to_vector(x, random):
    return x.flatten() if x.dim() != 1 else None


def no_elements(x, random):
    return x.narrow(random.randrange(x.dim()), 0, 0) if x.dim() else None


def smaller(x, random):
    dim = random.randrange(x.dim()) if x.dim() else None
    return None if dim is None or x.shape[dim] < 2 else x.narrow(dim, 0, x.shape[dim] - 1)


def larger(x, random):
    dim = random.randrange(x.dim()) if x.dim() else None
    if dim is None or not x.shape[dim] or x.numel() > 5000:
        return None
    return torch.cat([x, x.narrow(dim, 0, 1)], dim)


def of_size_one(x, random):
    return x.narrow(random.randrange(x.dim()), 0, 1) if x.dim() and x.numel() else None


def transposed(x, random):
    return x.mT if x.dim() > 1 else None


def other_dtype(x, random):
    dtype = random.choice(DTYPES)
    return x.to(dtype) if dtype != x.dtype else None


def same_kind_of_dtype(x, random):
    near = {
        torch.float64: torch.float32,
        torch.float32: torch.float64,
        torch.complex128: torch.complex64,
        torch.complex64: torch.complex128,
        torch.int64: torch.int32,
        torch.int32: torch.int64,
        torch.bool: torch.uint8,
    }
    return x.to(near[x.dtype]) if x.dtype in near else None


def out_of_range(x, random):
    """Numbers that no index may be."""
    if x.dtype not in (torch.int64, torch.int32) or not x.numel():
        return None
    far = random.choice([50, -50, 2**31 - 1, 2**62])
    return x + far if far < torch.iinfo(x.dtype).max else None


def negated(x, random):
    return -1 - x if x.dtype in (torch.int64, torch.int32, torch.float64) else None


OF_TENSORS = (
    drop_dimension,
    drop_dimension,
    add_dimension,
    add_dimension,
    add_two_dimensions,
    repeat_in_new_dimension,
    drop_all_dimensions,
    to_vector,
    no_elements,
    smaller,
    larger,
    of_size_one,
    transposed,
    other_dtype,
    other_dtype,
    other_dtype,
    same_kind_of_dtype,
    out_of_range,
    out_of_range,
    negated,
)


def spoil_tensor(call, position, random):
    change = random.choice(OF_TENSORS)
    seed = random.random()
    columns = []
    only = random.randrange(3) if change is out_of_range and random.random() < 0.5 else None
    for i, tensors in enumerate(call.draws):
        random.seed(seed)  # the same change for all draws
        changed = tensors[position] if only not in (None, i) else change(tensors[position], random)
        if changed is None:
            return None
        columns.append([*tensors[:position], changed, *tensors[position + 1 :]])
    where = "" if only is None else f" of sample {only}"
    return f"{change.__name__}(tensor {position}{where})", call._replace(draws=tuple(columns))


def replace_tensor(call, index, random):
    """Something that isn't a tensor in the place of one."""
    value = random.choice(NOT_TENSORS)
    return f"leaf {index} = {value!r}", replaced(call, index, value)


def replaced(call, index, value):
    leaves = list(call.leaves)
    leaves[index] = value
    return call._replace(leaves=tuple(leaves))


def other_value(leaf, random):
    """A worse value of an argument that isn't a tensor."""
    if isinstance(leaf, bool):
        return not leaf if random.random() < 0.5 else random.choice(NOT_NUMBERS)
    if isinstance(leaf, (int, float, complex)):
        if random.random() < 0.35:
            return random.choice(NOT_NUMBERS)
        return random.choice(FAR) if isinstance(leaf, int) else leaf * random.choice(FAR)
    if isinstance(leaf, torch.dtype):
        return random.choice(DTYPES)
    if isinstance(leaf, str):
        return random.choice(["", "text", leaf.upper(), None, 3])
    if isinstance(leaf, (list, tuple)):
        return other_list(leaf, random)
    if leaf is None:
        return random.choice([0, 99, -99, "text", 1.5, True, (0, 0), (99,)])
    return random.choice(NOT_NUMBERS)


def other_list(leaf, random):
    kind = type(leaf) if type(leaf) in (list, tuple) else tuple
    values = list(leaf)
    way = random.randrange(6)
    if way == 0 or not values:
        return kind([*values, random.choice([1, 0, 2])])
    if way == 1:
        del values[random.randrange(len(values))]
        return kind(values)
    if way == 2:
        return random.choice(NOT_NUMBERS)
    if way == 3:
        return kind([*values, values[0]])
    values[random.randrange(len(values))] = random.choice([*FAR, 1.5, None, "text"])
    return kind(values)


def spoil_once(call, random):
    """(what was done, the call), or None where the chosen way doesn't apply."""
    index = random.randrange(len(call.leaves))
    leaf = call.leaves[index]
    if isinstance(leaf, Slot):
        if random.random() < 0.08:
            return replace_tensor(call, index, random)
        return spoil_tensor(call, leaf.position, random)
    value = other_value(leaf, random)
    return f"leaf {index} = {value!r}", replaced(call, index, value)


def spoil(call: Call, random):
    """One change, at times two; ("what was done", the call)."""
    done = []
    wanted = 1 if random.random() < 0.8 else 2
    for _ in range(20):
        found = spoil_once(call, random)
        if found is not None:
            done.append(found[0])
            call = found[1]
        if len(done) == wanted:
            break
    return " and ".join(done), call
