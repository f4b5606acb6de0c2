"""`fastrnn.compare`: the largest and the rms difference of two layers' results, and where."""

import math

import numpy as np
import pytest
from cases import random_spec

import fastrnn
from fastrnn.comparison import absolute_differences


def constant(y, *states, **attributes):
    """A layer that returns the same whatever its input is."""

    class Constant:
        def __call__(self, x, lengths=None):
            return (y, states if len(states) > 1 else states[0]) if states else y

    layer = Constant()
    vars(layer).update(attributes)
    return layer


def test_places_and_numbers():
    y, h, c = np.zeros((2, 3, 4)), np.zeros((4, 2, 5)), np.zeros((4, 2, 5))
    other_y, other_h = y.copy(), h.copy()
    other_y[1, 2, 3], other_y[0, 0, 0], other_h[3, 1, 4] = -0.5, 0.25, 2
    ours = constant(y, h, c, num_directions=2)
    found = fastrnn.compare(ours, constant(other_y, other_h, c, num_directions=2), None)
    assert [part.name for part in found.parts] == ["y", "h", "c"]
    y_part, h_part, c_part = found.parts
    assert (y_part.largest, y_part.where, y_part.values) == (0.5, {"row": 1, "step": 2, "unit": 3}, (0.0, -0.5))
    assert y_part.rms == math.sqrt((0.25 + 0.0625) / 24) and y_part.size == 24
    assert (h_part.largest, h_part.where) == (2, {"layer": 1, "direction": 1, "row": 1, "unit": 4})
    assert (c_part.largest, c_part.rms) == (0, 0)
    assert found.largest == 2 and found.worst is h_part
    assert math.isclose(found.rms, math.sqrt((0.25 + 0.0625 + 4) / (24 + 40 + 40)))
    assert str(found).splitlines()[:2] == [
        "y: largest 0.5 at row 1, step 2, unit 3 (0 and -0.5), rms 0.114",
        "h: largest 2 at layer 1, direction 1, row 1, unit 4 (0 and 2), rms 0.316",
    ]


def test_only_steps_that_count():
    y, other = np.zeros((2, 3, 1)), np.zeros((2, 3, 1))
    other[0, 2], other[1, 1], other[0, 0] = 7, 7, 1
    found = fastrnn.compare(constant(y), constant(other), None, lengths=[2, 1])
    (part,) = found.parts
    assert (part.largest, part.size, part.where) == (1, 3, {"row": 0, "step": 0, "unit": 0})
    assert part.rms == math.sqrt(1 / 3)
    nothing = fastrnn.compare(constant(y), constant(other), None, lengths=[0, 0])
    assert (nothing.largest, nothing.rms, nothing.worst.where) == (0, 0, {}) and "nan" not in str(nothing)


def test_time_first_and_one_sequence():
    y = np.zeros((3, 2, 1))
    other = y.copy()
    other[2, 0] = 1
    found = fastrnn.compare(constant(y, batch_first=False), constant(other, batch_first=False), None)
    assert found.worst.where == {"row": 0, "step": 2, "unit": 0}
    h = np.ones((1, 4))
    found = fastrnn.compare(constant(y[:, 0], h), constant(other[:, 0], h * 3), None)
    assert [part.where for part in found.parts] == [
        {"row": 0, "step": 2, "unit": 0},
        {"layer": 0, "direction": 0, "row": 0, "unit": 0},
    ]


def test_nan_and_infinity():
    here = np.array([np.nan, np.nan, 1, np.inf, np.inf, -np.inf, np.inf])
    there = np.array([np.nan, 1, np.nan, np.inf, -np.inf, -np.inf, 1])
    np.testing.assert_array_equal(absolute_differences(here, there), [0, np.inf, np.inf, 0, np.inf, 0, np.inf])


@pytest.mark.parametrize("kind", ["lstm", "gru", "rnn"])
def test_layers(rng, kind):
    layer = {"lstm": fastrnn.LSTM, "gru": fastrnn.GRU, "rnn": fastrnn.RNN}[kind](random_spec(rng, kind, 3, 9, 2, True))
    half = layer.with_weight_dtype("float16")
    x = rng.standard_normal((3, 6, 3)).astype("f4")
    lengths = [4, 0, 6]
    found = fastrnn.compare(layer, half, x, lengths)
    assert 0 < found.largest < 0.05 and len(found.parts) == (3 if kind == "lstm" else 2)
    (y, _), (other, _) = layer(x, lengths=lengths), half(x, lengths=lengths)
    assert found.parts[0].largest == np.abs(y.astype("f8") - other).max()
    rows = [x[0, :4], x[1, :0], x[2]]
    assert fastrnn.compare(layer, half, rows) == found
    assert fastrnn.compare(layer, half, fastrnn.pack(x, lengths)) == found
    assert fastrnn.compare(layer, layer, x).largest == 0
    assert fastrnn.compare(layer, half, []).largest == 0
    with pytest.raises(ValueError, match="y of layer has shape"):
        fastrnn.compare(layer, constant(y[:1], *[np.zeros((4, 3, 9))] * (1 + (kind == "lstm"))), x)
    with pytest.raises(ValueError, match=r"layer returns \d arrays, but other 1"):
        fastrnn.compare(layer, constant(y), x)
