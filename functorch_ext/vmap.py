"""``vmap``: a function of one sample as a function of a batch."""

import functools
from collections.abc import Callable, Hashable
from typing import Any, ParamSpec

from torch import SymInt, Tensor

from functorch_ext import _C, _batch_sizes
from functorch_ext._axis_names import named
from functorch_ext._chunk_sizes import Chunking, ChunkSize, checked_chunk_size
from functorch_ext._chunking import call_in_chunks
from functorch_ext._describing import returned_leaf, structure_of
from functorch_ext._dynamo.entry import EAGER, call_transform
from functorch_ext._pytree import Tree, broadcast_prefix, flatten, is_leaf, name_of_leaf, unflatten
from functorch_ext._vmap_inputs import MappedInputs

_Params = ParamSpec("_Params")

_RANDOMNESS = {
    "error": _C.Randomness.ERROR,
    "same": _C.Randomness.SAME,
    "different": _C.Randomness.DIFFERENT,
}

_MOST_DIMS = 64  # that a tensor of PyTorch can have


def vmap(
    func: Callable[_Params, Any],
    in_dims: Tree = 0,
    out_dims: Tree = 0,
    randomness: str = "error",
    *,
    chunk_size: ChunkSize = None,
    axis_size: int | None = None,
    kwarg_dims: dict[str, Tree] | None = None,
    axis_name: Hashable | None = None,
    progress: bool = False,
) -> Callable[_Params, Any]:
    """Vectorizes ``func``: one call computes what a loop over samples would.

    ``func`` is written for one sample; inside it a mapped tensor looks like one sample, without
    its batch dimension. Calls nest, and compose with every other transform.

    Args:
        func: Takes tensors, or containers of them, and returns tensors, or containers of them.
        in_dims: Which dimension of each positional argument holds the samples. An int for all
            arguments, or a tuple with one entry per argument, each an int, ``None`` (the argument
            is the same for all samples) or a container of these shaped as the argument is.
            Negative dimensions count from the end. Or a function that is given each leaf of the
            positional arguments and returns its dimension.
        out_dims: Where the samples go in the outputs: an int for all, or a container of ints that
            is a prefix of the output's. ``None``: the output is the same for all samples and is
            returned as it is; it may be any Python object then.
        randomness: What random operators do: ``"error"`` raises, ``"different"`` draws anew for
            each sample, ``"same"`` draws once for all.
        chunk_size: Compute this many samples at a time, to bound memory; all at once if ``None``.
            Or how much memory to take, as text: ``"512 MiB"``, or ``"auto"`` for half of what is
            free; how many samples that is follows from the first three.
        axis_size: The number of samples; needed only where no input is mapped.
        kwarg_dims: The ``in_dims`` of keyword arguments, by name. The others are not mapped.
        axis_name: What ``psum`` and its kin call the samples inside.
        progress: Show how many samples are done, in a bar of ``tqdm``.

    Returns:
        A function of the arguments of ``func`` with a batch dimension added.

    Raises:
        ValueError: ``in_dims`` or ``out_dims`` don't fit the arguments or outputs, batch sizes
            differ, or no input is mapped and ``axis_size`` is not given.
        IndexError: an entry of ``out_dims`` is out of range.

    Example::

        >>> x = torch.randn(3, 5)
        >>> y = torch.randn(3, 5)
        >>> functorch_ext.vmap(torch.dot)(x, y).shape
        torch.Size([3])
    """
    mode = checked_randomness("vmap", randomness)
    chunk_size = checked_chunk_size("vmap", chunk_size, progress)
    chunking = None
    if isinstance(chunk_size, Chunking):
        chunking, chunk_size = chunk_size, None
    if axis_size is not None and (
        not isinstance(axis_size, int | SymInt) or not 0 <= axis_size < 1 << 63
    ):
        raise ValueError(
            "functorch_ext.vmap: axis_size should be None or a number of samples, but got "
            f"{axis_size!r}."
        )
    if kwarg_dims is not None and not isinstance(kwarg_dims, dict):
        raise ValueError(
            "functorch_ext.vmap: kwarg_dims must be None or a dict from names of keyword arguments "
            f"to their in_dims, but got {kwarg_dims!r}."
        )
    if axis_name is not None:
        if chunk_size is not None or chunking is not None:
            raise ValueError(
                "functorch_ext.vmap: chunk_size and axis_name exclude each other: what is combined "
                "across samples takes all of them at once."
            )
        func = named(func, axis_name)

    def run(inputs: MappedInputs) -> Any:
        def body(level: _C.Level) -> Any:
            args, kwargs = inputs.wrapped(level)
            return finish(level, func(*args, **kwargs))

        return _C.run_batch(body, inputs.batch_size, mode)

    def finish(level: _C.Level, outputs: Any) -> Any:
        return _unwrap_outputs(level, outputs, out_dims)

    def call_in_python(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        inputs = MappedInputs(args, kwargs, in_dims, kwarg_dims, axis_size)
        leaves = tuple(inputs.leaves)
        samples = inputs.batch_size
        whole = chunking is None and (chunk_size is None or chunk_size >= samples)
        if whole or isinstance(samples, SymInt):
            return _C.call_on_plane_of(leaves, run, inputs)
        chunked = (chunking or Chunking("vmap", chunk_size)).of_call(samples, leaves)
        run_chunk = functools.partial(chunked.call, run)
        chunks, same_draws = inputs.chunks(chunked), randomness == "same"
        return _C.call_on_plane_of(leaves, call_in_chunks, run_chunk, chunks, out_dims, same_draws)

    call: Callable[[tuple[Any, ...], dict[str, Any]], Any] = call_in_python
    whole_batches = chunk_size is None and chunking is None and axis_size is None
    if whole_batches and not kwarg_dims and type(out_dims) is int and abs(out_dims) <= _MOST_DIMS:
        # All of it in one call to the engine, where the arguments turn out to be made of tensors.
        call = _C.mapped_call(func, in_dims, out_dims, mode, finish, call_in_python)

    @functools.wraps(func)
    def mapped(*args: _Params.args, **kwargs: _Params.kwargs) -> Any:
        if not EAGER:
            options = (in_dims, out_dims, randomness, chunk_size, axis_size, kwarg_dims)
            return call_transform("vmap", func, options, args, kwargs)
        return call(args, kwargs)

    return mapped


def checked_randomness(transform: str, randomness: str) -> _C.Randomness:
    """The engine's name for an option that must be one of three words."""
    if not isinstance(randomness, str) or randomness not in _RANDOMNESS:
        raise RuntimeError(
            f"functorch_ext.{transform}: Only allowed values for randomness are 'error', "
            f"'different', or 'same', but got {randomness!r}."
        )
    return _RANDOMNESS[randomness]


def _unwrap_outputs(level: _C.Level, outputs: Tree, out_dims: Tree) -> Tree:
    if type(outputs) is Tensor and type(out_dims) is int:
        return _unwrap(level, outputs, 0, outputs, out_dims)
    leaves, structure = flatten(outputs)
    dims: list[int | None]
    if type(out_dims) is int:
        dims = [out_dims] * len(leaves)
    else:
        dims = output_dims(out_dims, outputs)
    pairs = enumerate(zip(leaves, dims, strict=True))
    result = unflatten(structure, [_unwrap(level, outputs, i, *pair) for i, pair in pairs])
    _batch_sizes.put_on(outputs, result, dims, level.batch_size)
    return result


def output_dims(out_dims: Tree, outputs: Tree) -> list[int | None]:
    """``out_dims`` with one entry per leaf of ``outputs``."""
    try:
        return broadcast_prefix(out_dims, outputs)
    except ValueError:
        pass
    if isinstance(out_dims, tuple) and len(out_dims) == 1 and is_leaf(outputs):
        return [out_dims[0]]  # (0,) for a tensor
    raise ValueError(
        "functorch_ext.vmap: out_dims is not compatible with the structure of `outputs`, nor with "
        f"a part of it from the root: out_dims={out_dims!r}, outputs "
        f"{structure_of(flatten(outputs)[1])}."
    )


def _unwrap(level: _C.Level, outputs: Tree, index: int, leaf: Any, dim: int | None) -> Any:
    if not isinstance(leaf, Tensor):
        if dim is None:
            return leaf
        raise ValueError(
            f"functorch_ext.vmap: the function must only return Tensors, got type {type(leaf)}: "
            f"{returned_leaf(outputs, index)}, which can't be stacked along out_dim {dim}. Give "
            "that output the out_dim None."
        )
    if dim is None:
        if level.is_batched(leaf):
            raise ValueError(
                "functorch_ext.vmap: the function can not return a BatchedTensor when out_dim is "
                f"None: {name_of_leaf('output', outputs, index)} depends on a mapped input. "
                "Give it an int as its out_dim."
            )
        return level.unwrap(leaf)[0]
    if not isinstance(dim, int):
        raise ValueError(
            "functorch_ext.vmap: `out_dims` must be an int, None or a python collection of ints, "
            f"but got {dim!r} of type {type(dim).__name__} for "
            f"{name_of_leaf('output', outputs, index)}."
        )
    if not -leaf.dim() - 1 <= dim <= leaf.dim():
        raise IndexError(
            f"functorch_ext.vmap: Dimension out of range: got out_dim {dim!r} for "
            f"{name_of_leaf('output', outputs, index)} of shape {tuple(leaf.shape)} per sample, "
            "expected one in "
            f"[{-leaf.dim() - 1}, {leaf.dim()}]."
        )
    return level.stacked(leaf, dim if dim >= 0 else dim + leaf.dim() + 1)
