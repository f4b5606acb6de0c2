"""Comparison of results bit for bit: equal NaNs are equal, and -0 differs from 0."""

from __future__ import annotations

from typing import Any

import numpy as np

import fastrnn

#: Models whose cells take different paths through the engine: name -> (kind, arguments of `cases.random_spec`).
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("lstm", {}),
    "lstm-projection": ("lstm", {"proj_size": 3}),
    "lstm-peephole": ("lstm", {"peephole": True}),
    "gru": ("gru", {}),
    "gru-reset-before": ("gru", {"linear_before_reset": False}),
    "rnn": ("rnn", {}),
}


def arrays_of(result: Any) -> list[np.ndarray]:
    """The arrays in nested tuples and lists, in order."""
    if isinstance(result, fastrnn.Packed):
        return [result.data]
    if isinstance(result, (tuple, list)):
        return [array for part in result for array in arrays_of(part)]
    return [np.asarray(result)]


def assert_same_bits(found: Any, wanted: Any, message: str = "") -> None:
    """Compare nested arrays by shape, type and bits."""
    a, b = arrays_of(found), arrays_of(wanted)
    assert len(a) == len(b), message
    for left, right in zip(a, b, strict=True):
        assert left.dtype == right.dtype and left.shape == right.shape, message
        if left.tobytes() != right.tobytes():
            np.testing.assert_array_equal(left, right, err_msg=message)
            raise AssertionError(f"{message}: zeros or NaNs differ in their bits")


def rows_of_state(state: Any, rows: Any) -> Any:
    """The state of some rows; `state` is h, (h, c) or None."""
    if isinstance(state, tuple):
        return tuple(part[:, rows] for part in state)
    return None if state is None else state[:, rows]


def poison(shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """An array filled with a NaN whose bits no computation produces."""
    array = np.empty(shape, dtype)
    array.view(np.uint8)[...] = 0x7F
    array.view(f"u{array.itemsize}")[...] |= 0xA5
    return array
