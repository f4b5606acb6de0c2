"""Types of the public functions; tests/test_typing.py runs mypy on this file, which is never run itself."""

from typing import Any, NamedTuple, assert_type

import numpy as np
from numpy.typing import NDArray

import fastrnn

Array = NDArray[Any]


class Tensor:
    """Shaped like PyTorch's, without importing PyTorch."""

    shape: tuple[int, ...]

    def __array__(self, dtype: Any = None) -> Array:
        raise NotImplementedError


class PackedSequence(NamedTuple):
    """Shaped like PyTorch's."""

    data: Tensor
    batch_sizes: Tensor
    sorted_indices: Tensor | None
    unsorted_indices: Tensor | None


def kinds_of_x(
    lstm: fastrnn.LSTM,
    gru: fastrnn.GRU,
    rnn: fastrnn.RNN,
    x: NDArray[np.float32],
    sequence: PackedSequence,
    tensor: Tensor,
) -> None:
    assert_type(lstm(x), tuple[Array, fastrnn.State])
    assert_type(gru(x), tuple[Array, Array])
    assert_type(rnn(x), tuple[Array, Array])
    assert_type(lstm(x, lengths=[1], mask=x > 0, out=x, past_end="carry", casting="no"), tuple[Array, fastrnn.State])
    assert_type(lstm(tensor, lengths=tensor), tuple[Array, fastrnn.State])
    assert_type(gru([x, x]), tuple[list[Array], Array])
    assert_type(gru([tensor, tensor], casting="same_kind"), tuple[list[Array], Array])
    assert_type(lstm(fastrnn.pack(x, [1])), tuple[fastrnn.Packed, fastrnn.State])
    assert_type(lstm(sequence), tuple[PackedSequence, fastrnn.State])
    assert_type(gru([[[1.0, 2.0]]]), tuple[Array | list[Array], Array])
    assert_type(gru([[1.0, 2.0]]), tuple[Array, Array])
    y, (h, c) = lstm(x, (x, x))
    assert_type(y, Array)
    assert_type(h, Array)
    assert_type(c, Array)


def refused(lstm: fastrnn.LSTM, x: Array, sequence: PackedSequence) -> None:
    """Each line must be an error: an ignore that is not needed is one."""
    lstm(x, casting="sure")  # type: ignore[call-overload]
    lstm(x, past_end="hold")  # type: ignore[call-overload]
    lstm(fastrnn.pack(x, [1]), lengths=[1])  # type: ignore[call-overload]
    lstm(sequence, out=x)  # type: ignore[arg-type]
    lstm.stream().step(x, casting="sure")  # type: ignore[arg-type]
    lstm.unroll(3)(fastrnn.pack(x, [1]))  # type: ignore[arg-type]
    fastrnn.pad_sequence([x], padding_side="top")  # type: ignore[arg-type]


def unrolled(lstm: fastrnn.LSTM, gru: fastrnn.GRU, x: Array) -> None:
    assert_type(lstm.unroll(3)(x, casting="same_kind"), tuple[Array, fastrnn.State])
    assert_type(gru.unroll(3)(x, out=x), tuple[Array, Array])


def streams(lstm: fastrnn.LSTM, gru: fastrnn.GRU, x: Array) -> None:
    stream = lstm.stream(2)
    assert_type(stream, fastrnn.Stream[fastrnn.State])
    assert_type(stream.step(x, casting="unsafe"), Array)
    assert_type(stream.run(x), Array)
    assert_type(stream.state, fastrnn.State)
    assert_type(stream.state.c, Array)
    assert_type(gru.stream().state, Array)
    stream.state = None
    stream.state = (x, x)


def packing(x: Array, sequence: PackedSequence) -> None:
    packed = fastrnn.Packed(*sequence)
    assert_type(packed.sorted_indices, NDArray[np.int64])
    assert_type(fastrnn.pack_sequence([x, [1.0]]), fastrnn.Packed)
    assert_type(fastrnn.pad_sequence([x]), Array)
    assert_type(fastrnn.unpack(packed), tuple[Array, NDArray[np.int64]])
    assert_type(fastrnn.unpack(sequence), tuple[Array, NDArray[np.int64]])
    assert_type(fastrnn.unpack_sequence(sequence), list[Array])


def any_layer(layer: fastrnn.layers.Layer, x: Array) -> None:
    """A layer whose class is known only at run time."""
    assert_type(layer(x), tuple[Array, Any])
