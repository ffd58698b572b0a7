"""Calls of every transform, by every way through the package."""

import warnings

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.utils import parametrize
from torch.utils.checkpoint import checkpoint

from functorch_ext import (
    FallbackWarning,
    functional_call,
    functionalize,
    grad,
    grad_and_value,
    hessian,
    jacfwd,
    jacrev,
    jvp,
    linearize,
    vjp,
    vmap,
)
from test.oracle import rand

JOBS = {}


class Job:
    """A call, the modules that it uses, and what it returned the first time."""

    def __init__(self, function, modules):
        self.function, self.modules, self.expected = function, modules, None

    def run(self):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FallbackWarning)
            return self.function()

    def is_right(self):
        torch.manual_seed(0)
        result = torch.utils._pytree.tree_leaves(self.run())
        if self.expected is None:
            self.expected = result
        return all(
            torch.allclose(one, other) for one, other in zip(result, self.expected, strict=True)
        )


def job(name, *modules):
    def add(function):
        JOBS[name] = Job(function, modules)
        return function

    return add


X, W = rand(3, 2), rand(2)

job("vmap")(lambda: vmap(torch.sin)(X))
job("vmap, keyword arguments")(lambda: vmap(lambda x, y: x * y, kwarg_dims={"y": 0})(X, y=X))
job("vmap, containers")(
    lambda: vmap(lambda d: (d["a"] * 2, d["b"]), ({"a": 0, "b": None},), (0, None))(
        {"a": X, "b": W}
    )
)
job("vmap, chunks")(lambda: vmap(torch.sin, chunk_size=2)(X))
job("vmap, chunks with one draw")(
    lambda: vmap(lambda x: x * torch.rand(2), randomness="same", chunk_size=1)(X)
)
job("vmap, different draws")(
    lambda: vmap(lambda x: x * torch.rand(2), randomness="different", axis_size=3)(X)
)
job("vmap(vmap)")(lambda: vmap(vmap(torch.sin, axis_size=2), axis_size=3)(X))
job("grad")(lambda: grad(lambda x: x.sin().sum())(X))
job("grad, several arguments")(lambda: grad(lambda x, w: (x * w).sin().sum(), (0, 1))(X, W))
job("grad_and_value, aux")(lambda: grad_and_value(lambda x: (x.sin().sum(), x), has_aux=True)(X))
job("vmap(grad)")(lambda: vmap(grad(lambda x: x.sin().sum()), axis_size=3)(X))
job("grad(vmap)")(lambda: grad(lambda x: vmap(torch.sin, axis_size=3)(x).sum())(X))
job("jvp")(lambda: jvp(lambda x: (x.sin(), torch.ones(2)), (X,), (X,)))
job("jvp(jvp)")(lambda: jvp(lambda x: jvp(torch.sin, (x,), (x,))[1], (X,), (X,)))
job("jacrev")(lambda: jacrev(lambda x: (x.sin(), x.sum()))(W))
job("jacrev, chunks")(lambda: jacrev(torch.sin, chunk_size=1)(W))
job("jacfwd")(lambda: jacfwd(lambda x: (x.sin(), torch.ones(2)))(W))
job("jacfwd, chunks")(
    lambda: jacfwd(lambda x: x * torch.rand(2), chunk_size=1, randomness="same")(W)
)
job("jacfwd, different draws")(lambda: jacfwd(lambda x: x * 2, randomness="different")(W))
job("vmap, jacfwd made inside")(lambda: vmap(lambda x: jacfwd(lambda w: (w * x).sin())(W))(X))
job("hessian")(lambda: hessian(lambda x: x.sin().sum(), chunk_size=1)(W))


@job("vjp")
def _():
    output, pull_back = vjp(lambda x: {"a": x.sin()}, X)
    return output, pull_back({"a": X})


@job("linearize")
def _():
    output, push_forward = linearize(torch.sin, X)
    return output, push_forward(X)


@job("inference mode")
def _():
    with torch.inference_mode():
        x = X * 1
        return jvp(torch.sin, (x,), (x,)), jacfwd(torch.sin)(x[0])


def fill_diagonal(x, y):
    x.mul_(2)
    y = y.clone()
    y.diagonal().copy_(x[0])
    return x.sum() * y


job("functionalize")(lambda: functionalize(fill_diagonal)(X * 1, X))
job("functionalize, no views")(
    lambda: functionalize(fill_diagonal, remove="mutations_and_views")(X * 1, X)
)
job("functionalize(vmap(grad))")(
    lambda: functionalize(vmap(grad(lambda x: x.clone().mul_(2).sin().sum())))(X)
)


# Modules


class Doubled(torch.nn.Module):
    def forward(self, weight):
        return weight * 2


