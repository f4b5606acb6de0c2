"""fastrnn.nn's drivers: which path runs, static plans, buckets, custom cells, nested states, refused arguments."""

from collections import OrderedDict, namedtuple
from dataclasses import replace

import numpy as np
import pytest
from tensorflow_cases import CELLS, INPUT_SIZE, OwnCell, cell, draw_weights, make, multi

import fastrnn
from fastrnn import nn
from fastrnn.layers import Layer
from fastrnn.nn.structure import flatten, map_structure, pack, walk

LENGTHS = [3, 0, 6, 1, 3, 6, 1]
B, T = 7, 6
LSTM, GRU = cell("LSTMCell", 7), cell("GRUCell", 9)


@pytest.fixture
def x(rng):
    return rng.standard_normal((B, T, INPUT_SIZE)).astype(np.float32)


def assert_equal(found, wanted):
    for a, b in zip(flatten(found), flatten(wanted), strict=True):
        np.testing.assert_array_equal(a, b)


# Which path runs


def test_static_plans_grow_with_their_steps_and_dynamic_builds_none(x, monkeypatch):
    built = []
    unroll = Layer.unroll
    monkeypatch.setattr(Layer, "unroll", lambda self, steps: built.append(steps) or unroll(self, steps))
    nn.static_rnn(make(LSTM), list(x.swapaxes(0, 1)))
    nn.StaticPlan(make(multi(LSTM, GRU)), 100)
    nn.static_bidirectional_rnn(make(LSTM), make(GRU), list(x.swapaxes(0, 1)))
    assert built == [T, 100, 100, T, T]
    nn.dynamic_rnn(make(LSTM), x)
    nn.static_rnn(make(LSTM), list(x.swapaxes(0, 1)), sequence_length=LENGTHS)
    nn.bidirectional_dynamic_rnn(make(LSTM), make(GRU), x, LENGTHS)
    assert len(built) == 5


@pytest.mark.parametrize("name", CELLS)
def test_a_plan_is_built_once_and_gives_the_bits_of_the_sorted_path(x, name):
    plan = nn.StaticPlan(make(CELLS[name]), T)
    assert plan.num_steps == T
    for batch in (x, x[:1], x[:0], -x):
        outputs, state = plan(list(batch.swapaxes(0, 1)))
        wanted, last = nn.dynamic_rnn(make(CELLS[name]), batch)
        assert_equal((np.stack(outputs, axis=1), state), (wanted, last))


@pytest.mark.parametrize("steps", [T - 1, T + 1])
def test_a_plan_refuses_other_lengths_with_both_numbers(x, steps):
    batch = np.concatenate([x, x], axis=1)[:, :steps]
    with pytest.raises(ValueError, match=f"inputs has {steps} steps, but the plan was built for {T}"):
        nn.StaticPlan(make(LSTM), T)(list(batch.swapaxes(0, 1)))


@pytest.mark.parametrize(
    ("steps", "found"), [(-1, "-1, wanted an integer of at least 0"), (2**40, "1099511627776, wanted at")]
)
def test_a_plan_has_so_many_steps_and_no_more(steps, found):
    with pytest.raises(ValueError, match=f"num_steps is {found}"):
        nn.StaticPlan(make(LSTM), steps)


def test_options_without_meaning_change_nothing(x):
    wanted = nn.dynamic_rnn(make(LSTM), x, LENGTHS)
    found = nn.dynamic_rnn(make(LSTM), x, LENGTHS, parallel_iterations=1, swap_memory=True, scope="rnn")
    assert_equal(found, wanted)


