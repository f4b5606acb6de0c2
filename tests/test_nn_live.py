"""fastrnn.nn compared with TensorFlow itself on random cells and batches; needs the extra `oracle`."""

import numpy as np
import pytest

pytest.importorskip("tensorflow", reason="needs TensorFlow: pip install -e '.[oracle]'")

import tensorflow as tf
from live_tensorflow import TENSORFLOW
from tensorflow_cases import CELLS, FASTRNN, GROUPS, INPUT_SIZE, Case, assert_same, random_cell

from fastrnn import nn
from fastrnn.nn.structure import map_structure, walk

SEEDS = range(25)


def random_lengths(rng):
    lengths = rng.integers(0, 7, 7)
    lengths[rng.integers(7)] = 6
    return tuple(int(length) for length in lengths)


@pytest.mark.parametrize("seed", SEEDS)
def test_one_cell(rng, seed):
    lengths = random_lengths(rng) if seed % 4 else None
    case = Case(f"seed {seed}", (random_cell(rng, INPUT_SIZE),), (INPUT_SIZE,), lengths, bool(seed % 3))
    run, _, drivers = GROUPS[0]
    for driver in drivers:
        assert_same(run(case, driver), run(case, driver, TENSORFLOW))


@pytest.mark.parametrize("seed", SEEDS)
def test_two_directions(rng, seed):
    cells = (random_cell(rng, INPUT_SIZE), random_cell(rng, INPUT_SIZE))
    lengths = random_lengths(rng) if seed % 4 else None
    case = Case(f"seed {seed}", cells, (INPUT_SIZE, INPUT_SIZE), lengths, bool(seed % 3))
    run, _, drivers = GROUPS[1]
    for driver in drivers:
        assert_same(run(case, driver), run(case, driver, TENSORFLOW))


@pytest.mark.parametrize("seed", SEEDS)
def test_one_step(rng, seed):
    """cell(inputs, state), several times."""
    case = Case(f"seed {seed}", (random_cell(rng, INPUT_SIZE),), (INPUT_SIZE,), None, True)
    results = []
    for framework in (FASTRNN, TENSORFLOW):
        (cell,), x, (state,) = framework.prepare(case, poison=False)
        for t in range(3):
            output, state = cell(framework.array(x[:, t]), state)
        results.append({path: np.asarray(leaf) for path, leaf in walk((output, state), "result")})
    assert_same(*results)


@pytest.mark.parametrize("limits", [(3, 0, 5, 1, 3, 0, 2), (0,) * 7, (4,) * 7], ids=str)
@pytest.mark.parametrize("name", ["lstm_projected", "gru", "nested", "own"])
def test_raw_rnn(name, limits):
    """Outputs are fed back, each row ends at its own limit, and the loop state counts the steps."""
    limits = np.array(limits, np.int32)
    case = Case(f"raw {name}", (CELLS[name],), (INPUT_SIZE,), None, True)
    kernel = np.random.RandomState(0).uniform(-1, 1, (CELLS[name].output_size, INPUT_SIZE)).astype(np.float32)

    def run(raw_rnn, framework):
        (cell,), x, (start,) = framework.prepare(case, poison=False)

        def loop_fn(time, output, state, loop_state):
            finished = framework.array(limits) <= time
            if output is None:
                return finished, framework.array(x[:, 0]), start, None, framework.array(np.float32(0))
            return finished, output @ kernel, state, output, loop_state + 1

        return raw_rnn(cell, loop_fn)

    emits, state, count = run(nn.raw_rnn, FASTRNN)
    wanted = run(tf.compat.v1.nn.raw_rnn, TENSORFLOW)
    assert count == wanted[2] == max(limits)
    assert emits.shape == (max(limits), len(limits), CELLS[name].output_size)
    if max(limits):
        assert_same({"emits": emits}, {"emits": wanted[0].stack().numpy()})
    found, theirs = (dict(walk(map_structure(np.asarray, part), "state")) for part in (state, wanted[1]))
    assert_same(found, theirs)
