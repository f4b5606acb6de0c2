"""Runs of a prepared layer on tensors: directly, or through an operator that PyTorch's compilers do not look into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

from ..runtime import MOST_THREADS
from ..schedule import Schedule
from ..spec import NUM_GATES, WeightDtype
from .prepared import Options, Prepared, recurrence_of, refresh


def run(
    prepared: Prepared,
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    batch_first: bool,
    num_threads: int,
) -> list[Tensor]:
    """Run sequences.

    Parameters
    ----------
    x : (B, T, I) if batch_first, else (T, B, I); (N, I) with batch_sizes
    batch_sizes : (T,) of packed sequences, or None
    h0, c0 : (L*D, B, P) and (L*D, B, H), or None for zeros; in the order of packed rows
    num_threads : 0 for PyTorch's number

    Returns
    -------
    y, hn and, if the layer is an LSTM, cn; of the weights' dtype

    Raises
    ------
    RuntimeError
        batch_sizes is not that of packed sequences.
    """
    layer = prepared.layer
    array = _array(x, prepared)
    width = layer.output_size
    y = np.empty((*array.shape[:-1], width), layer.dtype)
    order = None
    if batch_sizes is not None:
        order = _schedule(batch_sizes, len(array))
        num_rows = len(order.lengths)
        array, rows = np.ascontiguousarray(array), y
    else:
        array, rows = (array, y) if batch_first else (array.swapaxes(0, 1), y.swapaxes(0, 1))
        num_rows = len(array)
        if array.strides[-1] != array.itemsize:
            array = np.ascontiguousarray(array)
    count = layer.num_layers * layer.num_directions
    hn = np.empty((count, num_rows, layer.proj_size or layer.hidden_size), layer.dtype)
    cn = np.empty((count, num_rows, layer.hidden_size), layer.dtype) if layer.kind == "lstm" else None
    h, c = (None if state is None else np.ascontiguousarray(_array(state, prepared)) for state in (h0, c0))
    layer._engine.run(array, rows, order, h, c, hn, cn, num_threads=num_threads or torch.get_num_threads())
    return [torch.from_numpy(result).to(prepared.dtype) for result in (y, hn, cn) if result is not None]


def _array(tensor: Tensor, prepared: Prepared) -> NDArray[Any]:
    """The tensor's memory; a copy if it is widened."""
    array: NDArray[Any] = tensor.to(prepared.wide).numpy(force=True)
    return array


def _schedule(batch_sizes: Tensor, num_steps: int) -> Schedule:
    """The rows of packed sequences in their own order, which have so many steps in all."""
    if batch_sizes.dtype != torch.int64 or batch_sizes.dim() != 1:
        raise RuntimeError(f"batch_sizes is {batch_sizes.dtype} of {batch_sizes.dim()} dimensions, wanted int64 of one")
    sizes = batch_sizes.numpy(force=True)
    wrong = np.flatnonzero(np.diff(sizes, append=1) > 0)  # also those before which all are less than 1
    if len(wrong):
        raise RuntimeError(f"batch_sizes is {sizes.tolist()}, wanted numbers from 1 on that never increase")
    if sizes.sum() != num_steps:
        raise RuntimeError(f"x has {num_steps} steps, but batch_sizes adds up to {sizes.sum()}")
    rows = np.arange(sizes[0] if len(sizes) else 0)
    return Schedule(np.searchsorted(-sizes, -rows), rows, rows, sizes)


_prepared = WeakTensorKeyDictionary()  # by the first layer's weight_hh


@torch.library.custom_op(  # type: ignore[untyped-decorator]
    "fastrnn::run",
    mutates_args=(),
    device_types="cpu",
    schema="(Tensor x, Tensor? batch_sizes, Tensor? h0, Tensor? c0, Tensor[] weights, str mode, int num_layers, "
    "bool bidirectional, bool batch_first, int num_threads, str? weight_dtype=None) -> (Tensor, Tensor, Tensor)",
)
def run_operator(
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    mode: str,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    num_threads: int,
    weight_dtype: WeightDtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`run`, with the weights as arguments; cn is empty unless the layer is an LSTM.

    The prepared layer is kept as long as the weight that it is found by, so a compiled or exported program needs
    nothing besides its own tensors.
    """
    if not 0 <= num_threads <= MOST_THREADS:
        raise ValueError(f"num_threads is {num_threads}, wanted 0 to {MOST_THREADS}")
    options = Options(mode, num_layers, bidirectional, weight_dtype)
    prepared = refresh(_prepared.get(weights[1]), options, list(weights), weak=True)
    _prepared[weights[1]] = prepared
    y, hn, *cn = run(prepared, x, batch_sizes, h0, c0, batch_first, num_threads)
    return y, hn, cn[0] if cn else y.new_empty(0)


@run_operator.register_fake  # type: ignore[untyped-decorator]
def _(
    x: Tensor,
    batch_sizes: Tensor | None,
    h0: Tensor | None,
    c0: Tensor | None,
    weights: Sequence[Tensor],
    mode: str,
    num_layers: int,
    bidirectional: bool,
    batch_first: bool,
    num_threads: int,
    weight_dtype: WeightDtype | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The shapes of the results."""
    directions = 2 if bidirectional else 1
    h_size = weights[1].shape[1]
    if h0 is not None:
        num_rows = h0.shape[1]
    elif batch_sizes is not None:
        num_rows = torch.library.get_ctx().new_dynamic_size()  # batch_sizes[0], which only a run knows
    else:
        num_rows = x.shape[0 if batch_first else 1]
    count = num_layers * directions
    hidden_size = weights[1].shape[0] // NUM_GATES[recurrence_of(mode)[0]]
    y = x.new_empty((*x.shape[:-1], directions * h_size))
    c_shape = (count, num_rows, hidden_size) if mode == "LSTM" else (0,)
    return y, x.new_empty((count, num_rows, h_size)), x.new_empty(c_shape)
