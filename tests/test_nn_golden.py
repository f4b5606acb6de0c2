"""Every cell, wrapper and driver of fastrnn.nn gives the stored answers of TensorFlow 2.21."""

from pathlib import Path

import numpy as np
import pytest
from tensorflow_cases import CELLS, FASTRNN, GROUPS, LENGTHS, ONE_WAY, STEPS, assert_same

from fastrnn import nn
from fastrnn.nn.structure import flatten, map_structure

RUNS = [
    pytest.param(run, case, driver, id=f"{driver}-{case.name}")
    for run, cases, drivers in GROUPS
    for case in cases
    for driver in drivers
]


@pytest.fixture(scope="module")
def golden():
    with np.load(Path(__file__).parent / "golden" / "tensorflow.npz") as archive:
        return dict(archive)


def test_the_file_holds_every_case(golden):
    names = {path.split()[0] for path in golden}
    assert names == {case.name for _, cases, _ in GROUPS for case in cases}


@pytest.mark.parametrize(("run", "case", "driver"), RUNS)
def test_tensorflows_numbers(golden, run, case, driver):
    """Equal up to rounding, with NaN in the padding."""
    found = run(case, driver, poison=True)
    prefix = f"{case.name} "
    wanted = {path.removeprefix(prefix): array for path, array in golden.items() if path.startswith(prefix)}
    assert_same(found, wanted, tolerance=1e-6)


@pytest.mark.parametrize("case", [case for case in ONE_WAY if case.lengths], ids=lambda case: case.name)
def test_drivers_agree_to_the_bit(case):
    (run, _, drivers), _, _ = GROUPS
    first, *others = [run(case, driver) for driver in drivers]
    for other in others:
        for path, array in other.items():
            np.testing.assert_array_equal(array, first[path], err_msg=path)


@pytest.mark.parametrize("name", [name for name in CELLS if not name.startswith("own")])
def test_a_row_has_the_bits_that_it_has_alone(name):
    """A row has the same bits in every batch and with anything past its end."""
    case = next(case for case in ONE_WAY if case.name == f"{name}-ragged")
    outputs, states = run_dynamic(case, slice(None), STEPS)
    for row, length in enumerate(LENGTHS):
        alone, last = run_dynamic(case, slice(row, row + 1), length)
        np.testing.assert_array_equal(alone[0], outputs[row, :length])
        for a, b in zip(last, states, strict=True):
            np.testing.assert_array_equal(a[0], b[row])


def run_dynamic(case, rows, steps):
    """dynamic_rnn on some rows of a case, cut to a number of steps."""
    (cell,), x, (start,) = FASTRNN.prepare(case, poison=True)
    start = map_structure(lambda leaf: leaf[rows], start)
    outputs, state = nn.dynamic_rnn(cell, x[rows, :steps], np.minimum(LENGTHS[rows], steps), start)
    return outputs, flatten(state)


@pytest.mark.parametrize(("run", "case", "driver"), [run for run in RUNS if run.values[1].has_starts])
def test_past_the_end(run, case, driver):
    """Outputs are exactly zero, and a row without steps keeps its state bit for bit."""
    found = run(case, driver, poison=True)
    outputs = found.pop("outputs")
    starts = [leaf for start in case.draw().starts for leaf in flatten(start)]
    assert len(starts) == len(found)
    for row, length in enumerate(case.lengths or ()):
        assert not outputs[row, length:].any()
        for start, last in zip(starts, found.values(), strict=True):
            assert np.array_equal(start[row], last[row]) == (length == 0)