class Counting(torch.nn.Module):
    """Assigns a buffer anew."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.scale = None

    def forward(self, x):
        self.count = self.count + 1
        return x * self.count * self.scale


LINEAR = torch.nn.Linear(2, 2).double()
PARAMETRIZED = parametrize.register_parametrization(
    torch.nn.Linear(2, 2).double(), "weight", Doubled()
)
COUNTING = Counting()
HOOKED = torch.nn.Linear(2, 2).double()
HOOKED.register_full_backward_hook(lambda module, inputs, outputs: (inputs[0] * 2,))
HOOKED.register_full_backward_pre_hook(lambda module, outputs: (outputs[0] * 3,))
TIED = torch.nn.Sequential(LINEAR, LINEAR)
STATE = {"weight": rand(2, 2), "bias": rand(2)}

job("functional_call", LINEAR)(lambda: functional_call(LINEAR, STATE, X))
job("functional_call, parametrization", PARAMETRIZED)(
    lambda: functional_call(PARAMETRIZED, STATE, (X,))
)
job("functional_call, tied", TIED)(
    lambda: functional_call(TIED, {"0.weight": STATE["weight"]}, X, strict=False)
)
job("functional_call, attributes", COUNTING)(
    lambda: functional_call(COUNTING, {"count": W[0], "scale": W}, X)
)
job("vmap(grad(functional_call))", PARAMETRIZED)(
    lambda: vmap(
        grad(lambda state, x: functional_call(PARAMETRIZED, state, x).sin().sum()), (None, 0)
    )(STATE, X)
)


job("hooks of modules", HOOKED)(lambda: grad(lambda x: vmap(lambda x: HOOKED(x).sin())(x).sum())(X))


@job("hooks of tensors")
def _():
    def func(x):
        y = x.sin()
        y.register_hook(lambda cotangent: cotangent * 2)
        return y.sum()

    return grad(lambda x: vmap(func)(x).sum())(X)


def pack_with(x):
    with saved_tensors_hooks(lambda tensor: tensor * 1, lambda tensor: tensor):
        return x.sin().sum()


job("hooks of saved tensors")(lambda: grad(lambda x: vmap(pack_with)(x).sum())(X))


# Checkpoints


def checkpointed(x, reentrant=False):
    return checkpoint(lambda x: x.sin() * x, x, use_reentrant=reentrant).sum()


job("vmap(grad(checkpoint))")(lambda: vmap(grad(checkpointed))(X))
job("grad(vmap(checkpoint))")(lambda: grad(lambda x: vmap(checkpointed)(x).sum())(X))
job("grad(vmap(checkpoint)), reentrant")(
    lambda: grad(lambda x: vmap(lambda x: checkpointed(x, True))(x).sum())(X)
)


@job("a checkpoint in a backward pass after its vmap")
def _():
    x = X.clone().requires_grad_()
    return torch.autograd.grad(vmap(vmap(checkpointed, 0), 0)(x[None]).sum(), x)


# Custom functions


class Sine(torch.autograd.Function):
    @staticmethod
    def forward(x):
        return x.sin()

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)
        ctx.save_for_forward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        return cotangent * ctx.saved_tensors[0].cos()

    @staticmethod
    def jvp(ctx, tangent):
        return tangent * ctx.saved_tensors[0].cos()


class SineWithRule(Sine):
    @staticmethod
    def vmap(info, in_dims, x):
        return SineWithRule.apply(x), in_dims[0]


class SineInNumPy(Sine):
    @staticmethod
    def forward(x):
        return torch.from_numpy(x.detach().numpy()).sin()

    @staticmethod
    def backward(ctx, cotangent):
        return torch.from_numpy(cotangent.numpy()) * ctx.saved_tensors[0].cos()


for function in (Sine, SineWithRule, SineInNumPy):
    total = lambda x, function=function: function.apply(x).sum()
    job(f"vmap({function.__name__})")(lambda total=total: vmap(total)(X))
    job(f"vmap(grad({function.__name__}))")(lambda total=total: vmap(grad(total))(X))
    job(f"grad(vmap({function.__name__}))")(
        lambda total=total: grad(lambda x: vmap(total)(x).sum())(X)
    )
job("jvp(vmap(Sine))")(lambda: jvp(vmap(Sine.apply), (X,), (X,)))


# Calls of autograd by the program


@job("torch.autograd.grad in vmap")
def _():
    def func(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(x.sin().sum(), x)[0]

    return vmap(func)(X)


@job("torch.autograd.grad in vmap, by a tensor from outside")
def _():
    w = W.clone().requires_grad_()
    return vmap(lambda x: torch.autograd.grad((x * w).sin().sum(), w)[0])(X)


@job("backward in vmap")
def _():
    def func(x):
        x = x.clone().requires_grad_()
        x.sin().sum().backward()
        return x.grad

    return vmap(func)(X)


@job("batched cotangents in vmap")
def _():
    def func(x):
        x = x.clone().requires_grad_()
        basis = torch.eye(2, dtype=x.dtype)
        return torch.autograd.grad(x.sin(), x, basis, is_grads_batched=True)[0]

    return vmap(func)(X)
