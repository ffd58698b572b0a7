"""Training steps around transforms; torch.autograd used inside them."""

import copy

import torch
import torch.autograd.forward_ad as forward_ad
from torch import nn

from test.composing.rows import REVERSE, row, sample, total, uses

FEATURE = "Training steps, torch.autograd inside"
XS = (sample(4, 3),)


def parameter():
    return sample(3, seed=3).requires_grad_()


def loss(w):
    return lambda x: ((x * w).sin() * x).sum()


def backward_of(transform):
    def compute(F):
        w = parameter()
        result = transform(F, w)
        total(lambda: result)().backward()
        return result, w.grad

    return compute


OF_CLOSED_OVER = {
    "vmap": lambda F, w: F.vmap(loss(w))(XS[0]),
    "grad": lambda F, w: F.grad(loss(w))(XS[0][0]),
    "grad_and_value": lambda F, w: F.grad_and_value(loss(w))(XS[0][0]),
    "vmap(grad)": lambda F, w: F.vmap(F.grad(loss(w)))(XS[0]),
    "grad(vmap)": lambda F, w: F.grad(total(F.vmap(loss(w))))(XS[0]),
    "vjp": lambda F, w: F.vjp(loss(w), XS[0][0])[1](w.sum()),
    "jvp": lambda F, w: F.jvp(loss(w), (XS[0][0],), (w,)),
    "jacrev": lambda F, w: F.jacrev(lambda x: (x * w).sin())(XS[0][0]),
    "jacfwd": lambda F, w: F.jacfwd(lambda x: (x * w).sin())(XS[0][0]),
    "hessian": lambda F, w: F.hessian(loss(w))(XS[0][0]),
    "vmap(hessian)": lambda F, w: F.vmap(F.hessian(loss(w)))(XS[0]),
    "vmap over the parameter": lambda F, w: F.vmap(lambda w: w * w)(w),
}


def adapted(F, w, task, steps=2):
    for _ in range(steps):
        w = w - 0.1 * F.grad(lambda w: loss(w)(task))(w)
    return loss(w)(task.cos())


def maml_by_grad(F):
    return F.grad(lambda w: F.vmap(lambda task: adapted(F, w, task))(XS[0]).sum())(
        parameter().detach()
    )


def maml_by_backward(F):
    w = parameter()
    F.vmap(lambda task: adapted(F, w, task))(XS[0]).sum().backward()
    return w.grad


def maml_of_a_module(F):
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    parameters = dict(module.named_parameters())

    def task_loss(parameters, x):
        return F.functional_call(module, parameters, (x,)).square().sum()

    def after_a_step(x):
        gradients = F.grad(task_loss)(parameters, x)
        moved = {name: p - 0.1 * gradients[name] for name, p in parameters.items()}
        return task_loss(moved, x.cos())

    F.vmap(after_a_step)(XS[0]).sum().backward()
    return [p.grad for p in module.parameters()]


def optimizer_step(F):
    torch.manual_seed(0)
    module = nn.Linear(3, 2).double()
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    for _ in range(3):
        optimizer.zero_grad()
        total(F.vmap(module))(XS[0]).backward()
        optimizer.step()
    return list(module.parameters())


def module_copied_inside(F):
    """Each sample trains a copy of a module with an optimizer of its own."""
    torch.manual_seed(0)
    module = nn.Linear(3, 2).double()

    def trained(x):
        mine = copy.deepcopy(module)
        optimizer = torch.optim.SGD(mine.parameters(), 0.1, momentum=0.5)
        for _ in range(2):
            optimizer.zero_grad()
            mine(x).square().sum().backward()
            optimizer.step()
        return mine(x).detach()

    return F.vmap(trained)(XS[0])


