"""Loops in which each row decides when it is finished: decode and raw_rnn."""

import warnings

import numpy as np
import pytest
from tensorflow_cases import CELLS, INPUT_SIZE, cell, make

from fastrnn import nn
from fastrnn.nn import decoding
from fastrnn.nn.structure import flatten, map_structure

VOCABULARY, END = 5, 0


class Automaton:
    """Scores from a table by the previous token. Records the rows of each step."""

    def __init__(self, scores):
        self.scores, self.rows = np.asarray(scores, np.float64), []

    def __call__(self, tokens, state):
        self.rows.append(len(tokens))
        return self.scores[tokens], map_structure(lambda leaf: leaf + 1, state)


#: Greedy from 4: 3, 2, 1, 0.
DOWN = np.eye(VOCABULARY)[[0, 0, 1, 2, 3]]


def test_rows_leave_when_they_are_done():
    step = Automaton(DOWN)
    found = nn.decode(step, [2, 0, 4, 1], {"count": np.zeros((4, 1))}, end=END, max_steps=10)
    assert found.tokens.tolist() == [[1, 0, 0, 0], [0, 0, 0, 0], [3, 2, 1, 0], [0, 0, 0, 0]]
    assert found.tokens.dtype == np.int64
    assert found.lengths.tolist() == [1, 0, 3, 0]
    assert found.state["count"].ravel().tolist() == [2, 1, 4, 1]
    assert step.rows == [4, 2, 1, 1]


def test_max_steps_is_the_end_of_all():
    found = nn.decode(Automaton(np.eye(VOCABULARY)), [3, 0, 2], (), end=END, max_steps=4)
    assert found.tokens.tolist() == [[3] * 4, [0] * 4, [2] * 4]
    assert found.lengths.tolist() == [4, 0, 4]
    nothing = nn.decode(Automaton(DOWN), [3, 1], np.ones((2, 1)), end=END, max_steps=0)
    assert (
        nothing.tokens.shape == (2, 0) and nothing.lengths.tolist() == [0, 0] and nothing.state.tolist() == [[1], [1]]
    )


def test_no_rows():
    step = Automaton(DOWN)
    found = nn.decode(step, [], np.zeros((0, 3)), end=END, max_steps=4)
    assert found.tokens.shape == (0, 0) and found.state.shape == (0, 3) and step.rows == []


def test_greedy_takes_the_first_of_equals():
    scores = np.array([[0, 1, 1, 0, 0]] * VOCABULARY)
    assert nn.decode(Automaton(scores), [4], (), end=END, max_steps=1).tokens.tolist() == [[1]]


def test_draws_follow_the_scores():
    scores = np.log(np.array([[0.1, 0.2, 0.3, 0.4, 1e-30]] * VOCABULARY))
    step = Automaton(scores)
    found = nn.decode(step, [1] * 5000, (), end=99, max_steps=4, rng=np.random.default_rng(0))
    shares = np.bincount(found.tokens.ravel(), minlength=VOCABULARY) / found.tokens.size
    np.testing.assert_allclose(shares, [0.1, 0.2, 0.3, 0.4, 0], atol=0.01)
    cold = nn.decode(step, [1] * 50, (), end=99, max_steps=4, rng=np.random.default_rng(0), temperature=1e-3)
    assert (cold.tokens == 3).all()
    hot = nn.decode(step, [1] * 5000, (), end=99, max_steps=4, rng=np.random.default_rng(0), temperature=1e6)
    np.testing.assert_allclose(np.bincount(hot.tokens.ravel()) / hot.tokens.size, [0.2] * 5, atol=0.01)


def test_draws_are_those_of_the_seed_whoever_shares_the_batch():
    """The token after 4 is the end, so a row that starts with 4 finishes at its first step."""
    scores = np.random.RandomState(0).standard_normal((VOCABULARY, VOCABULARY))
    scores[4] = [1000, 0, 0, 0, 0]

    def draw(first):
        return nn.decode(Automaton(scores), first, (), end=END, max_steps=20, rng=np.random.default_rng(7))

    whole = draw([1, 2, 3, 1])
    assert whole.tokens.tolist() == draw([1, 2, 3, 1]).tokens.tolist()
    assert whole.lengths.min() > 0 and len(set(whole.lengths.tolist())) > 1
    for other, rows in ((draw([1, 2]), (0, 1)), (draw([4, 2, 4, 1]), (1, 3)), (draw([4, 4, 3, 1]), (2, 3))):
        for row in rows:
            n = whole.lengths[row]
            assert other.lengths[row] == n and (other.tokens[row, :n] == whole.tokens[row, :n]).all()


