"""Products with curvature, and derivatives whose value is wanted too."""

from typing import Any

import torch
from torch import Tensor
from torch.distributions import Categorical
from torch.nn import functional as F

import functorch_ext
from benchmarks.beyond.case import OURS, PLAIN, Case, Runs, mlp
from benchmarks.models import mlp_in_jax
from benchmarks.peers import TORCH_FUNC, Peers, parameters_of
from functorch_ext import fisher_vp, functional_call, ggnvp, grad, hessian, hvp, vhp, vmap


def product_with_hessian(peers: Peers, transform: Any, batch: int, *sizes: int) -> Runs:
    model, inputs = mlp(*sizes), torch.randn(batch, sizes[0])
    targets = torch.randn(batch, sizes[-1])
    parameters = parameters_of(model)
    vector = {name: torch.randn_like(each) for name, each in parameters.items()}
    loss = lambda p: (functional_call(model, p, (inputs,)) - targets).square().mean()

    def double_backward() -> Any:
        leaves = [each.detach().requires_grad_() for each in parameters.values()]
        value = loss(dict(zip(parameters, leaves)))
        gradients = torch.autograd.grad(value, leaves, create_graph=True)
        products = torch.autograd.grad(gradients, leaves, list(vector.values()))
        return dict(zip(parameters, products))

    theirs = lambda p: (torch.func.functional_call(model, p, (inputs,)) - targets).square().mean()

    def in_jax(jax: Any) -> Any:
        def product(p: Any, v: Any, x: Any, y: Any) -> Any:
            loss = lambda p: ((mlp_in_jax(jax, p, x) - y) ** 2).mean()
            return jax.jvp(jax.grad(loss), (p,), (v,))[1]

        return product

    return {
        PLAIN: double_backward,
        OURS: lambda: transform(loss)(parameters, vector),
        TORCH_FUNC: lambda: torch.func.jvp(torch.func.grad(theirs), (parameters,), (vector,))[1],
        **peers.jax(in_jax, parameters, vector, inputs, targets),
    }


def many_products(peers: Peers) -> Runs:
    model, inputs = mlp(16, 32, 32, 1), torch.randn(64, 16)
    parameters = parameters_of(model)
    many = {name: torch.randn(32, *each.shape) for name, each in parameters.items()}
    loss = lambda p: functional_call(model, p, (inputs,)).square().mean()
    one = lambda i: hvp(loss)(parameters, {name: each[i] for name, each in many.items()})

    def loop() -> Any:
        rows = [one(i) for i in range(32)]
        return {name: torch.stack([row[name] for row in rows]) for name in parameters}

    def in_jax(jax: Any) -> Any:
        def products(p: Any, many: Any, x: Any) -> Any:
            loss = lambda p: (mlp_in_jax(jax, p, x) ** 2).mean()
            return jax.vmap(jax.linearize(jax.grad(loss), p)[1])(many)

        return products

    return {
        PLAIN: loop,
        OURS: lambda: vmap(hvp(loss).at(parameters))(many),
        **peers.jax(in_jax, parameters, many, inputs),
    }


def gauss_newton(peers: Peers, is_fisher: bool) -> Runs:
    model, inputs = mlp(8, 16, 4), torch.randn(32, 8)
    labels = torch.randint(4, (32,))
    parameters = parameters_of(model)
    vector = {name: torch.randn_like(each) for name, each in parameters.items()}
    call = lambda p: functional_call(model, p, (inputs,))
    total = lambda output: F.cross_entropy(output, labels, reduction="sum")

    def explicit() -> Any:
        leaves = [each.detach().requires_grad_() for each in parameters.values()]
        output = call(dict(zip(parameters, leaves)))
        rows = [
            torch.cat([g.flatten() for g in torch.autograd.grad(z, leaves, retain_graph=True)])
            for z in output.flatten()
        ]
        jacobian, size = torch.stack(rows), output.numel()
        # The Fisher information of a categorical distribution is this Hessian too.
        curvature = torch.autograd.functional.hessian(total, output.detach()).reshape(size, size)
        flat = torch.cat([each.flatten() for each in vector.values()])
        product = jacobian.T @ (curvature @ (jacobian @ flat))
        parts = product.split([each.numel() for each in leaves])
        return {n: part.reshape(each.shape) for (n, each), part in zip(parameters.items(), parts)}

    def in_jax(jax: Any) -> Any:
        def product(p: Any, v: Any, x: Any, y: Any) -> Any:
            softmax = jax.nn.log_softmax
            total = lambda z: -softmax(z)[jax.numpy.arange(32), y].sum()
            z, jv = jax.jvp(lambda p: mlp_in_jax(jax, p, x), (p,), (v,))
            hjv = jax.jvp(jax.grad(total), (z,), (jv,))[1]
            return jax.vjp(lambda p: mlp_in_jax(jax, p, x), p)[1](hjv)[0]

        return product

    of_logits = lambda z: Categorical(logits=z)
    ours = fisher_vp(call, of_logits) if is_fisher else ggnvp(call, total)
    return {
        PLAIN: explicit,
        OURS: lambda: ours(parameters, vector),
        **peers.jax(in_jax, parameters, vector, inputs, labels),
    }