def gradient_penalty(F):
    """A loss made of per-sample gradients, trained by .backward()."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()
    gradients = F.vmap(F.grad(lambda x: module(x).sum()))(XS[0])
    gradients.norm(dim=-1).sub(1).square().mean().backward()
    return [p.grad for p in module.parameters() if p.grad is not None]


# ---- torch.autograd called by the user, inside ----


def autograd_grad_of_input(x):
    y = x * 1
    if not y.requires_grad:
        y.requires_grad_()
    return torch.autograd.grad((y.sin() * y).sum(), y, create_graph=True)[0] * x


def closed_form(x):
    return (x.cos() * x + x.sin()) * x


def fresh_leaf(x):
    """The gradient by a leaf made inside; it is a constant to the transforms outside."""
    y = x.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad((y.sin() * y).sum(), y)
    return gradient * x


def fresh_leaf_plain(x):
    y = x.detach()
    return (y.cos() * y + y.sin()) * x


def backward_inside(x):
    y = x.detach().clone().requires_grad_()
    (y.sin() * y).sum().backward()
    return y.grad * x


def new_leaf(x):
    w = torch.zeros(3, dtype=x.dtype, requires_grad=True)
    (gradient,) = torch.autograd.grad(((w + 1) * x).square().sum(), w)
    return gradient * x


def new_leaf_plain(x):
    return 2 * x.detach().square() * x


def requires_grad_inside(x):
    y = x.detach()
    y.requires_grad_()
    return torch.autograd.grad(y.sin().sum(), [y])[0] + x


def requires_grad_inside_plain(x):
    return x.detach().cos() + x


def functional_jacobian(x):
    return torch.autograd.functional.jacobian(torch.sin, x.detach()) @ x


def functional_jacobian_plain(x):
    return x.detach().cos() * x


def dual_level_inside(x):
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(x, x.cos())
        return forward_ad.unpack_dual(dual.sin()).tangent


def dual_level_plain(x):
    return x.cos() * x.cos()


def retain_grad_inside(x):
    y = x.detach().clone().requires_grad_()
    z = y.sin()
    z.retain_grad()
    (z * z).sum().backward()
    return z.grad * x


def retain_grad_plain(x):
    return 2 * x.detach().sin() * x


def by_closed_over(x):
    """torch.autograd.grad by a parameter that came from outside, inside vmap: per sample."""
    w = W
    (gradient,) = torch.autograd.grad((x.detach() * w).sin().sum(), w)
    return gradient * x


def by_closed_over_plain(x):
    return x.detach() * (x.detach() * W.detach()).cos() * x


W = sample(3, seed=3).requires_grad_()


def inside(name, func, plain, ways=REVERSE):
    return uses(FEATURE, name, func, XS, ways, plain=plain)


ROWS = [
    *(row(FEATURE, "result.backward() by a closed-over parameter", way, backward_of(transform))
      for way, transform in OF_CLOSED_OVER.items()),
    row(FEATURE, "MAML", "grad", maml_by_grad),
    row(FEATURE, "MAML", "backward", maml_by_backward),
    row(FEATURE, "MAML", "backward, a module", maml_of_a_module),
    row(FEATURE, "optimizer steps", "backward of vmap", optimizer_step),
    row(FEATURE, "a module copied and trained inside", "vmap", module_copied_inside),
    row(FEATURE, "a gradient penalty", "backward of vmap(grad)", gradient_penalty),
    *inside("torch.autograd.grad by an intermediate", autograd_grad_of_input, closed_form),
    *inside("torch.autograd.grad by a leaf made inside", fresh_leaf, fresh_leaf_plain),
    *inside("backward() to a leaf made inside", backward_inside, fresh_leaf_plain),
    *inside("zeros(requires_grad=True)", new_leaf, new_leaf_plain),
    *inside("requires_grad_() of a detached input", requires_grad_inside,
            requires_grad_inside_plain),
    *inside("retain_grad() inside", retain_grad_inside, retain_grad_plain),
    *inside("torch.autograd.grad by a closed-over parameter", by_closed_over, by_closed_over_plain),
    *inside("torch.autograd.functional.jacobian", functional_jacobian, functional_jacobian_plain),
    *inside("forward_ad.dual_level", dual_level_inside, dual_level_plain),
]  # fmt: skip