def test_a_type_of_tensorflows_is_a_type(x):
    class Float32:
        as_numpy_dtype = np.float32

    assert_equal(nn.dynamic_rnn(make(LSTM), x, dtype=Float32()), nn.dynamic_rnn(make(LSTM), x))


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("shape", [(0, T), (B, 0), (0, 0)], ids=str)
def test_nothing_to_do(name, shape):
    mine = make(CELLS[name])
    x = np.zeros((*shape, INPUT_SIZE), np.float32)
    start = map_structure(lambda size: np.full((shape[0], size), 0.5, np.float32), mine.state_size)
    for lengths in (None, [0] * shape[0]):
        outputs, state = nn.dynamic_rnn(mine, x, lengths, start)
        assert outputs.shape == (*shape, mine.output_size) and outputs.dtype == np.float32
        assert not outputs.any()
        assert_equal(state, start)


def test_results_do_not_share_memory_with_arguments(x):
    for mine in (make(LSTM), make(CELLS["own"])):
        start = map_structure(lambda size: np.ones((B, size), np.float32), mine.state_size)
        outputs, state = nn.dynamic_rnn(mine, x, [0] * B, start)
        for leaf in flatten((outputs, state)):
            assert not any(np.may_share_memory(leaf, other) for other in (x, *flatten(start)))


def test_any_strides_and_byte_orders(x):
    wanted = nn.dynamic_rnn(make(LSTM), x, LENGTHS)
    for view in (np.asfortranarray(x), x.astype(">f4"), np.repeat(x, 2, axis=2)[:, :, ::2], x[:, ::-1][:, ::-1]):
        assert_equal(nn.dynamic_rnn(make(LSTM), view, LENGTHS), wanted)


# Both directions


def test_the_reverse_direction_starts_at_each_rows_own_end(x):
    """With one cell in both directions: backward at t = 0 equals forward on the reversed row."""
    (forward, backward), (_, state) = nn.bidirectional_dynamic_rnn(make(GRU), make(GRU), x, LENGTHS)
    for row, length in enumerate(LENGTHS):
        turned, last = nn.dynamic_rnn(make(GRU), x[row : row + 1, :length][:, ::-1])
        np.testing.assert_array_equal(backward[row, :length], turned[0, ::-1])
        np.testing.assert_array_equal(state[row], last[0])
        assert not backward[row, length:].any() and not forward[row, length:].any()


def test_directions_agree_with_a_bidirectional_layer(x):
    """The bits of the engine's own reverse direction."""
    weights = draw_weights(LSTM, INPUT_SIZE, np.random.RandomState(1))[0]
    forward, backward = make(LSTM), nn.rnn_cell.LSTMCell(7, weights=weights)
    spec = replace(forward.spec, cells=[*forward.spec.cells, *backward.spec.cells], bidirectional=True)
    wanted, (h, c) = fastrnn.LSTM(spec)(x, lengths=LENGTHS)
    outputs, (fw, bw) = nn.bidirectional_dynamic_rnn(forward, backward, x, LENGTHS)
    np.testing.assert_array_equal(np.concatenate(outputs, axis=2), wanted)
    assert_equal([fw.h, bw.h, fw.c, bw.c], [*h, *c])


# Custom cells

Pair = namedtuple("Pair", "left right")


class Counter:
    """Takes a pair of inputs, has a matrix, a dict and a list in its state, and records each step's number of rows."""

    def __init__(self):
        self.state_size = Pair(nn.TensorShape([2, 3]), {"b": 1, "a": [1, 1]})
        self.output_size = {"sum": 1, "matrix": nn.TensorShape([2, 3])}
        self.rows = []

    def __call__(self, inputs, state):
        vector, matrix = inputs
        self.rows.append(len(vector))
        left = state.left + matrix
        ones = [state.right["a"][0] + 1, state.right["a"][1]]
        right = {"a": ones, "b": state.right["b"] + vector.sum(axis=1, keepdims=True)}
        return {"sum": right["b"], "matrix": left}, Pair(left, right)


@pytest.fixture
def pair(rng):
    vector, matrix = rng.standard_normal((B, T, 4)), rng.standard_normal((B, T, 2, 3))
    for row, length in enumerate(LENGTHS):
        vector[row, length:] = matrix[row, length:] = np.nan
    return vector, matrix


