"""Conversion between a LayerSpec and the compiled module's layer, and the choice of dtype and backend."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from .. import _core
from ..spec import WEIGHTS, Activation, CellSpec, LayerSpec, WeightDtype, activations_of, check_weight_dtype

Backend = Literal["auto", "fused", "blas"]

#: A cell's arrays, in the order in which the engine takes and returns them.
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")


def engine_arguments(spec: LayerSpec, dtype: np.dtype[Any]) -> tuple[Any, ...]:
    """A validated spec as the compiled module takes it, its arrays in dtype."""
    cells = [
        (
            tuple(_prepare(getattr(c, part), dtype, spec.weight_dtype if part in WEIGHTS else None) for part in PARTS),
            [(a.name, a.alpha, a.beta) for a in activations_of(spec.kind, c)],
            tuple(clip or 0.0 for clip in (c.cell_clip, c.gate_clip, c.proj_clip)),
            c.coupled,
            c.linear_before_reset,
        )
        for c in spec.cells
    ]
    sizes = (int(size) for size in (spec.input_size, spec.hidden_size, spec.proj_size, spec.num_layers))
    return spec.kind, dtype, *sizes, bool(spec.bidirectional), bool(spec.reverse), spec.weight_dtype, cells


def build_engine(spec: LayerSpec, dtype: np.dtype[Any], isa: str | None, use_blas: bool) -> _core.Layer:
    """Prepare the weights of a validated spec, in dtype."""
    arguments = (*engine_arguments(spec, dtype), isa, use_blas)
    return _core.Layer(*arguments)


def _prepare(array: NDArray[Any] | None, dtype: np.dtype[Any], weight_dtype: WeightDtype | None) -> NDArray[Any] | None:
    """An array as the engine takes it. float64 is rounded to float16 at once, and not to float32 before."""
    if array is not None and array.dtype == np.float64 and weight_dtype == "float16":
        array = array.astype(np.float16)
    return None if array is None else np.ascontiguousarray(array, dtype)


def unpack_cells(unpacked: list[Any]) -> list[CellSpec]:
    """The cells that an engine's ``unpack`` gave, in its dtype; if a cell adds its two biases, bias_ih is their sum."""
    cells = []
    for arrays, activations, clips, coupled, linear_before_reset in unpacked:
        cell = CellSpec(
            **dict(zip(PARTS, arrays, strict=True)),
            activations=tuple(Activation(*activation) for activation in activations),
            cell_clip=clips[0] or None,
            gate_clip=clips[1] or None,
            proj_clip=clips[2] or None,
            coupled=coupled,
            linear_before_reset=linear_before_reset,
        )
        cells.append(cell)
    return cells


def choose_dtype(spec: LayerSpec, dtype: DTypeLike | None) -> np.dtype[Any]:
    chosen = np.dtype(spec.cells[0].weight_ih.dtype if dtype is None else dtype)
    if chosen not in (np.float32, np.float64):
        raise TypeError(f"dtype is {chosen}, wanted float32 or float64")
    return chosen


def choose_weight_dtype(spec: LayerSpec, weight_dtype: WeightDtype | None) -> LayerSpec:
    """The spec with this weight dtype; None keeps the spec's own.

    Raises
    ------
    ValueError
        The spec has another one already: its weights have been rounded.
    """
    if weight_dtype is None or weight_dtype == spec.weight_dtype:
        return spec
    if spec.weight_dtype not in (None, "float32"):
        raise ValueError(
            f"weight_dtype is {weight_dtype!r}, but the weights are {spec.weight_dtype} already: "
            "wanted None, or the layer that they were made from"
        )
    return replace(spec, weight_dtype=weight_dtype)


def choose_backend(
    backend: Backend, dtype: np.dtype[Any], isa: str | None, weight_dtype: WeightDtype | None = None
) -> Literal["fused", "blas"]:
    if not isinstance(backend, str) or backend not in ("auto", "fused", "blas"):
        raise ValueError(f"backend is {backend!r}, wanted 'auto', 'fused' or 'blas'")
    if backend == "fused" and dtype == np.float64:
        raise ValueError("backend is 'fused' and dtype float64, wanted float32, or backend 'blas'")
    check_weight_dtype(weight_dtype, dtype)
    if weight_dtype not in (None, "float32"):
        if backend == "blas":
            raise ValueError(f"weight_dtype is {weight_dtype!r} and backend 'blas', wanted None, or backend 'fused'")
        return "fused"
    if backend != "auto":
        return backend
    has_vectors = isa is not None or _core.available_isas()[0] != "scalar"
    return "fused" if dtype == np.float32 and has_vectors else "blas"
