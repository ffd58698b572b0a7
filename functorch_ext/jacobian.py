"""Jacobians: ``jacrev``, ``jacfwd`` and ``hessian``."""

import functools
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
from torch import Tensor

from functorch_ext import _C
from functorch_ext._argnames import Argnames, by_names
from functorch_ext._arguments import (
    Argnums,
    check_differentiable,
    check_outputs,
    keeping_output,
    outside_inference_mode,
    release_aux,
    replaced,
    selected,
    split_aux,
)
from functorch_ext._basis import each_chunk, join_rows, split_columns
from functorch_ext._chunk_sizes import Chunking, ChunkSize, checked_chunk_size
from functorch_ext._dynamo.entry import EAGER, call_transform
from functorch_ext._pytree import flatten, map_tensors, unflatten
from functorch_ext.forward import jvp
from functorch_ext.vmap import checked_randomness, vmap

_Params = ParamSpec("_Params")

# What comes of a chunk of columns: the output's leaves and its structure, the leaves' tangents with
# the columns in the last dimension, and aux.
_Pushed = tuple[list[Tensor], Any, list[Tensor], Any]


def jacrev(
    func: Callable[_Params, Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: ChunkSize = None,
    argnames: Argnames | None = None,
    progress: bool = False,
    _preallocate_and_copy: bool = False,
) -> Callable[_Params, Any]:
    """The Jacobian by reverse mode: cheap when there are fewer outputs than inputs.

    ``func`` is evaluated once; all rows are pulled back through its graph together.

    Args:
        func: Returns a tensor or a container of tensors or, with ``has_aux``, a pair of such and
            anything.
        argnums: The positional argument to differentiate by, or a tuple of several.
        has_aux: ``func`` returns ``(output, aux)``; aux is passed on, not differentiated.
        chunk_size: Pull back this many rows at a time, to bound memory; all at once if ``None``. Or
            how much memory to take, as for :func:`vmap`.
        argnames: Keyword arguments to differentiate by instead: a name, or a tuple of several.
        progress: Show how many rows are done, in a bar of ``tqdm``.

    Returns:
        A function of the arguments of ``func`` that returns, for each output, the derivative by
        each input: a tensor of shape ``output.shape + input.shape``, in containers as the outputs'
        and, within, as the inputs'. With ``has_aux``: ``(jacobian, aux)``.

    Raises:
        RuntimeError: ``argnums`` is out of range, an argument can't be differentiated by, or the
            output holds something else than tensors.

    Example::

        >>> functorch_ext.jacrev(torch.sin)(torch.zeros(2))
        tensor([[1., 0.],
                [0., 1.]])
    """
    if argnames is not None:
        chunks: dict[str, Any] = {"chunk_size": chunk_size, "progress": progress}
        transform = functools.partial(jacrev, has_aux=has_aux, **chunks)
        return by_names("jacrev", transform, func, argnums, argnames)
    return _by_rows("jacrev", func, argnums, has_aux, chunk_size, progress)


def _by_rows(
    transform: str,
    func: Callable[..., Any],
    argnums: Argnums,
    has_aux: bool,
    chunk_size: ChunkSize,
    progress: bool = False,
) -> Callable[..., Any]:
    chunking = checked_chunk_size(transform, chunk_size, progress)

    @functools.wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        if not EAGER:
            options = (argnums, has_aux, chunk_size)
            return call_transform(transform, func, options, args, kwargs)
        leaves, structure = flatten(selected(transform, argnums, args))
        check_differentiable(transform, "the argument at argnums", leaves)

        def body(frame: _C.ReverseFrame) -> Any:
            aliases = unflatten(structure, frame.differentiable(leaves))
            outputs, aux, keep = func(*replaced(argnums, args, aliases), **kwargs), None, False
            if has_aux:
                outputs, aux = split_aux(transform, func, outputs)
                aux, keep = release_aux(frame, aux)
            output_leaves = check_outputs(transform, outputs)
            if len(output_leaves) == 1 and output_leaves[0].dim() == 0:
                # The Jacobian of a number is its gradient.
                parts = [[*map(frame.strip, frame.pull_back(output_leaves, [None], keep))]]
            else:
                keep = keep or chunking is not None
                pull_back = lambda start, count: [
                    frame.strip(row)
                    for row in frame.pull_back_basis(output_leaves, start, count, keep)
                ]
                rows = each_chunk(pull_back, output_leaves, chunking)
                parts = join_rows(rows, output_leaves, leaves)
            return parts, flatten(outputs)[1], aux

        parts, output_structure, aux = _C.run_reverse(body)
        result = unflatten(output_structure, [unflatten(structure, part) for part in parts])
        return (result, aux) if has_aux else result

    return jacobian


def jacfwd(
    func: Callable[_Params, Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
    chunk_size: ChunkSize = None,
    argnames: Argnames | None = None,
    progress: bool = False,
) -> Callable[_Params, Any]:
    """The Jacobian by forward mode: cheap when there are fewer inputs than outputs.

    ``func`` is evaluated once; all columns are pushed through together.

    Args:
        func: As for :func:`jacrev`.
        argnums: As for :func:`jacrev`.
        has_aux: As for :func:`jacrev`.
        randomness: What random operators in ``func`` do, as in :func:`vmap`, whose samples are the
            columns here.
        chunk_size: Push this many columns at a time, to bound memory; ``func`` is then evaluated
            once per chunk. Or how much memory to take, as for :func:`vmap`.
        argnames: As for :func:`jacrev`.
        progress: Show how many columns are done, in a bar of ``tqdm``.

    Returns:
        As :func:`jacrev`.

    Raises:
        RuntimeError: as :func:`jacrev`.

    Example::

        >>> functorch_ext.jacfwd(torch.cos)(torch.zeros(1))
        tensor([[-0.]])
    """
    mode = checked_randomness("jacfwd", randomness)
    if argnames is not None:
        options: dict[str, Any] = {"randomness": randomness, "progress": progress}
        options |= {"has_aux": has_aux, "chunk_size": chunk_size}
        transform = functools.partial(jacfwd, **options)
        return by_names("jacfwd", transform, func, argnums, argnames)
    traced = ("jacfwd", func, (argnums, has_aux, chunk_size, randomness))
    chunking = checked_chunk_size("jacfwd", chunk_size, progress)
    return _by_columns("jacfwd", func, argnums, has_aux, chunking, mode, traced)


def _by_columns(
    transform: str,
    func: Callable[..., Any],
    argnums: Argnums,
    has_aux: bool,
    chunking: int | Chunking | None,
    randomness: _C.Randomness,
    traced: tuple[str, Callable[..., Any], tuple[Any, ...]],
) -> Callable[..., Any]:
    anew = randomness == _C.Randomness.DIFFERENT
    push = _push_columns_anew if anew else functools.partial(push_columns, randomness)

    def compute(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        leaves, structure = flatten(selected(transform, argnums, args))
        check_differentiable(transform, "the argument at argnums", leaves)

        def flat(duals: list[Tensor]) -> Any:
            return func(*replaced(argnums, args, unflatten(structure, duals)), **kwargs)

        def push_chunk(start: int, count: int) -> _Pushed:
            basis = _C.standard_basis(leaves, start, count)
            return push(transform, flat, leaves, basis, count, has_aux)

        pushed = each_chunk(push_chunk, leaves, chunking, not anew)
        output_leaves, output_structure, _, aux = pushed[-1]
        parts = split_columns([tangents for _, _, tangents, _ in pushed], output_leaves, leaves)
        result = unflatten(output_structure, [unflatten(structure, part) for part in parts])
        return (result, aux) if has_aux else result

    @functools.wraps(func)
    def jacobian(*args: Any, **kwargs: Any) -> Any:
        if not EAGER:
            return call_transform(*traced, args, kwargs)
        if torch.is_inference_mode_enabled():
            return outside_inference_mode(compute, args, kwargs)
        return compute(args, kwargs)

    return jacobian


def push_columns(
    randomness: _C.Randomness,
    transform: str,
    func: Callable[[list[Tensor]], Any],
    primals: list[Tensor],
    basis: list[Tensor],
    count: int,
    has_aux: bool,
    in_front: bool = False,
) -> _Pushed:
    """The columns lie in the last dimension of the tangents, or in front of all others."""

    # The tangents alone belong to the basis' level: the primal is computed once, as it is.
    def body(forward: _C.ForwardFrame, level: _C.Level) -> _Pushed:
        tangents = [level.wrap(part, 0) for part in basis]
        outputs, aux = func(forward.make_dual(primals, tangents)), None
        if has_aux:
            outputs, aux = split_aux(transform, func, outputs)
            aux = map_tensors(lambda tensor: forward.unpack(tensor)[0], aux)
        columns = []
        primal_outputs = []
        for leaf in check_outputs(transform, outputs):
            primal, tangent = forward.unpack(leaf)
            if tangent is None:
                tangent = _C.run_with_grad_mode(False, torch.zeros_like, primal)
            dim = 0 if in_front else primal.dim()
            columns.append(forward.strip(level.stacked(tangent, dim)))
            primal_outputs.append(primal)
        return primal_outputs, flatten(outputs)[1], columns, aux

    def run(forward: _C.ForwardFrame) -> _Pushed:
        return _C.run_basis(functools.partial(body, forward), count, randomness=randomness)

    return _C.run_forward(run, primals)


def _push_columns_anew(
    transform: str,
    func: Callable[[list[Tensor]], Any],
    primals: list[Tensor],
    basis: list[Tensor],
    count: int,
    has_aux: bool,
) -> _Pushed:
    # Random numbers that differ between columns make the primal differ too.
    def push(*tangents: Tensor) -> Any:
        return jvp(lambda *duals: func(list(duals)), primals, tangents, has_aux=has_aux)

    mapped = vmap(push, out_dims=-1, randomness="different")
    outputs, tangents, *aux = _C.call_on_plane_of(tuple(primals), mapped, *basis)
    first = map_tensors(lambda tensor: tensor.select(-1, 0), (outputs, aux[0] if aux else None))
    return *flatten(first[0]), check_outputs(transform, tangents), first[1]


def hessian(
    func: Callable[_Params, Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: ChunkSize = None,
    argnames: Argnames | None = None,
    with_grad_and_value: bool = False,
    progress: bool = False,
) -> Callable[_Params, Any]:
    """The matrix of second derivatives: forward mode over reverse mode.

    Args:
        func: Returns a tensor or a container of tensors; usually a number. Random operators in it
            draw once for all columns.
        argnums: The positional argument to differentiate by, or a tuple of several.
        has_aux: ``func`` returns ``(output, aux)``; aux is passed on, not differentiated.
        chunk_size: Compute this many columns at a time, to bound memory; all at once if ``None``.
            Or how much memory to take, as for :func:`vmap`.
        argnames: As for :func:`jacrev`.
        with_grad_and_value: Return ``(hessian, (gradient, value))``, of the same pass.
        progress: Show how many columns are done, in a bar of ``tqdm``.

    Returns:
        A function of the arguments of ``func`` that returns, for each output, the second derivative
        by each pair of inputs: a tensor of shape ``output.shape + input.shape + input.shape``. With
        ``has_aux``: ``(hessian, aux)``, or ``(hessian, (gradient, (value, aux)))``.

    Raises:
        RuntimeError: as :func:`jacrev`.

    Example::

        >>> functorch_ext.hessian(lambda x: (x**3).sum())(torch.ones(2))
        tensor([[6., 0.],
                [0., 6.]])
    """
    if argnames is not None:
        options: dict[str, Any] = {"has_aux": has_aux, "chunk_size": chunk_size}
        options |= {"with_grad_and_value": with_grad_and_value, "progress": progress}
        transform = functools.partial(hessian, **options)
        return by_names("hessian", transform, func, argnums, argnames)
    if with_grad_and_value:
        return _with_grad_and_value(func, argnums, has_aux, chunk_size, progress)
    gradient = _by_rows("hessian", func, argnums, has_aux, None)
    traced = ("hessian", func, (argnums, has_aux, chunk_size))
    same = _C.Randomness.SAME
    chunking = checked_chunk_size("hessian", chunk_size, progress)
    return _by_columns("hessian", gradient, argnums, has_aux, chunking, same, traced)


def _with_grad_and_value(
    func: Callable[..., Any],
    argnums: Argnums,
    has_aux: bool,
    chunk_size: ChunkSize,
    progress: bool,
) -> Callable[..., Any]:
    gradient = jacrev(keeping_output("hessian", func, has_aux), argnums, has_aux=True)

    @functools.wraps(func)
    def with_gradient(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        found = gradient(*args, **kwargs)
        return found[0], found

    options: dict[str, Any] = {"randomness": "same", "chunk_size": chunk_size, "progress": progress}
    return jacfwd(with_gradient, argnums, has_aux=True, **options)
