"""fastrnn.nn's cells and wrappers: weights by name, options, states, one step at a time, and what is refused."""

import copy
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
from bits import assert_same_bits
from tensorflow_cases import CELLS, INPUT_SIZE, cell, draw_weights, make, multi, wrapped

import fastrnn
from fastrnn import nn
from fastrnn.layers import Layer
from fastrnn.nn.structure import flatten, walk

rnn_cell = nn.rnn_cell
LIBRARY = [name for name in CELLS if name != "own"]


def weights_of(description, input_size=INPUT_SIZE):
    return draw_weights(description, input_size, np.random.RandomState(0))[0]


RNN, GRU, LSTM = cell("BasicRNNCell", 3), cell("GRUCell", 3), cell("LSTMCell", 3)


def test_the_package_is_imported_when_it_is_used():
    code = "import sys, fastrnn; assert 'fastrnn.nn' not in sys.modules; print(fastrnn.nn.rnn_cell.LSTMCell.__name__)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "LSTMCell\n"
    with pytest.raises(AttributeError, match="fastrnn"):
        fastrnn.no_such_name  # noqa: B018


@pytest.mark.parametrize("name", LIBRARY)
def test_sizes_and_zero_states(name):
    mine = make(CELLS[name])
    state = mine.zero_state(3, np.float32)
    assert [leaf.shape for leaf in flatten(state)] == [(3, size) for size in flatten(mine.state_size)]
    assert not any(leaf.any() for leaf in flatten(state))
    output, new = mine(np.ones((3, INPUT_SIZE), np.float32), state)
    assert output.shape == (3, mine.output_size) and output.dtype == np.float32
    assert [(path, leaf.shape) for path, leaf in walk(new, "")] == [
        (path, leaf.shape) for path, leaf in walk(state, "")
    ]


@pytest.mark.parametrize("name", LIBRARY)
def test_steps_are_bits_of_the_whole(rng, name):
    mine = make(CELLS[name])
    x = rng.standard_normal((4, 5, INPUT_SIZE)).astype(np.float32)
    wanted, last = nn.dynamic_rnn(mine, x)
    state = mine.zero_state(4, np.float32)
    for t in range(5):
        output, state = mine(x[:, t], state)
        np.testing.assert_array_equal(output, wanted[:, t])
    for a, b in zip(flatten(state), flatten(last), strict=True):
        np.testing.assert_array_equal(a, b)


def test_lstm_states_are_c_and_h():
    mine = make(LSTM)
    assert mine.state_size == rnn_cell.LSTMStateTuple(c=3, h=3)
    ones = np.ones((2, 3), np.float32)
    zeros = 0 * ones
    x = np.zeros((2, INPUT_SIZE), np.float32)
    output, state = mine(x, (ones, zeros))
    assert isinstance(state, rnn_cell.LSTMStateTuple)
    np.testing.assert_array_equal(output, state.h)
    by_name, _ = mine(x, rnn_cell.LSTMStateTuple(h=zeros, c=ones))
    np.testing.assert_array_equal(by_name, output)
    with pytest.raises(TypeError, match="state has the fields h, c, wanted LSTMStateTuple"):
        mine(x, fastrnn.State(zeros, ones))


def test_forget_bias_is_added_to_f_alone():
    weights = weights_of(LSTM)
    folded = dict(weights, bias=weights["bias"] + np.repeat(np.float32([0, 0, 1, 0]), 3))
    x, start = np.ones((1, INPUT_SIZE), np.float32), (np.ones((1, 3), np.float32),) * 2
    outputs = [
        rnn_cell.LSTMCell(3, weights=weights)(x, start)[0],
        rnn_cell.BasicLSTMCell(3, 1.0, weights=weights)(x, start)[0],
        rnn_cell.LSTMCell(3, forget_bias=0.0, weights=folded)(x, start)[0],
    ]
    for output in outputs[1:]:
        np.testing.assert_array_equal(output, outputs[0])
    assert not np.array_equal(rnn_cell.LSTMCell(3, forget_bias=0.0, weights=weights)(x, start)[0], outputs[0])


def test_proj_clip_means_nothing_without_a_projection():
    x, weights = np.ones((1, INPUT_SIZE), np.float32), weights_of(LSTM)
    plain, clipped = (rnn_cell.LSTMCell(3, proj_clip=clip, weights=weights) for clip in (None, 1e-3))
    state = plain.zero_state(1, np.float32)
    np.testing.assert_array_equal(plain(x, state)[0], clipped(x, state)[0])


