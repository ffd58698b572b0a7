"""Wrong calls of the transforms, each with the words by which clients of torch.func know the error.

A call gets the module whose functions it calls: functorch_ext or torch.func.
"""

import torch
from torch import nn

ONES = torch.ones(3)
TWO = torch.ones(2, 3)
WHOLE = torch.arange(3)


def _keep(x, *rest, **others):
    return x


def _total(x, *rest):
    return x.sum()


class _Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.register_buffer("count", torch.zeros(2))

    def forward(self, x):
        return self.linear(x) + self.count


LAYER = nn.Linear(3, 2)

VMAP = [
    ("no inputs", "got no inputs", lambda f: f.vmap(lambda: ONES)()),
    ("none of the entries is mapped", "at least one Tensor to vmap over", lambda f: f.vmap(_keep, (None,))(ONES)),
    ("sizes differ", "Expected all tensors to have the same size in the mapped dimension", lambda f: f.vmap(torch.add)(TWO, ONES)),
    ("in_dims is a list", "expected `in_dims` to be int or a (potentially nested) tuple", lambda f: f.vmap(torch.add, [0, 0])(ONES, ONES)),
    ("in_dims is a dict", "expected `in_dims` to be int or a (potentially nested) tuple", lambda f: f.vmap(torch.add, {0: 0, 1: 0})(ONES, ONES)),
    ("in_dims is a set", "expected `in_dims` to be int or a (potentially nested) tuple", lambda f: f.vmap(torch.add, {0})(ONES, ONES)),
    ("in_dims is a word", "expected `in_dims` to be int or a (potentially nested) tuple", lambda f: f.vmap(torch.add, "lol")(ONES, ONES)),
    ("in_dims is a float", "expected `in_dims` to be int or a (potentially nested) tuple", lambda f: f.vmap(torch.add, 1.0)(ONES, ONES)),
    ("in_dims is too short", "in_dims is not compatible with the structure of `inputs`", lambda f: f.vmap(torch.add, (0,))(ONES, ONES)),
    ("in_dims is too long", "in_dims is not compatible with the structure of `inputs`", lambda f: f.vmap(torch.add, (0, 0, 0))(ONES, ONES)),
    ("in_dims goes too deep", "in_dims is not compatible with the structure of `inputs`", lambda f: f.vmap(_keep, ([0],))(ONES)),
    ("in_dims of other containers", "in_dims is not compatible with the structure of `inputs`", lambda f: f.vmap(lambda pair: pair[0], ([0, 0],))((ONES, ONES))),
    ("in_dims of other keys", "in_dims is not compatible with the structure of `inputs`", lambda f: f.vmap(lambda d: d["x"], ({"y": 0},))({"x": ONES})),
    ("an entry is a float", "in_dim must be either an integer dimension or None", lambda f: f.vmap(torch.add, (0, 1.0))(ONES, ONES)),
    ("an entry is a word", "in_dim must be either an integer dimension or None", lambda f: f.vmap(torch.add, (0, "x"))(ONES, ONES)),
    ("a number is mapped", "Got in_dim=0 for an input but the input is of type", lambda f: f.vmap(torch.add)(ONES, 3.0)),
    ("a list's number is mapped", "Got in_dim=0 for an input but the input is of type", lambda f: f.vmap(lambda pair: pair[0])([ONES, 1])),
    ("in_dim out of range", "Got in_dim=1 for some input, but that input is a Tensor of dimensionality 1", lambda f: f.vmap(_keep, 1)(ONES)),
    ("in_dim below the range", "Got in_dim=-2 for some input, but that input is a Tensor of dimensionality 1", lambda f: f.vmap(_keep, -2)(ONES)),
    ("a tensor without dimensions", "Got in_dim=0 for some input, but that input is a Tensor of dimensionality 0", lambda f: f.vmap(_keep)(torch.tensor(1.0))),
    ("out_dims is a word", "`out_dims` must be an int, None or a python collection of ints", lambda f: f.vmap(_keep, out_dims="lol")(ONES)),
    ("out_dims holds a word", "`out_dims` must be an int, None or a python collection of ints", lambda f: f.vmap(_keep, out_dims=("lol",))(ONES)),
    ("out_dims is a float", "`out_dims` must be an int, None or a python collection of ints", lambda f: f.vmap(_keep, out_dims=1.0)(ONES)),
    ("two out_dims, one output", "out_dims is not compatible with the structure of `outputs`", lambda f: f.vmap(_keep, out_dims=(0, 0))(ONES)),
    ("one out_dim, two outputs", "out_dims is not compatible with the structure of `outputs`", lambda f: f.vmap(lambda x: (x, x), out_dims=(0,))(ONES)),
    ("three out_dims, two outputs", "out_dims is not compatible with the structure of `outputs`", lambda f: f.vmap(lambda x: (x, x), out_dims=(0, 0, 0))(ONES)),
    ("out_dims of other containers", "out_dims is not compatible with the structure of `outputs`", lambda f: f.vmap(lambda x: {"a": x}, out_dims=[0])(ONES)),
    ("out_dim out of range", "Dimension out of range", lambda f: f.vmap(_keep, out_dims=3)(TWO)),
    ("out_dim below the range", "Dimension out of range", lambda f: f.vmap(_keep, out_dims=-4)(TWO)),
    ("out_dim out of a tuple's range", "Dimension out of range", lambda f: f.vmap(lambda x: (x, x), out_dims=(0, 5))(TWO)),
    ("returns a float", "must only return Tensors, got type <class 'float'>", lambda f: f.vmap(lambda x: 3.14)(ONES)),
    ("returns None", "must only return Tensors, got type <class 'NoneType'>", lambda f: f.vmap(lambda x: None)(ONES)),
    ("returns a float among tensors", "must only return Tensors, got type <class 'float'>", lambda f: f.vmap(lambda x: (x, 3.14))(ONES)),
    ("a mapped output with out_dim None", "can not return a BatchedTensor when out_dim is None", lambda f: f.vmap(_keep, out_dims=None)(ONES)),
    ("randomness is another word", "Only allowed values for randomness are 'error', 'different', or 'same'", lambda f: f.vmap(_keep, randomness="random")(ONES)),
    ("chunk_size is zero", "chunk_size should be None or greater than 0", lambda f: f.vmap(_keep, chunk_size=0)(ONES)),
    ("draws without randomness", "called random operation while in randomness error mode", lambda f: f.vmap(torch.rand_like)(ONES)),
    ("control flow by values", "data-dependent control flow", lambda f: f.vmap(lambda x: x if x > 1 else -x)(WHOLE)),
    ("item of values", ".item() on a Tensor", lambda f: f.vmap(lambda x: x * x.item())(WHOLE)),
]  # fmt: skip