def test_rows_leave_the_batch_of_a_cell_of_ones_own(pair):
    mine = Counter()
    outputs, state = nn.dynamic_rnn(mine, pair, LENGTHS)
    assert mine.rows == [6, 4, 4, 2, 2, 2]
    vector, matrix = pair
    for row, length in enumerate(LENGTHS):
        sums = np.cumsum(vector[row, :length].sum(axis=1))
        np.testing.assert_allclose(outputs["sum"][row, :length, 0], sums, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(outputs["matrix"][row, :length], np.cumsum(matrix[row, :length], axis=0))
        assert not outputs["sum"][row, length:].any() and not outputs["matrix"][row, length:].any()
        assert state.right["a"][0][row] == length and state.right["a"][1][row] == 0
        np.testing.assert_allclose(state.left[row], matrix[row, :length].sum(axis=0), rtol=1e-12, atol=1e-12)
    assert isinstance(state, Pair) and list(state.right) == ["b", "a"]


def test_nested_inputs_through_every_driver(pair):
    wanted, state = nn.dynamic_rnn(Counter(), pair, LENGTHS)
    turned = map_structure(lambda leaf: leaf.swapaxes(0, 1), pair)
    outputs, last = nn.dynamic_rnn(Counter(), turned, LENGTHS, time_major=True)
    assert_equal((map_structure(lambda leaf: leaf.swapaxes(0, 1), outputs), last), (wanted, state))
    steps = [(pair[0][:, t], pair[1][:, t]) for t in range(T)]
    outputs, last = nn.static_rnn(Counter(), steps, sequence_length=LENGTHS, dtype=np.float64)
    assert_equal((map_structure(lambda *leaves: np.stack(leaves, axis=1), *outputs), last), (wanted, state))
    (forward, backward), _ = nn.bidirectional_dynamic_rnn(Counter(), Counter(), pair, LENGTHS)
    assert_equal(forward, wanted)
    np.testing.assert_allclose(backward["sum"][0, 0], pair[0][0, :3].sum(keepdims=True)[0], rtol=1e-12)
    assert not backward["sum"][0, 3:].any()


def test_a_cell_of_ones_own_in_a_stack_and_in_wrappers(x):
    own = make(CELLS["own_among_others"])
    outputs, states = nn.dynamic_rnn(own, x, LENGTHS)
    rows = x
    for one, state in zip(own.cells, states, strict=True):
        rows, last = nn.dynamic_rnn(one, rows, LENGTHS)
        assert_equal(state, last)
    assert_equal(outputs, rows)
    residual = nn.rnn_cell.ResidualWrapper(OwnCell(INPUT_SIZE, {"kernel": np.eye(INPUT_SIZE, dtype=np.float32)}))
    found, _ = nn.dynamic_rnn(residual, x, LENGTHS)
    plain, _ = nn.dynamic_rnn(residual.cell, x, LENGTHS)
    valid = np.arange(T) < np.array(LENGTHS)[:, None]
    np.testing.assert_array_equal(found, np.where(valid[:, :, None], plain + x, 0))


def test_a_residual_over_other_widths_is_refused_when_they_show(x):
    with pytest.raises(ValueError, match=r"inputs are \(5,\) wide and outputs \(4,\), wanted equal widths"):
        nn.dynamic_rnn(nn.rnn_cell.ResidualWrapper(make(CELLS["own"])), x)


class Returns:
    """A cell that returns given values."""

    state_size = output_size = 2

    def __init__(self, returned):
        self.returned = returned

    def __call__(self, inputs, state):
        return self.returned


GOOD = np.zeros((B, 2), np.float32)


@pytest.mark.parametrize(
    ("returned", "kind", "message"),
    [
        (GOOD, TypeError, "cell returned ndarray, wanted the pair"),
        ((GOOD, GOOD, GOOD), TypeError, "cell returned tuple, wanted the pair"),
        ((GOOD[:2], GOOD), ValueError, r"an output of shape \(2, 2\), wanted \(7, 2\)"),
        (((GOOD, GOOD), GOOD), TypeError, "output is a tuple, wanted one array"),
        ((GOOD, (GOOD, GOOD)), TypeError, "state is a tuple, wanted one array"),
        (
            (GOOD, GOOD[:, :1]),
            ValueError,
            r"cell's new state is float32 of shape \(7, 1\), wanted float32 of shape \(7, 2\)",
        ),
        ((GOOD, GOOD.astype("f8")), ValueError, "cell's new state is float64"),
        ((GOOD[:, :1], GOOD), ValueError, r"an output of shape \(7, 1\), wanted \(7, 2\)"),
    ],
)
def test_a_cell_that_returns_something_else(x, returned, kind, message):
    with pytest.raises(kind, match=message):
        nn.dynamic_rnn(Returns(returned), x)


def test_outputs_of_a_cell_keep_their_type(x):
    class ChangesType(Returns):
        def __call__(self, inputs, state):
            self.returned = self.returned[0].astype("f8"), self.returned[1]
            return self.returned if inputs[0, 0] == x[0, 1, 0] else (GOOD, GOOD)

    with pytest.raises(TypeError, match="cell returned an output that is float64, wanted float32 as before"):
        nn.dynamic_rnn(ChangesType((GOOD, GOOD)), x)


@pytest.mark.parametrize(
    ("size", "kind", "message"),
    [
        ("7", TypeError, "cell.state_size is '7', wanted an integer"),
        (None, TypeError, "cell.state_size is None"),
        (-1, ValueError, "cell.state_size is -1, wanted an integer of at least 0"),
        ((2, {"a": 1.5}), TypeError, r"cell.state_size\[1\]\['a'\] is 1.5"),
        (nn.TensorShape([2, -1]), ValueError, "cell.state_size is -1"),
    ],
)
def test_sizes_that_are_none(x, size, kind, message):
    mine = Returns((GOOD, GOOD))
    mine.state_size = size
    with pytest.raises(kind, match=message):
        nn.dynamic_rnn(mine, x)


def test_a_residual_function_that_returns_something_else(x):
    for returned, kind, message in (
        (None, ValueError, r"residual_fn returned shape \(\), wanted \(42, ...\)"),
        (GOOD, ValueError, r"residual_fn returned shape \(7, 2\), wanted \(42, ...\)"),
    ):
        wrapper = nn.rnn_cell.ResidualWrapper(make(GRU), lambda inputs, outputs, returned=returned: returned)
        with pytest.raises(kind, match=message):
            nn.dynamic_rnn(wrapper, x)


# Refused arguments


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"cell": 3}, TypeError, "cell is int, without state_size and output_size"),
        ({"cell": nn.rnn_cell.GRUCell}, TypeError, "cell is the class GRUCell, wanted a cell made from it"),
        (
            {"inputs": np.zeros((B, T, 4), "f4")},
            ValueError,
            r"inputs has shape \(7, 6, 4\), wanted \(B, T, I\) with I = 5",
        ),
        ({"inputs": np.zeros((B, 5), "f4")}, ValueError, r"inputs has shape \(7, 5\), wanted \(B, T, I\)"),
        ({"inputs": np.zeros((B, T, 5), int)}, TypeError, "inputs is int64, wanted float32"),
        ({"inputs": [np.zeros((B, 5), "f4")] * T}, TypeError, "inputs is a list of 6 arrays"),
        ({"inputs": None}, TypeError, "inputs is object"),
        ({"sequence_length": [7] * B}, ValueError, r"sequence_length\[0\] is 7, but inputs has 6 steps"),
        ({"sequence_length": [1, 2, -3, 4, 5, 6, 0]}, ValueError, r"sequence_length\[2\] is -3"),
        ({"sequence_length": [2**40] * B}, ValueError, r"sequence_length\[0\] is 1099511627776"),
        ({"sequence_length": [1.5] * B}, TypeError, "sequence_length is of type float64, wanted integers"),
        (
            {"sequence_length": [1]},
            ValueError,
            r"sequence_length has shape \(1,\), wanted \(7,\): one for each row of inputs",
        ),
        ({"sequence_length": 3}, ValueError, r"sequence_length has shape \(\)"),
        ({"initial_state": np.zeros((B, 7), "f4")}, TypeError, "initial_state is ndarray, wanted a LSTMStateTuple"),
        ({"initial_state": [np.zeros((B, 7), "f4")]}, ValueError, "initial_state has 1 entries, wanted 2"),
        (
            {"initial_state": (np.zeros((B, 7), "f4"), np.zeros((1, 7), "f4"))},
            ValueError,
            r"initial_state.h has shape \(1, 7\)",
        ),
        ({"initial_state": (np.zeros((B, 7)),) * 2}, TypeError, "initial_state.c is float64, wanted float32"),
        ({"dtype": np.float64}, TypeError, "dtype is float64, but the cell computes in float32"),
    ],
)
def test_dynamic_rnn_refuses(x, change, kind, message):
    with pytest.raises(kind, match=message):
        nn.dynamic_rnn(**({"cell": make(LSTM), "inputs": x} | change))