def test_weights_are_copied():
    weights = weights_of(GRU)
    mine = rnn_cell.GRUCell(3, weights=weights)
    x, state = np.ones((1, INPUT_SIZE), np.float32), mine.zero_state(1, np.float32)
    for array in weights.values():
        array[:] = np.nan
    assert np.isfinite(mine(x, state)[0]).all()


@pytest.mark.parametrize("description", [RNN, GRU, cell("LSTMCell", 3, num_proj=2, use_peepholes=True)])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_names_may_have_a_scope_and_a_suffix(description, dtype):
    weights = {f"rnn/multi/cell_0/{k}:0": v.astype(dtype) for k, v in weights_of(description).items()}
    mine = getattr(rnn_cell, description.name)(description.num_units, weights=weights, **description.options)
    assert mine.dtype == (np.float64 if dtype == np.float64 else np.float32)
    assert mine.input_size == INPUT_SIZE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kernel": None}, "kernel is missing"),
        ({"bias": None, "kernel": None}, "kernel is missing; bias is missing"),
        ({"w_i_diag": np.zeros(3, np.float32)}, r"w_i_diag is surplus, wanted kernel, bias"),
        ({"kernel": np.zeros((8, 11), np.float32)}, r"kernel has shape \(8, 11\), wanted \(8, 12\)"),
        ({"kernel": np.zeros((2, 12), np.float32)}, r"kernel has shape \(2, 12\), wanted \(3, 12\)"),
        ({"kernel": np.zeros(12, np.float32)}, r"kernel has shape \(12,\), wanted \(3, 12\)"),
        ({"kernel": np.zeros((8, 12), np.int32)}, "kernel is int32, wanted float32 or float64"),
        ({"kernel": "none"}, "kernel is <U4, wanted"),
        ({"kernel": [[1.0], [1.0, 2.0]]}, "kernel is list, wanted an array"),
        ({"bias": np.zeros(12)}, "types are float32 and float64, wanted one"),
        ({"a/bias": np.zeros(12, np.float32)}, "a/bias is a second bias"),
        ({"bias": None, "a/bias": np.zeros(12, np.float32)}, "begin with the scopes '', 'a/', wanted one"),
        ({"kernel/Adam": np.zeros(12, np.float32)}, "kernel/Adam is surplus"),
    ],
)
def test_weights_that_do_not_fit(change, message):
    weights = {name: array for name, array in (weights_of(LSTM) | change).items() if array is not None}
    with pytest.raises(ValueError, match=f"^weights: .*{message}"):
        rnn_cell.LSTMCell(3, weights=weights)


def test_every_fault_is_named_at_once():
    weights = weights_of(GRU) | {"gates/bias": np.zeros(5, np.float32), "more": np.zeros(1)}
    del weights["candidate/kernel"]
    with pytest.raises(ValueError) as error:
        rnn_cell.GRUCell(3, weights=weights)
    for part in ("more is surplus", "gates/bias has shape (5,)", "candidate/kernel is missing"):
        assert part in str(error.value)


def test_kernels_of_one_gru_have_one_input_size():
    weights = weights_of(GRU) | {"candidate/kernel": np.zeros((9, 3), np.float32)}
    with pytest.raises(ValueError, match=r"candidate/kernel has shape \(9, 3\), wanted \(8, 3\)"):
        rnn_cell.GRUCell(3, weights=weights)


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"num_units": 0}, ValueError, "num_units is 0"),
        ({"num_units": 3.5}, TypeError, "num_units is 3.5"),
        ({"num_proj": 0}, ValueError, "num_proj is 0"),
        ({"cell_clip": 0}, ValueError, "cell_clip_l0 is 0.0, wanted a positive number"),
        ({"cell_clip": "x"}, TypeError, "cell_clip is 'x', wanted a number"),
        ({"forget_bias": float("nan")}, ValueError, "forget_bias is nan"),
        ({"forget_bias": None}, TypeError, "forget_bias is None, wanted a number"),
        ({"dtype": np.int32}, TypeError, "dtype is int32, wanted float32 or float64"),
        ({"dtype": "no such type"}, TypeError, "dtype is 'no such type', wanted a type"),
        ({"activation": "gelu"}, ValueError, "activation is 'gelu', wanted"),
        ({"activation": 3}, TypeError, "activation is int, wanted"),
        ({"activation": np.sin}, ValueError, "activation is <ufunc 'sin'>, wanted"),
        ({"activation": len}, ValueError, "activation is <built-in function len>"),
        ({"activation": str.upper}, TypeError, "which failed"),
        ({"weights": None}, TypeError, "weights is NoneType, wanted a mapping"),
    ],
)
def test_options_that_do_not_fit(options, kind, message):
    with pytest.raises(kind, match=message):
        rnn_cell.LSTMCell(**({"num_units": 3, "weights": weights_of(LSTM)} | options))


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (None, "tanh"),
        ("TANH", "tanh"),
        (np.tanh, "tanh"),
        (relu, "relu"),
        (lambda x: x, "linear"),
        (lambda x: 1 / (1 + np.exp(-x.astype("f8"))), "sigmoid"),
        (lambda x: np.where(x > 0, x, 0.2 * x), "leaky_relu"),
        (lambda x: [float(v) / (1 + abs(float(v))) for v in x], "softsign"),
    ],
)
def test_activations_are_known_by_what_they_compute(given, name):
    found, named = (rnn_cell.BasicRNNCell(3, activation=a, weights=weights_of(RNN)) for a in (given, name))
    x, state = np.linspace(-3, 3, 4 * INPUT_SIZE, dtype=np.float32).reshape(4, -1), np.ones((4, 3), np.float32)
    np.testing.assert_array_equal(found(x, state)[0], named(x, state)[0])


