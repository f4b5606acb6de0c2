"""The reference implementation: recurrent networks in NumPy float64, row by row and step by step.

Everything else is tested against this file, so it is kept simple and not optimized. The LSTM is that of Hochreiter and
Schmidhuber (1997) with the forget gate of Gers et al. (2000) and the peepholes of Gers et al. (2002); the GRU is
that of Cho et al. (2014), with PyTorch's sign of z. Comments give the papers' equations; ``*`` between vectors is
elementwise, ``@`` a matrix product.

Weights of float16 are rounded, and everything else stays the same. With weights of int8, ``@`` is a product of
integers: see :class:`Int8Matrix`. A last bit of x or h may decide on an integer there, so that results of several steps
may differ from the engine's by more than their roundings; :func:`step` from the engine's own previous state has its
integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import int8_weights
from .spec import WEIGHTS, Activation, CellSpec, LayerSpec, activations_of

Array = NDArray[np.float64]


def run(
    spec: LayerSpec,
    x: ArrayLike,
    state: Any = None,
    lengths: Sequence[int] | NDArray[Any] | None = None,
    past_end: Literal["zero", "carry"] = "zero",
    mask: ArrayLike | None = None,
) -> tuple[Array, Array, Array | None]:
    """Run a layer over a padded batch.

    Parameters
    ----------
    spec : LayerSpec
        A valid spec; its arrays are widened to float64, and weights rounded to its weight_dtype. `batch_first` is
        ignored.
    x : (B, T, I)
        Always batch-major. Nothing past a row's length is read.
    state : (h, c) for an LSTM, h for the others, or None for zeros
        h is (L*D, B, P), c is (L*D, B, H).
    lengths : (B,) integers or None
        Steps of each row; None means T for all.
    past_end : "zero" or "carry"
        What y holds after a row's end: zeros, or each direction's own final h. With a mask: zeros, or the direction's
        previous output, which is zeros before the first step that counts.
    mask : (B, T) booleans or None
        Steps that are False, or past a row's length, leave the state alone.

    Returns
    -------
    y : (B, T, D*P) float64
    h : (L*D, B, P) float64
    c : (L*D, B, H) float64, or None unless the layer is an LSTM
        The states of each row after its own last step; a row of length 0 keeps its initial state.
    """
    x = np.asarray(x, dtype=np.float64)
    B, T, _ = x.shape
    D, P, H = spec.num_directions, spec.h_size, spec.hidden_size
    h0, c0 = state if spec.kind == "lstm" and state is not None else (state, None)
    h = np.zeros((len(spec.cells), B, P)) if h0 is None else np.array(h0, dtype=np.float64)
    c = np.zeros((len(spec.cells), B, H)) if c0 is None else np.array(c0, dtype=np.float64)
    lengths = [T] * B if lengths is None else [int(length) for length in lengths]
    cells = prepared(spec)
    counted = np.arange(T) < np.array(lengths, int)[:, None]
    if mask is not None:
        counted = counted & np.asarray(mask)

    for layer in range(spec.num_layers):
        y = np.zeros((B, T, D * P))
        for direction in range(D):
            reverse = spec.reverse or direction == 1
            index = layer * D + direction
            half = slice(direction * P, (direction + 1) * P)
            for row, length in enumerate(lengths):
                before = np.zeros(P)
                for t in reversed(range(T)) if reverse else range(T):
                    if counted[row, t]:
                        h[index, row], c[index, row] = step(
                            spec.kind, cells[index], x[row, t], h[index, row], c[index, row]
                        )
                        y[row, t, half] = before = h[index, row]
                    elif past_end == "carry":
                        y[row, t, half] = before
                if past_end == "carry" and mask is None:
                    y[row, length:, half] = h[index, row]
        x = y  # the next layer never reads what "carry" writes past the end
    return y, h, c if spec.kind == "lstm" else None


def prepared(spec: LayerSpec) -> list[CellSpec]:
    """The cells of a spec with their weights rounded to its weight_dtype, as :func:`step` takes them."""

    def rounded(weights: Any) -> Any:
        if weights is None or spec.weight_dtype in (None, "float32"):
            return weights
        return weights.astype(np.float16) if spec.weight_dtype == "float16" else Int8Matrix(weights)

    return [replace(cell, **{part: rounded(getattr(cell, part)) for part in WEIGHTS}) for cell in spec.cells]


class Int8Matrix:
    """Weights (N, K) of int8, one scale for each row; ``@`` multiplies them with a vector that is rounded to int8, too.

    The scale of a vector x is max(abs(x)) / 127. The sum of the products of integers is exact; it is multiplied with
    both scales.
    """

    def __init__(self, weights: NDArray[Any]) -> None:
        self.q, self.scales = int8_weights.quantize(weights)

    def __len__(self) -> int:
        return len(self.q)

    def __getitem__(self, rows: slice) -> Int8Matrix:
        part = object.__new__(Int8Matrix)
        part.q, part.scales = self.q[rows], self.scales[rows]
        return part

    def __matmul__(self, x: Array) -> Array:
        q, scale = quantize(x)
        return wide((self.q.astype(np.int64) @ q).astype(np.float32) * scale) * self.scales


def quantize(x: NDArray[Any]) -> tuple[NDArray[np.int64], np.float32]:
    """Round a vector to integers from -127 to 127 and their scale, in float32.

    Subnormal numbers count as zeros. If there is an infinity or a NaN, the scale is NaN.
    """
    x = np.asarray(x, np.float32)
    if not np.isfinite(x).all():
        return np.zeros(len(x), np.int64), np.float32(np.nan)
    least = np.finfo(np.float32).tiny
    x = np.where(np.abs(x) < least, np.float32(0), x)
    largest = np.max(np.abs(x), initial=np.float32(127) * least)
    return np.rint(x * (np.float32(127) / largest)).astype(np.int64), largest / np.float32(127)


def step(kind: str, cell: CellSpec, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """One step of one row: x (I,), h (P,), c (H,) -> the new h and c. Only the LSTM uses c."""
    if kind == "lstm":
        return lstm_step(cell, x, h, c)
    if kind == "gru":
        return gru_step(cell, x, h), c
    return rnn_step(cell, x, h), c


def lstm_step(cell: CellSpec, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """One step of an LSTM."""
    act_i, act_f, act_g, act_o, act_c = activations_of("lstm", cell)
    W_i, W_f, W_g, W_o = split(cell.weight_ih, 4)
    R_i, R_f, R_g, R_o = split(cell.weight_hh, 4)
    b_i, b_f, b_g, b_o = split(bias(cell.bias_ih, cell) + bias(cell.bias_hh, cell), 4)
    p_i, p_f, p_o = np.zeros((3, len(c))) if cell.peephole is None else wide(cell.peephole)

    # i_t = sigma(W_i x_t + R_i h_{t-1} + p_i * c_{t-1} + b_i)
    i = activate(act_i, clip(W_i @ x + R_i @ h + p_i * c + b_i, cell.gate_clip))
    # f_t = sigma(W_f x_t + R_f h_{t-1} + p_f * c_{t-1} + b_f), or 1 - i_t when the two are coupled
    f = 1 - i if cell.coupled else activate(act_f, clip(W_f @ x + R_f @ h + p_f * c + b_f, cell.gate_clip))
    # g_t = tanh(W_g x_t + R_g h_{t-1} + b_g)
    g = activate(act_g, clip(W_g @ x + R_g @ h + b_g, cell.gate_clip))
    # c_t = f_t * c_{t-1} + i_t * g_t
    c = clip(f * c + i * g, cell.cell_clip)
    # o_t = sigma(W_o x_t + R_o h_{t-1} + p_o * c_t + b_o)
    o = activate(act_o, clip(W_o @ x + R_o @ h + p_o * c + b_o, cell.gate_clip))
    # m_t = o_t * tanh(c_t)
    m = o * activate(act_c, c)
    # h_t = W_r m_t (Sak et al. 2014), or m_t itself
    h = m if cell.weight_hr is None else clip(split(cell.weight_hr, 1)[0] @ m, cell.proj_clip)
    return h, c


def gru_step(cell: CellSpec, x: Array, h: Array) -> Array:
    """One step of a GRU."""
    act_r, act_z, act_n = activations_of("gru", cell)
    W_r, W_z, W_n = split(cell.weight_ih, 3)
    R_r, R_z, R_n = split(cell.weight_hh, 3)
    b_ir, b_iz, b_in = split(bias(cell.bias_ih, cell), 3)
    b_hr, b_hz, b_hn = split(bias(cell.bias_hh, cell), 3)

    # r_t = sigma(W_r x_t + R_r h_{t-1} + b_r)
    r = activate(act_r, clip(W_r @ x + b_ir + R_r @ h + b_hr, cell.gate_clip))
    # z_t = sigma(W_z x_t + R_z h_{t-1} + b_z)
    z = activate(act_z, clip(W_z @ x + b_iz + R_z @ h + b_hz, cell.gate_clip))
    if cell.linear_before_reset:
        # n_t = tanh(W_n x_t + b_in + r_t * (R_n h_{t-1} + b_hn))
        n = activate(act_n, clip(W_n @ x + b_in + r * (R_n @ h + b_hn), cell.gate_clip))
    else:
        # n_t = tanh(W_n x_t + b_in + R_n (r_t * h_{t-1}) + b_hn)
        n = activate(act_n, clip(W_n @ x + b_in + R_n @ (r * h) + b_hn, cell.gate_clip))
    # h_t = (1 - z_t) * n_t + z_t * h_{t-1}
    return (1 - z) * n + z * h


def rnn_step(cell: CellSpec, x: Array, h: Array) -> Array:
    """One step of a simple (Elman) network."""
    (act,) = activations_of("rnn", cell)
    (W,), (R,) = split(cell.weight_ih, 1), split(cell.weight_hh, 1)
    # h_t = tanh(W x_t + b_i + R h_{t-1} + b_h)
    return activate(act, clip(W @ x + bias(cell.bias_ih, cell) + R @ h + bias(cell.bias_hh, cell), cell.gate_clip))


def activate(activation: Activation, x: Array) -> Array:
    """Apply one activation function elementwise."""
    alpha, beta = activation.alpha, activation.beta
    match activation.name:
        case "sigmoid":
            return np.exp(-np.logaddexp(0, -x))  # 1 / (1 + exp(-x)) without an overflow
        case "tanh":
            return np.tanh(x)
        case "relu":
            return np.maximum(x, 0)
        case "linear":
            return x
        case "hard_sigmoid":
            return np.clip(alpha * x + beta, 0, 1)
        case "leaky_relu":
            return np.where(x >= 0, x, alpha * x)
        case "elu":
            return np.where(x >= 0, x, alpha * np.expm1(np.minimum(x, 0)))
        case "softsign":
            return wide(x / (1 + np.abs(x)))
        case "softplus":
            return np.logaddexp(0, x)
        case "affine":
            return alpha * x + beta
        case "scaled_tanh":
            return alpha * np.tanh(beta * x)
        case "thresholded_relu":
            return np.where(x <= alpha, 0, x)  # a NaN stays
    raise ValueError(f"activation is {activation.name!r}, which is unknown")


def clip(x: Array, bound: float | None) -> Array:
    """Clip to [-bound, bound]; None leaves x unchanged."""
    return x if bound is None else np.clip(x, -bound, bound)


def wide(array: NDArray[Any]) -> Array:
    return np.asarray(array, dtype=np.float64)


def split(array: Any, gates: int) -> list[Any]:
    """Split the rows (G*H, ...) of an array or Int8Matrix into G blocks (H, ...), arrays of float64."""
    rows = array if isinstance(array, Int8Matrix) else wide(array)
    size = len(rows) // gates
    return [rows[gate * size : (gate + 1) * size] for gate in range(gates)]


def bias(array: NDArray[Any] | None, cell: CellSpec) -> Array:
    """A bias, zero if it is missing."""
    return np.zeros(len(cell.weight_ih)) if array is None else wide(array)