@pytest.mark.parametrize("logits", [[0.0, 0, 0], [-np.inf, 0, -np.inf], [1e300, -1e300, 0]])
@pytest.mark.parametrize("draw", [0.0, 0.5, 1 - 2.0**-53])
def test_a_draw_never_takes_what_has_no_share(logits, draw):
    (token,) = decoding._draw(np.array([logits]), np.array([draw]))
    assert np.isfinite(logits[token]) and logits[token] > -1e300
    assert logits != [0.0, 0, 0] or token == int(3 * draw)


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)], ids=["greedy", "sampled"])
@pytest.mark.parametrize("bad", [[0, np.nan, 1, np.inf], [0, np.inf, 1, 2], [-np.inf] * 4], ids=str)
def test_scores_without_a_softmax_stay_in_their_row(rng, bad):
    good = np.array([-np.inf, -np.inf, 0, -np.inf])

    def step(tokens, state):
        return np.stack([bad if token == 1 else good for token in tokens]), state

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = nn.decode(step, [1, 2, 1], (), end=9, max_steps=1, rng=rng)
    assert found.tokens.ravel().tolist() == [np.argmax(bad), 2, np.argmax(bad)]


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)], ids=["greedy", "sampled"])
def test_steps_that_are_not_taken_cost_nothing(rng):
    found = nn.decode(Automaton(np.log(DOWN + 1e-300)), [2, 1], (), end=END, max_steps=2**62, rng=rng)
    assert found.tokens.tolist() == [[1, 0], [0, 0]]


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"first": [[1]]}, TypeError, r"first is int64 of shape \(1, 1\), wanted \(B,\) integers"),
        ({"first": [1.0, 2.0]}, TypeError, "first is float64"),
        ({"state": np.zeros((3, 1))}, ValueError, r"state has shape \(3, 1\), wanted \(2, ...\)"),
        ({"state": {"a": np.zeros((2, 1)), "b": np.zeros(())}}, ValueError, r"state\['b'\] has shape \(\)"),
        ({"end": 0.5}, TypeError, "end is 0.5"),
        ({"max_steps": -1}, ValueError, "max_steps is -1"),
        ({"rng": 3}, TypeError, "rng is int, wanted a numpy.random.Generator"),
        ({"temperature": 0}, ValueError, "temperature is 0, wanted a positive"),
        ({"temperature": None}, TypeError, "temperature is None, wanted a number"),
        ({"step_fn": lambda tokens, state: np.zeros((2, 3))}, TypeError, "step_fn returned ndarray, wanted the pair"),
        (
            {"step_fn": lambda tokens, state: (np.zeros(2), state)},
            ValueError,
            r"scores of shape \(2,\), wanted \(2, V\)",
        ),
        ({"step_fn": lambda tokens, state: (np.zeros((2, 0)), state)}, ValueError, r"scores of shape \(2, 0\)"),
        (
            {"step_fn": lambda tokens, state: (np.zeros((2, 3)), state[:1])},
            ValueError,
            r"step_fn's new state is float64 of shape \(1, 1\), wanted float64 of shape \(2, 1\)",
        ),
        ({"step_fn": lambda tokens, state: (np.zeros((2, 3)), state.astype("f4"))}, ValueError, "state is float32"),
        (
            {"step_fn": lambda tokens, state: (np.array([["a"], ["b"]]), state)},
            TypeError,
            "step_fn's scores is of type <U1, wanted numbers",
        ),
        ({"step_fn": "step"}, TypeError, "step_fn is str, wanted a function"),
        ({"step_fn": lambda tokens, state: (np.zeros((2, 3)), (state, state))}, TypeError, "state is a tuple"),
    ],
)
def test_decode_refuses(change, kind, message):
    good = {"step_fn": Automaton(DOWN), "first": [1, 2], "state": np.zeros((2, 1)), "end": END, "max_steps": 3}
    with pytest.raises(kind, match=message):
        nn.decode(**(good | change))


# raw_rnn


@pytest.mark.parametrize("name", ["lstm", "multi_mixed", "own"])
def test_raw_rnn_can_be_dynamic_rnn(rng, name):
    lengths = np.array([3, 0, 6, 1, 3, 6, 1])
    x = rng.standard_normal((len(lengths), 6, INPUT_SIZE)).astype(np.float32)
    mine = make(CELLS[name])
    start = map_structure(lambda size: rng.standard_normal((len(x), size)).astype(np.float32), mine.state_size)

    def loop_fn(time, output, state, loop_state):
        finished = time >= lengths
        inputs = x[:, min(time, 5)]
        return finished, inputs, start if output is None else state, output, None

    emits, state, loop_state = nn.raw_rnn(mine, loop_fn)
    wanted, last = nn.dynamic_rnn(mine, x, lengths, start)
    np.testing.assert_array_equal(emits.swapaxes(0, 1), wanted)
    for a, b in zip(flatten(state), flatten(last), strict=True):
        np.testing.assert_array_equal(a, b)
    assert loop_state is None