@pytest.mark.parametrize(
    ("inputs", "kind", "message"),
    [
        (np.zeros((T, B, 5), "f4"), TypeError, "inputs is ndarray, wanted a list"),
        ([], ValueError, "inputs is empty"),
        (
            [np.zeros((B, 5), "f4"), np.zeros((B, 4), "f4")],
            ValueError,
            r"inputs\[1\] is float32 of shape \(7, 4\), wanted float32 of shape \(7, 5\)",
        ),
        (
            [np.zeros((B, 5), "f4"), np.zeros((2, 5), "f4")],
            ValueError,
            r"inputs\[1\] is float32 of shape \(2, 5\), wanted",
        ),
        ([np.zeros((B, 5))], TypeError, r"inputs\[0\] is float64, wanted float32"),
    ],
)
def test_static_rnn_refuses(inputs, kind, message):
    for run in (
        lambda: nn.static_rnn(make(LSTM), inputs),
        lambda: nn.StaticPlan(make(LSTM), 2)(inputs),
        lambda: nn.static_bidirectional_rnn(make(LSTM), make(LSTM), inputs),
    ):
        with pytest.raises(kind, match=message):
            run()


def test_steps_of_a_list_have_one_make():
    steps = [(np.zeros((B, 4)), np.zeros((B, 2, 3))), (np.zeros((B, 4)),)]
    with pytest.raises(ValueError, match=r"inputs\[1\] has 1 entries, wanted 2"):
        nn.static_rnn(Counter(), steps)
    with pytest.raises(ValueError, match=r"inputs\[1\] has shape \(2, 6, 1\), but inputs\[0\] has \(7, 6, 4\)"):
        nn.dynamic_rnn(Counter(), (np.zeros((B, T, 4)), np.zeros((2, T, 1))))
    with pytest.raises(ValueError, match=r"inputs\[1\] has shape \(7, 6\), wanted \(B, T, I\)"):
        nn.dynamic_rnn(Counter(), (np.zeros((B, T, 4)), np.zeros((B, T))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell_fw": 1}, "cell_fw is int"),
        ({"cell_bw": 1}, "cell_bw is int"),
        ({"initial_state_bw": np.zeros((1, 9), "f4")}, r"initial_state_bw has shape \(1, 9\), wanted \(7, 9\)"),
        ({"sequence_length": [9] * B}, r"sequence_length\[0\] is 9"),
        ({"cell_bw": make(GRU, 4)}, r"inputs.* has shape .* with I = 4"),
    ],
)
def test_directions_refuse(x, options, message):
    arguments = {"cell_fw": make(LSTM), "cell_bw": make(GRU)} | options
    with pytest.raises((TypeError, ValueError), match=message):
        nn.bidirectional_dynamic_rnn(inputs=x, **arguments)
    with pytest.raises((TypeError, ValueError), match=message):
        nn.static_bidirectional_rnn(inputs=list(x.swapaxes(0, 1)), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cells_fw": []}, r"cells_fw is \[\], wanted a list of at least one cell"),
        ({"cells_bw": make(GRU)}, "cells_bw is GRUCell, wanted a list"),
        ({"cells_bw": [make(GRU)] * 2}, "cells_bw has 2 entries, but cells_fw has 1"),
        ({"initial_states_fw": [None, None]}, "initial_states_fw has 2 entries"),
        ({"initial_states_bw": 0}, "initial_states_bw is int, wanted a list"),
    ],
)
def test_stacked_directions_refuse(x, options, message):
    with pytest.raises((TypeError, ValueError), match=message):
        nn.stack_bidirectional_dynamic_rnn(
            **({"cells_fw": [make(LSTM)], "cells_bw": [make(GRU)], "inputs": x} | options)
        )