REVERSE = [
    (f"{name}: {what}", phrase, lambda f, name=name, call=call: call(getattr(f, name)))
    for name in ("grad", "grad_and_value")
    for what, phrase, call in (
        ("a vector", "to return a scalar Tensor, got tensor with 1 dims", lambda t: t(_keep)(ONES)),
        ("a number", "to return a Tensor, got <class 'float'>", lambda t: t(lambda x: 1.0)(ONES)),
        ("a tuple", "to return a Tensor, got <class 'tuple'>", lambda t: t(lambda x: (x.sum(), x))(ONES)),
        ("no aux", "output of function f should be a tuple: (output, aux) if has_aux is True", lambda t: t(_total, has_aux=True)(ONES)),
        ("three for aux", "output of function f should be a tuple: (output, aux) if has_aux is True", lambda t: t(lambda x: (x.sum(), x, x), has_aux=True)(ONES)),
        ("argnums out of range", "Got argnum=1, but only 1 positional inputs", lambda t: t(_total, argnums=1)(ONES)),
        ("argnums below the range", "Got argnum=-3, but only 2 positional inputs", lambda t: t(_total, argnums=-3)(ONES, ONES)),
        ("argnums out of range in a tuple", "Got argnum=2, but only 2 positional inputs", lambda t: t(_total, argnums=(0, 2))(ONES, ONES)),
        ("argnums is empty", "argnums must be non-empty", lambda t: t(_total, argnums=())(ONES)),
        ("argnums twice the same", "argnums elements must be unique", lambda t: t(_total, argnums=(0, 0))(ONES)),
        ("argnums twice the same, from both ends", "argnums elements must be unique", lambda t: t(_total, argnums=(0, -1))(ONES)),
        ("argnums is a float", "argnums must be int or Tuple[int, ...], got: <class 'float'>", lambda t: t(_total, argnums=0.0)(ONES)),
        ("argnums is a list", "argnums must be int or Tuple[int, ...], got: <class 'list'>", lambda t: t(_total, argnums=[0])(ONES)),
        ("argnums holds a word", "argnum must be int, got: <class 'str'>", lambda t: t(_total, argnums=("0",))(ONES)),
        ("a float for a tensor", "Thing passed to transform API must be Tensor", lambda t: t(_keep)(1.0)),
        ("a number in the argument", "Thing passed to transform API must be Tensor", lambda t: t(lambda pair: pair[0].sum())((ONES, 1))),
        ("whole numbers", "only Tensors of floating point dtype can require gradients", lambda t: t(_total)(WHOLE)),
    )
] + [
    ("vjp: no aux", "output of function f should be a tuple: (output, aux) if has_aux is True", lambda f: f.vjp(_keep, ONES, has_aux=True)),
    ("vjp: returns a number", "to return only tensors, got unsupported type <class 'float'>", lambda f: f.vjp(lambda x: 1.0, ONES)),
    ("vjp: returns None", "Expected f to be a function that has non-empty output", lambda f: f.vjp(lambda x: None, ONES)),
    ("vjp: returns nothing", "Expected f to be a function that has non-empty output", lambda f: f.vjp(lambda x: (), ONES)),
    ("vjp: an output of whole numbers", "All outputs of f must be floating-point or complex Tensors, got Tensor with dtype torch.int64", lambda f: f.vjp(lambda x: WHOLE, ONES)),
    ("vjp: cotangents of another structure", "Expected pytree structure of cotangents to be the same as pytree structure of outputs", lambda f: f.vjp(_keep, ONES)[1]((ONES, ONES))),
    ("vjp: a primal is a number", "Thing passed to transform API must be Tensor", lambda f: f.vjp(_keep, 1.0)),
    ("vjp: primals of whole numbers", "only Tensors of floating point dtype can require gradients", lambda f: f.vjp(_total, WHOLE)),
    ("vjp: a cotangent of another shape", "Mismatch in shape", lambda f: f.vjp(_keep, ONES)[1](TWO)),
    ("vjp: a cotangent is a number", "gradients can be either Tensors or None, but got float", lambda f: f.vjp(_keep, ONES)[1](1.0)),
    ("jacrev: returns a number", "to return only tensors, got unsupported type", lambda f: f.jacrev(lambda x: 1.0)(ONES)),
    ("jacrev: no aux", "output of function f should be a tuple: (output, aux) if has_aux is True", lambda f: f.jacrev(_keep, has_aux=True)(ONES)),
    ("jacrev: argnums", "Got argnum=1, but only 1 positional inputs", lambda f: f.jacrev(_keep, argnums=1)(ONES)),
    ("jacrev: chunk_size", "jacrev: `chunk_size` should be greater than 0", lambda f: f.jacrev(_keep, chunk_size=0)),
]  # fmt: skip