def with_value(peers: Peers, name: str) -> Runs:
    """Jacobian, or Hessian, with what they are derivatives of."""
    model, x = mlp(64, 64, 64, 1 if name == "hessian" else 64), torch.randn(64)
    model.requires_grad_(False)
    f = lambda x: model(x)[0] if name == "hessian" else model(x)
    if name == "hessian":
        return {
            PLAIN: lambda: (hessian(f)(x), (grad(f)(x), f(x))),
            OURS: lambda: hessian(f, with_grad_and_value=True)(x),
        }
    both = getattr(functorch_ext, f"value_and_{name}")(f)
    alone = getattr(functorch_ext, name)(f)
    return {PLAIN: lambda: (f(x), alone(x)), OURS: lambda: both(x)}


def in_chunks(peers: Peers) -> Runs:
    weight, x = torch.randn(256, 256), torch.randn(256, 256)
    loss = lambda w, x: torch.tanh(x @ w).square().sum()

    def norm(w: Tensor, x: Tensor) -> Tensor:
        return grad(loss)(w, x).norm()

    all_at_once = vmap(norm, (None, 0))
    chunked = vmap(norm, (None, 0), chunk_size="8 MiB")
    return {PLAIN: lambda: all_at_once(weight, x), OURS: lambda: chunked(weight, x)}


CASES = [
    Case(
        "`hvp`, MLP 4-8-1, batch 8",
        "double backward",
        lambda peers: product_with_hessian(peers, hvp, 8, 4, 8, 1),
    ),
    Case(
        "`hvp`, MLP 32-64-64-10, batch 32",
        "double backward",
        lambda peers: product_with_hessian(peers, hvp, 32, 32, 64, 64, 10),
    ),
    Case(
        "`hvp`, MLP 256-512-512-10, batch 128",
        "double backward",
        lambda peers: product_with_hessian(peers, hvp, 128, 256, 512, 512, 10),
    ),
    Case(
        "`vhp`, MLP 32-64-64-10, batch 32",
        "double backward",
        lambda peers: product_with_hessian(peers, vhp, 32, 32, 64, 64, 10),
    ),
    Case("`vmap(hvp(f).at(x))`, 32 vectors", "a loop of `hvp`", many_products),
    Case("`ggnvp`, MLP 8-16-4, batch 32", "the matrices", lambda peers: gauss_newton(peers, False)),
    Case(
        "`fisher_vp`, MLP 8-16-4, batch 32", "the matrices", lambda peers: gauss_newton(peers, True)
    ),
    *(
        Case(
            f"`value_and_{name}`, MLP 64-64-64-64",
            f"`{name}`, and the value",
            lambda peers, name=name: with_value(peers, name),
        )
        for name in ("jacrev", "jacfwd")
    ),
    Case(
        "`hessian(f, with_grad_and_value=True)`, MLP 64-64-64-1",
        "`hessian`, `grad` and the value",
        lambda peers: with_value(peers, "hessian"),
    ),
    Case('`vmap(norm, chunk_size="8 MiB")`, 256 gradients', "without chunks", in_chunks),
]
