"""Pointwise operators of several tensors: whichever are batched, of whatever shapes and dtypes.

Their kernels differ in what they do by themselves: most broadcast, some take the shape of one
argument for that of all, and those of oneDNN read memory without a look at shapes.
"""

import itertools
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch.utils import _pytree as pytree

from functorch_ext import _C, FallbackWarning, grad, hessian, jacrev, jvp, vmap
from test.oracle import assert_close, loop

BATCH = 3
SHAPES = [((2, 3), (2, 3)), ((2, 3), (3,)), ((3,), (2, 3)), ((2, 1), (1, 3)), ((2, 3), ())]
SHAPES += [((), (2, 3)), ((), ()), ((3,), (1,))]
DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool]
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}
# Kernels that trust their arguments to be of one shape, in plain PyTorch as well.
OF_ONE_SHAPE = {"gelu_backward"}
# The dtype of the result is that of one argument, or differs between the in-place form's argument
# and its result.
OF_ONE_DTYPE = {"lerp", "lerp_", "mish_backward", "_add_relu_"}
# Numbers among the arguments; the others are 1.
NUMBERS = {"scale": 0.5, "zero_point": 1, "quant_min": 0, "quant_max": 10, "threshold": 0.1}
NUMBERS |= {"lambd": 0.5, "beta": 1.5, "min_val": -1, "max_val": 1, "alpha": 0.5}
NUMBERS |= {"negative_slope": 0.1, "is_result": False, "rounding_mode": "floor"}


def base_name(operator):
    return operator._schema.name.removeprefix("aten::")


def is_tensor(argument):
    return "Tensor" in str(argument.type)


def operators():
    """The pointwise operators that take several tensors."""
    for name, family, has_rule in _C.registered_operators():
        if family != "pointwise" or not has_rule:
            continue
        base, _, overload = name.removeprefix("aten::").partition(".")
        operator = getattr(getattr(torch.ops.aten, base), overload or "default")
        if sum(is_tensor(argument) for argument in operator._schema.arguments) > 1:
            yield pytest.param(operator, id=name.removeprefix("aten::"))


def number_for(argument):
    if argument.has_default_value():
        return argument.default_value
    return NUMBERS.get(argument.name, 1)


def draw(operator, shape, dtype):
    if dtype is torch.bool:
        return torch.rand(shape) < 0.5
    if not dtype.is_floating_point:
        return torch.randint(1, 4 if "shift" in operator._schema.name else 9, shape, dtype=dtype)
    return (0.1 + 0.8 * torch.rand(shape, dtype=torch.float64)).to(dtype)


def dtypes_of(names, dtype, mixed):
    """One dtype for all, or another one for the last; but masks are masks."""
    given = [dtype] * len(names)
    if mixed:
        given[-1] = torch.float64 if dtype is torch.float32 else torch.float32
    return [
        torch.bool if name in ("mask", "condition") else each
        for name, each in zip(names, given, strict=True)
    ]


def as_function(operator):
    """The operator as a function of its tensors alone."""

    def function(*tensors):
        left = iter(tensors)
        args, kwargs = [], {}
        for argument in operator._schema.arguments:
            value = next(left) if is_tensor(argument) else number_for(argument)
            if argument.kwarg_only:
                kwargs[argument.name] = value
            else:
                args.append(value)
        return operator(*args, **kwargs)

    return function


def agrees(operator, shapes, dtypes, bdim):
    """Compares every choice of batched arguments; False if the operator doesn't take these."""
    function = as_function(operator)
    kinds = list(zip(shapes, dtypes, strict=True))
    try:
        function(*(draw(operator, shape, dtype) for shape, dtype in kinds))
    except RuntimeError:
        return False
    in_place = operator._schema.arguments[0].is_write
    for chosen in itertools.product([True, False], repeat=len(shapes)):
        if not any(chosen) or (in_place and not chosen[0]):
            continue
        args = []
        for (shape, dtype), batched in zip(kinds, chosen, strict=True):
            samples = [draw(operator, shape, dtype) for _ in range(BATCH if batched else 1)]
            args.append(torch.stack(samples, bdim) if batched else samples[0])
        in_dims = tuple(bdim if batched else None for batched in chosen)
        expected = loop(function, in_dims)(*args)
        with warnings.catch_warnings():
            warnings.simplefilter("error", FallbackWarning)
            actual = vmap(function, in_dims)(*(x.clone() for x in args))
        made = [x.dtype for x in pytree.tree_leaves(expected)]
        # Of integers the result may be float32, which vectors of a kernel round in their own way.
        tolerance = max(TOLERANCES.get(dtype, 0) for dtype in (*dtypes, *made))
        message = f"{base_name(operator)} {shapes} {dtypes} in_dims={in_dims}"
        assert_close(actual, expected, tolerance, message)
    return True


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("onednn", [True, False], ids=["onednn", "native"])
@pytest.mark.parametrize("operator", list(operators()))
def test_operator(operator, onednn):
    names = [a.name for a in operator._schema.arguments if is_tensor(a)]
    shapes = SHAPES[:1] if base_name(operator) in OF_ONE_SHAPE else SHAPES
    dtypes = DTYPES if onednn else [torch.float32, torch.bfloat16]
    mixtures = [False] if base_name(operator) in OF_ONE_DTYPE else [False, True]
    done = 0
    with torch.backends.mkldnn.flags(enabled=onednn):
        for i, (pair, dtype, mixed) in enumerate(itertools.product(shapes, dtypes, mixtures)):
            several = tuple(pair[j % 2] for j in range(len(names)))
            done += agrees(operator, several, dtypes_of(names, dtype, mixed), bdim=-(i % 2))
    assert done or not onednn, "nothing that the operator takes was tried"


def gradient(x, approximate="none"):
    x = x.clone().requires_grad_()
    return torch.autograd.grad(F.gelu(x, approximate=approximate).sum(), x)[0]


@pytest.mark.filterwarnings("ignore:TF32 acceleration")
@pytest.mark.parametrize("onednn", [True, False], ids=["onednn", "native"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("approximate", ["none", "tanh"])
@pytest.mark.parametrize("shape", [(3, 3), (3,), (8, 16), (3, 1, 5), (3, 0)])
def test_derivatives_of_gelu(shape, approximate, dtype, onednn):
    """The gradient of a sum is the same for all samples, the basis of a Jacobian is not."""

    def gelu(x):
        return F.gelu(x, approximate=approximate)

    x = torch.randn(shape).to(dtype)
    with torch.backends.mkldnn.flags(enabled=onednn):
        expected = gradient(x, approximate)
        tolerance = TOLERANCES[dtype]
        assert_close(vmap(grad(lambda x: gelu(x).sum()))(x), expected, tolerance)
        assert_close(vmap(grad(lambda x: gelu(x).sum()), -1, -1)(x), expected, tolerance)
        jacobian = jacrev(gelu)(x)
        diagonal = jacobian.reshape(x.numel(), x.numel()).diagonal().view(shape)
        assert_close(diagonal, expected, tolerance)
        ones = torch.ones_like(x)
        assert_close(vmap(lambda x, t: jvp(gelu, (x,), (t,))[1])(x, ones), expected, tolerance)
        assert hessian(lambda x: gelu(x).sum())(x).isfinite().all()