# Buckets


def test_each_batch_goes_to_the_smallest_bucket_that_fits(x):
    buckets = nn.Buckets(make(LSTM), [8, 4, 6, 6])
    assert list(buckets.plans) == [4, 6, 8]
    assert [plan.num_steps for plan in buckets.plans.values()] == [4, 6, 8]
    start = make(LSTM).zero_state(B, np.float32)
    for steps, size in ((0, 4), (1, 4), (4, 4), (5, 6), (6, 6)):
        outputs, state = buckets(x[:, :steps], start)
        padded = np.zeros((B, size, INPUT_SIZE), np.float32)
        padded[:, :steps] = x[:, :steps]
        assert_equal((outputs, state), nn.dynamic_rnn(make(LSTM), padded))
        assert buckets.bucket_of(steps) == size


def test_what_fits_no_bucket_is_refused_with_both_numbers(x):
    with pytest.raises(ValueError, match="inputs has 6 steps, but the largest bucket has 5"):
        nn.Buckets(make(LSTM), [2, 5])(x)


@pytest.mark.parametrize("buckets", [[], 5, [0], [2.5], ["4"]])
def test_buckets_that_are_no_lengths(buckets):
    with pytest.raises((TypeError, ValueError), match="buckets"):
        nn.Buckets(make(LSTM), buckets)