FORWARD = [
    ("jvp: primals is a tensor", "Expected primals to be a tuple", lambda f: f.jvp(torch.sin, ONES, (ONES,))),
    ("jvp: primals are two, tangents one", "Expected primals and tangents to have the same python structure", lambda f: f.jvp(torch.add, (ONES, ONES), (ONES,))),
    ("jvp: tangents is a tensor", "Expected primals and tangents to have the same python structure", lambda f: f.jvp(torch.sin, (ONES,), ONES)),
    ("jvp: no primals", "Expected primals to contain at least one Tensor", lambda f: f.jvp(lambda: ONES, (), ())),
    ("jvp: a primal is a number", "Expected primals to only contain Tensors, got <class 'float'>", lambda f: f.jvp(torch.sin, (1.0,), (1.0,))),
    ("jvp: a tangent is a number", "Expected tangents to only contain Tensors, got <class 'float'>", lambda f: f.jvp(torch.sin, (ONES,), (1.0,))),
    ("jvp: returns a number", "to return only tensors, got unsupported type <class 'float'>", lambda f: f.jvp(lambda x: 1.0, (ONES,), (ONES,))),
    ("jvp: returns nothing", "Expected f to be a function that has non-empty output", lambda f: f.jvp(lambda x: (), (ONES,), (ONES,))),
    ("jvp: no aux", "output of function f should be a tuple: (output, aux) if has_aux is True", lambda f: f.jvp(torch.sin, (ONES,), (ONES,), has_aux=True)),
    ("jvp: strict, of a constant", "The output of f is independent of the inputs", lambda f: f.jvp(lambda x: TWO, (ONES,), (ONES,), strict=True)),
    ("jacfwd: returns a number", "to return only tensors, got unsupported type", lambda f: f.jacfwd(lambda x: 1.0)(ONES)),
    ("jvp: whole numbers", "to be floating point or complex, but got", lambda f: f.jvp(_total, (WHOLE,), (WHOLE,))),
    ("jacfwd: whole numbers", "to be floating point or complex, but got", lambda f: f.jacfwd(_total)(WHOLE)),
    ("hessian: whole numbers", "to be floating point or complex, but got", lambda f: f.hessian(_total)(WHOLE)),
    ("jacfwd: argnums", "Got argnum=1, but only 1 positional inputs", lambda f: f.jacfwd(_keep, argnums=1)(ONES)),
    ("jacfwd: no aux", "output of function f should be a tuple: (output, aux) if has_aux is True", lambda f: f.jacfwd(_keep, has_aux=True)(ONES)),
    ("hessian: argnums", "Got argnum=1, but only 1 positional inputs", lambda f: f.hessian(_total, argnums=1)(ONES)),
    ("linearize: tangents of another structure", "the same", lambda f: f.linearize(torch.sin, ONES)[1](ONES, ONES)),
    ("linearize: a tangent of another shape", "in flattened pytree doesn't match the", lambda f: f.linearize(torch.sin, ONES)[1](TWO)),
    ("linearize: a tangent of another dtype", "in flattened pytree doesn't match the", lambda f: f.linearize(torch.sin, ONES)[1](ONES.double())),
    ("functionalize: remove", "received invalid argument for remove=", lambda f: f.functionalize(_keep, remove="views")(ONES)),
]  # fmt: skip