def test_raw_rnn_emits_what_the_first_call_says():
    mine = make(cell("GRUCell", 3))
    limits = np.array([2, 0, 3])

    def loop_fn(time, output, state, loop_state):
        if output is None:
            emit = {"time": np.zeros((), np.int16), "pair": np.zeros(2, np.float64)}
            return limits <= 0, np.zeros((3, INPUT_SIZE), np.float32), mine.zero_state(3, np.float32), emit, ["seen"]
        emit = {"time": np.full(3, time, np.int16), "pair": np.full((3, 2), 1.5)}
        return time >= limits, np.zeros((3, INPUT_SIZE), np.float32), state, emit, loop_state * 2 if time == 2 else None

    emits, _, loop_state = nn.raw_rnn(mine, loop_fn)
    assert emits["time"].tolist() == [[1, 0, 1], [2, 0, 2], [0, 0, 3]] and emits["time"].dtype == np.int16
    assert emits["pair"].shape == (3, 3, 2) and emits["pair"][:, 1].tolist() == [[0, 0]] * 3
    assert loop_state == ["seen", "seen"]


def test_finished_rows_leave_raw_rnns_batch():
    rows = []

    class Noting(nn.rnn_cell.RNNCell):
        state_size = output_size = 1

        def call(self, inputs, state):
            rows.append(len(inputs))
            return inputs, state + inputs

    limits = np.array([1, 4, 0, 2])

    def loop_fn(time, output, state, loop_state):
        ones = np.ones((4, 1))
        if output is not None:
            assert (output[limits < time] == 0).all() and (output[limits >= time] == 1).all()
        return limits <= time, ones, 0 * ones if output is None else state, output, None

    emits, state, _ = nn.raw_rnn(Noting(), loop_fn)
    assert rows == [3, 2, 1, 1]
    assert state.ravel().tolist() == [1, 4, 0, 2] and emits.sum() == 7


def test_a_row_that_has_finished_stays_so():
    mine = make(cell("GRUCell", 3))

    def loop_fn(time, output, state, loop_state):
        inputs, start = np.ones((2, INPUT_SIZE), np.float32), mine.zero_state(2, np.float32)
        return np.array([time in (2, 6), time in (4, 6)]), inputs, start if output is None else state, output, None

    emits, _, _ = nn.raw_rnn(mine, loop_fn)
    assert emits.any(axis=2).tolist() == [[True, True], [True, True], [False, True], [False, True]]


def changed(position, value, from_time=0):
    """A valid loop_fn, except for one of its results."""

    def loop_fn(time, output, state, loop_state):
        good = [
            np.full(2, time >= 3),
            np.zeros((2, INPUT_SIZE), np.float32),
            np.zeros((2, 3), np.float32),
            output,
            None,
        ]
        if time >= from_time:
            good[position] = value
        return tuple(good)

    return loop_fn


@pytest.mark.parametrize(
    ("loop_fn", "kind", "message"),
    [
        (3, TypeError, "loop_fn is int"),
        (lambda *args: None, TypeError, "loop_fn returned NoneType, wanted"),
        (changed(0, [0, 1]), TypeError, r"finished is int64 of shape \(2,\), wanted \(2,\) booleans"),
        (changed(0, [True]), TypeError, r"finished is bool of shape \(1,\)"),
        (changed(1, ()), ValueError, "next_input is empty"),
        (changed(1, np.zeros((3, 5), np.float32), 1), ValueError, r"next_input has shape \(3, 5\), wanted \(2, ...\)"),
        (changed(2, np.zeros((3, 3), np.float32)), ValueError, r"next_state has shape \(3, 3\)"),
        (changed(2, (np.zeros((2, 3)),)), TypeError, "next_state is a tuple"),
        (
            changed(3, np.zeros((1, 3), np.float32), 1),
            ValueError,
            r"emit is float32 of shape \(1, 3\), wanted .*\(2, 3\)",
        ),
        (changed(3, np.zeros((2, 3)), 1), ValueError, r"emit is float64 of shape"),
        (changed(2, np.zeros((2, 4), np.float32), 1), ValueError, r"next_state is float32 of shape \(2, 4\)"),
    ],
)
def test_raw_rnn_refuses(loop_fn, kind, message):
    with pytest.raises(kind, match=message):
        nn.raw_rnn(make(cell("GRUCell", 3)), loop_fn)
