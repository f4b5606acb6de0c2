"""Random models and inputs for them, and functions that run and compare them."""

from __future__ import annotations

from typing import Any

import numpy as np
from cases import random_spec

from fastrnn import Activation, Sequential
from fastrnn.models import ops, reference
from fastrnn.models.spec import AnyOp, ModelSpec
from fastrnn.spec import LayerSpec

#: Unsorted, with ties, ones, zeros and the full length.
LENGTHS = (3, 0, 7, 1, 3, 7, 0, 1, 5)

#: Around the widths of vectors and of blocks of them.
WIDTHS = (1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 48, 64, 65)

#: Continuous, so that rounding errors stay small.
ACTIVATIONS = ("sigmoid", "tanh", "relu", "hard_sigmoid", "leaky_relu", "elu", "softsign", "softplus", "linear")

POOLS: tuple[type[ops.Pool], ...] = (ops.Last, ops.First, ops.Mean, ops.Max)


def draw(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Weights whose products with numbers around 1 are around 1."""
    inputs = int(np.prod(shape[1:])) if len(shape) > 1 else 1
    return (rng.uniform(-1, 1, shape) * np.sqrt(3 / inputs)).astype(np.float32)


def maybe(rng: np.random.Generator, value: Any) -> Any:
    return value if rng.random() < 0.7 else None


def linear(rng: np.random.Generator, inputs: int, outputs: int) -> ops.Linear:
    return ops.Linear(draw(rng, outputs, inputs), maybe(rng, draw(rng, outputs)))


def conv1d(rng: np.random.Generator, inputs: int, outputs: int, causal: bool = False, **options: Any) -> ops.Conv1d:
    weight = draw(rng, outputs, inputs, int(rng.integers(1, 5)))
    if causal:
        options["padding"] = "causal"
    options = {"stride": int(rng.choice((1, 1, 2, 3))), "dilation": int(rng.choice((1, 1, 2)))} | options
    if "padding" not in options:
        options["padding"] = tuple(rng.integers(0, 4, 2).tolist())
    return ops.Conv1d(weight, maybe(rng, draw(rng, outputs)), **options)


def layer_norm(rng: np.random.Generator, width: int) -> ops.LayerNorm:
    return ops.LayerNorm(maybe(rng, draw(rng, width)), maybe(rng, draw(rng, width)), eps=0.05)


def batch_norm(rng: np.random.Generator, width: int) -> ops.BatchNorm:
    var = rng.uniform(0.5, 2, width).astype(np.float32)
    return ops.BatchNorm(draw(rng, width), var, maybe(rng, draw(rng, width)), maybe(rng, draw(rng, width)), eps=1e-3)


def recurrent(rng: np.random.Generator, inputs: int, hidden: int, forward: bool = False) -> LayerSpec:
    kind = str(rng.choice(("lstm", "gru", "rnn")))
    bidirectional = not forward and bool(rng.integers(2))
    proj_size = int(rng.integers(1, hidden)) if kind == "lstm" and hidden > 1 and rng.random() < 0.3 else 0
    return random_spec(rng, kind, inputs, hidden, int(rng.choice((1, 1, 2))), bidirectional, proj_size)


def random_model(rng: np.random.Generator, streams: bool = False, pools: bool | None = None) -> ModelSpec:
    """A chain of up to eight operations; `streams`: only such as run in streams; `pools`: None at random."""
    chain: list[AnyOp] = []
    width = int(rng.choice(WIDTHS))
    if rng.random() < 0.4:
        chain.append(ops.Embedding(draw(rng, int(rng.integers(2, 40)), width), mask_zero=bool(rng.integers(2))))
        if streams and chain[0].mask_zero:
            chain[0] = ops.Embedding(chain[0].weight)
    pooled = False
    pools = not streams and bool(rng.integers(2)) if pools is None else pools
    count = int(rng.integers(1, 6))
    for index in range(count):
        after = int(rng.choice(WIDTHS))
        found: list[AnyOp] = [
            linear(rng, width, after),
            layer_norm(rng, width),
            batch_norm(rng, width),
            Activation.of(str(rng.choice(ACTIVATIONS))),
        ]
        if not pooled:
            found += [recurrent(rng, width, after, streams), conv1d(rng, width, after, streams)]
            found += [] if streams else [ops.Reverse()]
        op = found[int(rng.integers(len(found)))]
        chain.append(op)
        if isinstance(op, LayerSpec):
            after = op.num_directions * op.h_size
        width = after if isinstance(op, LayerSpec | ops.Linear | ops.Conv1d) else width
        if pools and not pooled and (index == count - 1 or rng.random() < 0.3):
            final = isinstance(op, LayerSpec) and rng.random() < 0.5
            chain.append(ops.Final() if final else POOLS[int(rng.integers(len(POOLS)))]())
            pooled = True
    if not any(isinstance(op, LayerSpec | ops.Linear | ops.Conv1d | ops.BatchNorm) for op in chain):
        chain.append(linear(rng, width, 3))
    if rng.random() < 0.3:
        chain.append(ops.Softmax() if rng.random() < 0.5 else ops.LogSoftmax())
    return ModelSpec(chain).validate()


def random_rows(rng: np.random.Generator, spec: ModelSpec, lengths: Any = LENGTHS) -> list[np.ndarray]:
    """A row x, (T_i, I) or ids (T_i,), for each length; with mask_zero some of the ids are zero."""
    first = spec.ops[0]
    if isinstance(first, ops.Embedding):
        rows = [rng.integers(0, len(first.weight), length) for length in lengths]
        if first.mask_zero:
            rows = [np.where(rng.random(len(row)) < 0.3, 0, row) for row in rows]
        return rows
    return [rng.standard_normal((length, spec.widths[0])).astype(np.float32) for length in lengths]


def pad(rows: list[np.ndarray], steps: int | None = None) -> np.ndarray:
    """Rows as one array, with NaN or ids out of range in the padding."""
    steps = max(map(len, rows), default=0) if steps is None else steps
    is_ids = rows[0].ndim == 1
    x = np.full((len(rows), steps, *rows[0].shape[1:]), -(10**9) if is_ids else np.nan, rows[0].dtype)
    for padded, row in zip(x, rows, strict=True):
        padded[: len(row)] = row
    return x


def expected(spec: ModelSpec, rows: list[np.ndarray], steps: int | None = None) -> np.ndarray:
    """What a call with padded rows returns, by the reference: (B, S, O), or (B, O)."""
    found = reference.run(spec, rows)
    if spec.pools:
        return np.stack(found)
    longest = max(map(len, rows), default=0) if steps is None else steps
    y = np.zeros((len(rows), spec.output_steps(longest), spec.widths[-1]))
    for padded, row, result in zip(y, rows, found, strict=True):
        padded[places(spec, row, len(result))] = result
    return y


def places(spec: ModelSpec, row: np.ndarray, count: int) -> np.ndarray:
    """At which steps the `count` results of a row are."""
    first = spec.ops[0]
    if isinstance(first, ops.Embedding) and first.mask_zero and spec.keeps_steps:
        return np.flatnonzero(row)
    return np.arange(count)


def assert_near(found: np.ndarray, wanted: np.ndarray, tolerance: float = 1e-5, message: str = "") -> None:
    """The tolerance is absolute up to 1 and relative beyond."""
    np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance, err_msg=message)


def text(spec: ModelSpec) -> str:
    return repr(Sequential.from_spec(spec))