def test_a_clipped_relu_is_no_relu():
    with pytest.raises(ValueError, match="or a function that computes one; for others write a cell"):
        rnn_cell.BasicRNNCell(3, activation=lambda x: np.clip(x, 0, 6), weights=weights_of(RNN))


@pytest.mark.parametrize(
    ("inputs", "state", "kind", "message"),
    [
        (np.zeros((2, 4), "f4"), None, ValueError, r"inputs has shape \(2, 4\), wanted \(B, I\) with I = 5"),
        (np.zeros((2, 1, 5), "f4"), None, ValueError, r"inputs has shape \(2, 1, 5\)"),
        (np.zeros((2, 5)), None, TypeError, "inputs is float64, wanted float32"),
        ((np.zeros((2, 5), "f4"),) * 2, None, TypeError, "inputs is a tuple of 2 arrays, wanted one"),
        ((), None, ValueError, "inputs is empty"),
        (None, np.zeros((3, 3), "f4"), ValueError, r"state has shape \(3, 3\), wanted \(2, 3\)"),
        (None, np.zeros((2, 3), "f8"), TypeError, "state is float64, wanted float32"),
        (None, [np.zeros((2, 3), "f4")], TypeError, "state is a list, wanted one array"),
    ],
)
def test_a_step_that_does_not_fit(inputs, state, kind, message):
    inputs = np.zeros((2, INPUT_SIZE), np.float32) if inputs is None else inputs
    state = np.zeros((2, 3), np.float32) if state is None else state
    with pytest.raises(kind, match=message):
        make(GRU)(inputs, state)


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda cell: pickle.loads(pickle.dumps(cell))])
def test_a_copy_runs_like_its_original_whenever_it_was_made(rng, name, duplicate):
    x = rng.standard_normal((3, 4, INPUT_SIZE)).astype(np.float32)
    mine = make(CELLS[name])
    plan, buckets = nn.StaticPlan(mine, 4), nn.Buckets(mine, [4, 6])
    before = duplicate(mine)
    wanted = nn.dynamic_rnn(mine, x)
    for one in (before, duplicate(mine)):
        assert_same_bits(flatten(nn.dynamic_rnn(one, x)), flatten(wanted))
    assert_same_bits(flatten(duplicate(plan).run_batch(x)), flatten(wanted))
    assert_same_bits(flatten(duplicate(buckets)(x)), flatten(wanted))


# Wrappers


def calls_of_layers(monkeypatch):
    """The number of layers of each call that reaches the engine."""
    calls = []
    call = Layer.__call__
    monkeypatch.setattr(
        Layer, "__call__", lambda self, *args, **kw: calls.append(self.num_layers) or call(self, *args, **kw)
    )
    return calls