# Nested structures


def test_structures_keep_their_containers():
    structure = OrderedDict(b=[1, Pair(2, (3,))], a={"z": nn.TensorShape([4, 5]), "y": ()})
    assert flatten(structure) == [(4, 5), 1, 2, 3]
    assert [path for path, _ in walk(structure, "s")] == [
        "s['a']['z']",
        "s['b'][0]",
        "s['b'][1].left",
        "s['b'][1].right[0]",
    ]
    doubled = map_structure(lambda *leaves: leaves, structure, structure)
    assert doubled == OrderedDict(
        b=[(1, 1), Pair((2, 2), ((3, 3),))], a={"z": ((4, 5), (4, 5)), "y": ()}
    ) and isinstance(doubled, OrderedDict)
    assert pack(structure, {"a": {"y": [], "z": 1}, "b": (2, (3, [4]))}, "s")["b"] == [2, Pair(3, (4,))]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"a": 1}, r"s has the keys \['a'\], wanted \['a', 'b'\]"),
        ({"a": 1, "b": 2}, r"s\['b'\] is int, wanted a Pair"),
        ({"a": [1], "b": (1, 2)}, r"s\['a'\] is a list, wanted one array"),
        ({"a": 1, "b": (1, 2, 3)}, r"s\['b'\] has 3 entries, wanted 2"),
        ([1, 2], "s is list, wanted a dict"),
    ],
)
def test_structures_of_another_make(given, message):
    with pytest.raises((TypeError, ValueError), match=message):
        pack({"a": 0, "b": Pair(0, 0)}, given, "s")
