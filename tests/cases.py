"""Random layers and batches of edge cases, and functions that run and compare them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from fastrnn import reference
from fastrnn.layers import LAYERS
from fastrnn.spec import ACTIVATIONS, DEFAULT_ACTIVATIONS, NUM_GATES, Activation, CellSpec, LayerSpec

#: Unsorted, with ties, ones, zeros and the full length.
LENGTHS = (3, 0, 7, 1, 3, 7, 0, 1, 5)

#: Parameters for each activation: its defaults, or ones.
PARAMETERS = {name: tuple(1.0 if part is None else part for part in parts) for name, parts in ACTIVATIONS.items()}


def random_spec(
    rng: np.random.Generator,
    kind: str,
    input_size: int,
    hidden_size: int,
    num_layers: int = 1,
    bidirectional: bool = False,
    proj_size: int = 0,
    *,
    bias: bool = True,
    peephole: bool = False,
    dtype: Any = np.float32,
    scale: float = 1.0,
    **options: Any,
) -> LayerSpec:
    """A spec with weights distributed as in PyTorch, times `scale`; `options` go to every cell."""
    P, D, rows = proj_size or hidden_size, 1 + bidirectional, NUM_GATES[kind] * hidden_size

    def draw(*shape: int) -> np.ndarray:
        return rng.uniform(-scale, scale, shape).astype(dtype) / np.sqrt(hidden_size, dtype=dtype)

    cells = [
        CellSpec(
            weight_ih=draw(rows, D * P if layer else input_size),
            weight_hh=draw(rows, P),
            bias_ih=draw(rows) if bias else None,
            bias_hh=draw(rows) if bias else None,
            weight_hr=draw(P, hidden_size) if proj_size else None,
            peephole=draw(3, hidden_size) if peephole else None,
            **options,
        )
        for layer in range(num_layers)
        for _ in range(D)
    ]
    return LayerSpec(kind, cells, input_size, hidden_size, num_layers, bidirectional, proj_size).validate()


def random_options(rng: np.random.Generator, spec: LayerSpec) -> LayerSpec:
    """Give every cell its own options and activations."""

    def maybe(value: Any) -> Any:
        return value if rng.random() < 0.5 else None

    cells = []
    for cell in spec.cells:
        changes: dict[str, Any] = {
            "bias_ih": maybe(cell.bias_ih),
            "bias_hh": maybe(cell.bias_hh),
            "gate_clip": maybe(rng.uniform(0.2, 1)),
            "activations": tuple(
                Activation.of(str(rng.choice(sorted(ACTIVATIONS))), *rng.uniform(0.2, 0.8, 2))
                for _ in DEFAULT_ACTIVATIONS[spec.kind]
            ),
        }
        if spec.kind == "lstm":
            changes["coupled"] = bool(rng.integers(2))
            changes["cell_clip"] = maybe(rng.uniform(0.2, 1))
            changes["peephole"] = maybe(rng.uniform(-0.5, 0.5, (3, spec.hidden_size)).astype(cell.weight_ih.dtype))
            changes["proj_clip"] = maybe(rng.uniform(0.1, 0.5)) if spec.proj_size else None
        if spec.kind == "gru":
            changes["linear_before_reset"] = bool(rng.integers(2))
        cells.append(replace(cell, **changes))
    return replace(spec, cells=cells).validate()


@dataclass(frozen=True)
class Batch:
    """x (B, T, I) with NaN past each row's length, and a non-zero initial state."""

    x: np.ndarray
    lengths: tuple[int, ...]
    state: Any


def random_batch(
    rng: np.random.Generator, spec: LayerSpec, lengths: tuple[int, ...] = LENGTHS, dtype: Any = np.float32
) -> Batch:
    B, T = len(lengths), max(lengths, default=0)
    x = rng.standard_normal((B, T, spec.input_size)).astype(dtype)
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
    h = rng.uniform(-1, 1, (len(spec.cells), B, spec.h_size)).astype(dtype)
    c = rng.uniform(-2, 2, (len(spec.cells), B, spec.hidden_size)).astype(dtype)
    return Batch(x, lengths, (h, c) if spec.kind == "lstm" else h)


def run_engine(
    spec: LayerSpec, x: Any, state: Any = None, lengths: Any = None, past_end: Any = "zero", **options: Any
) -> tuple[Any, Any, Any]:
    """Run the engine with the signature of the reference; `options` go to the layer."""
    y, last = LAYERS[spec.kind](spec, **options)(x, state, lengths=lengths, past_end=past_end)
    return (y, *last) if spec.kind == "lstm" else (y, last, None)


def assert_close(found: tuple[Any, Any, Any], wanted: tuple[Any, Any, Any], tolerance: float) -> None:
    """Compare (y, h, c); the tolerance is absolute up to 1 and relative beyond."""
    for name, a, b in zip(("y", "h", "c"), found, wanted, strict=True):
        if b is None:
            assert a is None, name
        else:
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)


def assert_matches_reference(
    spec: LayerSpec, batch: Batch, past_end: Any = "zero", tolerance: float = 3e-6, **options: Any
) -> None:
    found = run_engine(spec, batch.x, batch.state, batch.lengths, past_end, **options)
    assert_close(found, reference.run(spec, batch.x, batch.state, batch.lengths, past_end), tolerance)