@pytest.mark.parametrize(
    ("description", "layers"),
    [
        (multi(LSTM, LSTM, LSTM), [3]),
        (multi(LSTM, wrapped("DropoutWrapper", LSTM)), [2]),
        (multi(LSTM, cell("LSTMCell", 4)), [1, 1]),
        (multi(LSTM, GRU, GRU, cell("OwnCell", 3), LSTM, LSTM), [1, 2, 2]),
        (multi(LSTM, wrapped("ResidualWrapper", LSTM), LSTM), [1, 1, 1]),
        (multi(LSTM, cell("BasicLSTMCell", 3, state_is_tuple=False), cell("LSTMCell", 3, cell_clip=1.0)), [3]),
        (multi(cell("LSTMCell", 5, num_proj=2), cell("LSTMCell", 5, num_proj=2), cell("LSTMCell", 5)), [2, 1]),
    ],
)
def test_neighbours_of_one_kind_run_as_one_layer(rng, monkeypatch, description, layers):
    """The bits are those of the cells one after the other."""
    x = rng.standard_normal((4, 6, INPUT_SIZE)).astype(np.float32)
    lengths = [6, 0, 2, 2]
    stack = make(description)
    calls = calls_of_layers(monkeypatch)
    outputs, states = nn.dynamic_rnn(stack, x, lengths)
    assert calls == layers
    for one, state in zip(stack.cells, states, strict=True):
        x, last = nn.dynamic_rnn(one, x, lengths)
        for a, b in zip(flatten(state), flatten(last), strict=True):
            np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(outputs, x)


def test_a_cell_may_stand_in_a_stack_twice(rng):
    one = make(LSTM, 3)
    x = rng.standard_normal((2, 4, 3)).astype(np.float32)
    outputs, (first, _) = nn.dynamic_rnn(rnn_cell.MultiRNNCell([one, one]), x)
    middle, state = nn.dynamic_rnn(one, x)
    np.testing.assert_array_equal(first.c, state.c)
    np.testing.assert_array_equal(outputs, nn.dynamic_rnn(one, middle)[0])


@pytest.mark.parametrize(
    ("build", "kind", "message"),
    [
        (lambda: rnn_cell.MultiRNNCell([]), ValueError, "cells is empty"),
        (lambda: rnn_cell.MultiRNNCell(make(GRU)), TypeError, "cells is GRUCell, wanted a list"),
        (lambda: rnn_cell.MultiRNNCell([rnn_cell.GRUCell]), TypeError, r"cells\[0\] is the class GRUCell"),
        (lambda: rnn_cell.MultiRNNCell([make(GRU), 3]), TypeError, r"cells\[1\] is int, without state_size"),
        (
            lambda: rnn_cell.MultiRNNCell([make(GRU), make(GRU)]),
            ValueError,
            r"cells\[1\] takes 5 inputs, but cells\[0\]",
        ),
        (
            lambda: rnn_cell.MultiRNNCell([make(LSTM)], state_is_tuple=False),
            ValueError,
            r"cells\[0\] has the state_size",
        ),
        (
            lambda: rnn_cell.MultiRNNCell(
                [make(GRU), rnn_cell.GRUCell(3, dtype=np.float64, weights=weights_of(GRU, 3))]
            ),
            TypeError,
            r"cells\[1\] computes in float64, but cells\[0\] in float32",
        ),
        (lambda: rnn_cell.ResidualWrapper(make(GRU)), ValueError, "cell takes 5 inputs and returns 3"),
        (lambda: rnn_cell.ResidualWrapper(make(GRU), 3), TypeError, "residual_fn is int"),
        (lambda: rnn_cell.ResidualWrapper("cell"), TypeError, "cell is str, without state_size and output_size"),
        (lambda: rnn_cell.DropoutWrapper(make(GRU), 0.5), ValueError, "input_keep_prob is 0.5, wanted 1.0"),
        (lambda: rnn_cell.DropoutWrapper(make(GRU), output_keep_prob=0), ValueError, "output_keep_prob is 0"),
        (lambda: rnn_cell.DropoutWrapper(make(GRU), state_keep_prob="1/2"), TypeError, "state_keep_prob is '1/2'"),
        (
            lambda: rnn_cell.DeviceWrapper(make(GRU), "/gpu:0"),
            ValueError,
            "device is '/gpu:0', but cells run on processors",
        ),
        (lambda: rnn_cell.DeviceWrapper(make(GRU), "/device:TPU:0"), ValueError, "device is '/device:TPU:0'"),
        (
            lambda: rnn_cell.DeviceWrapper(make(GRU), "/cpu:12345"),
            ValueError,
            r"'/cpu:12345', but this process may use \d+",
        ),
        (lambda: rnn_cell.DeviceWrapper(make(GRU), lambda op: "/cpu:0"), TypeError, "device is function"),
    ],
)
def test_wrappers_that_do_not_fit(build, kind, message):
    with pytest.raises(kind, match=message):
        build()