MODULES = [
    ("functional_call: a tensor for the dict", "Expected parameter_and_buffer_dicts to be a dict, or a list/tuple of dicts", lambda f: f.functional_call(LAYER, ONES, ONES)),
    ("functional_call: a list of tensors", "Expected all elements of parameter_and_buffer_dicts to be dictionaries", lambda f: f.functional_call(LAYER, [ONES], ONES)),
    ("functional_call: a name twice", "appeared in multiple dictionaries", lambda f: f.functional_call(LAYER, ({"bias": ONES}, {"bias": ONES}), ONES)),
    ("functional_call: strict, missing", "Missing key(s): ", lambda f: f.functional_call(LAYER, {"bias": ONES}, ONES, strict=True)),
    ("functional_call: strict, unexpected", "Unexpected key(s): ", lambda f: f.functional_call(LAYER, {**dict(LAYER.named_parameters()), "other": ONES}, ONES, strict=True)),
    ("stack_module_state: none", "Expected at least one model, got 0", lambda f: f.stack_module_state([])),
    ("stack_module_state: modes", "Expected all models to have the same training/eval mode", lambda f: f.stack_module_state([nn.Linear(3, 2), nn.Linear(3, 2).eval()])),
    ("stack_module_state: classes", "Expected all models to be of the same class", lambda f: f.stack_module_state([nn.Linear(3, 2), _Two()])),
    ("stack_module_state: requires_grad", "from each model to have the same .requires_grad", lambda f: f.stack_module_state([nn.Linear(3, 2), nn.Linear(3, 2).requires_grad_(False)])),
]  # fmt: skip

CALLS = [*VMAP, *REVERSE, *FORWARD, *MODULES]