def test_a_residual_function_sees_valid_rows_only(rng):
    """A residual function combines inputs of 5 and outputs of 3; it never gets padding."""
    x = rng.standard_normal((3, 4, INPUT_SIZE)).astype(np.float32)
    lengths = [2, 0, 4]
    for row, length in enumerate(lengths):
        x[row, length:] = np.nan
    seen = []

    def gate(inputs, outputs):
        seen.append(inputs)
        return outputs * inputs[:, :1]

    wrapper = rnn_cell.ResidualWrapper(make(GRU), gate)
    found, state = nn.dynamic_rnn(wrapper, x, lengths)
    assert seen[0].shape == (6, INPUT_SIZE) and not np.isnan(seen[0]).any()
    outputs, wanted = nn.dynamic_rnn(make(GRU), x, lengths)
    np.testing.assert_array_equal(found, np.where(outputs == 0, 0, outputs * x[:, :, :1]))
    np.testing.assert_array_equal(state, wanted)


class Whereabouts(nn.rnn_cell.RNNCell):
    """Records the processors on which it may run."""

    state_size = output_size = 1

    def __init__(self):
        self.seen = []

    def call(self, inputs, state):
        self.seen.append(os.sched_getaffinity(0))
        if inputs.any():
            raise KeyboardInterrupt
        return inputs, state


@pytest.mark.parametrize(
    "device", ["/cpu:{}", "/CPU:{}", "cpu:{}", "/device:CPU:{}", "/job:localhost/replica:0/task:0/cpu:{}"]
)
def test_a_device_pins_the_thread_meanwhile(device):
    before = os.sched_getaffinity(0)
    processor = max(before)
    inner = Whereabouts()
    wrapper = rnn_cell.DeviceWrapper(inner, device.format(len(before) - 1))
    nn.dynamic_rnn(wrapper, np.zeros((2, 3, 1), np.float32))
    assert inner.seen == [{processor}] * 3 and os.sched_getaffinity(0) == before
    with pytest.raises(KeyboardInterrupt):
        nn.dynamic_rnn(wrapper, np.ones((2, 3, 1), np.float32))
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("device", [None, "", "/job:localhost"])
def test_no_device_pins_nothing(device):
    inner = Whereabouts()
    nn.dynamic_rnn(rnn_cell.DeviceWrapper(inner, device), np.zeros((2, 1, 1), np.float32))
    assert inner.seen == [os.sched_getaffinity(0)]


def test_the_innermost_device_wins():
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("needs two processors")
    second = sorted(os.sched_getaffinity(0))[1]
    inner = Whereabouts()
    wrapper = rnn_cell.DeviceWrapper(rnn_cell.DeviceWrapper(inner, "/cpu:1"), "/cpu:0")
    nn.dynamic_rnn(wrapper, np.zeros((2, 1, 1), np.float32))
    assert inner.seen == [{second}]


# Cells made from these by inheritance


class Doubled(nn.rnn_cell.GRUCell):
    def call(self, inputs, state):
        output, state = super().call(inputs, state)
        return 2 * output, state


class Counted(nn.rnn_cell.GRUCell):
    calls = 0

    def __call__(self, inputs, state, scope=None):
        self.calls += 1
        return super().__call__(inputs, state)


def test_a_subclass_may_take_steps_its_own_way(rng):
    x = rng.standard_normal((3, 4, INPUT_SIZE)).astype(np.float32)
    outputs, state = nn.dynamic_rnn(make(GRU), x, [4, 0, 2])
    for inherited, factor in ((Doubled, 2), (Counted, 1)):
        mine = inherited(3, weights=weights_of(GRU))
        found, last = nn.dynamic_rnn(mine, x, [4, 0, 2])
        np.testing.assert_array_equal(found, factor * outputs)
        np.testing.assert_array_equal(last, state)
    assert mine.calls == 4
    stacked, _ = nn.dynamic_rnn(rnn_cell.MultiRNNCell([Doubled(3, weights=weights_of(GRU))]), x, [4, 0, 2])
    np.testing.assert_array_equal(stacked, 2 * outputs)


def test_an_unfinished_cell_says_what_it_lacks():
    class Bare(nn.rnn_cell.RNNCell):
        state_size = output_size = 1

    with pytest.raises(NotImplementedError, match="Bare has no method call"):
        Bare()(np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(NotImplementedError, match="RNNCell has no state_size"):
        nn.rnn_cell.RNNCell().zero_state(1, np.float32)
