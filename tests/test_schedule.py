"""The order in which the rows of a ragged batch run."""

import numpy as np
import pytest

from fastrnn.schedule import check_lengths, schedule


def plain(lengths):
    """The definition, row by row and step by step."""
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    alive = [sum(length > step for length in lengths) for step in range(max(lengths, default=0))]
    return order, alive


@pytest.mark.parametrize(
    "lengths",
    [[], [0], [0, 0, 0], [5], [3, 3, 3], [1, 2, 3], [3, 2, 1], [2, 0, 3, 0, 2], [0, 7, 0], [1, 1, 0, 1], [1000, 1]],
    ids=str,
)
def test_by_definition(lengths):
    result = schedule(np.array(lengths, np.int64))
    order, alive = plain(lengths)
    assert result.sorted_indices.tolist() == order
    assert result.batch_sizes.tolist() == alive
    assert result.lengths.tolist() == [lengths[row] for row in order]
    assert [order[i] for i in result.unsorted_indices] == list(range(len(lengths)))
    assert all(array.dtype == np.int64 for array in result)


def test_many_random_batches(rng):
    for _ in range(200):
        lengths = rng.integers(0, rng.integers(1, 30), rng.integers(0, 40))
        result = schedule(lengths)
        order, alive = plain(lengths.tolist())
        assert result.sorted_indices.tolist() == order
        assert result.batch_sizes.tolist() == alive
        assert result.batch_sizes.sum() == lengths.sum()


def test_the_callers_lengths_stay_as_they_are():
    lengths = np.array([1, 3, 2])
    schedule(lengths)
    assert lengths.tolist() == [1, 3, 2]


def test_check_lengths_narrows_what_fits():
    for given in ([1, 2], (1, 2), np.array([1, 2], np.uint64), np.array([1, 2], ">i2"), [np.int8(1), 2]):
        checked = check_lengths(given, 2, 2)
        assert checked.dtype == np.int64 and checked.tolist() == [1, 2]
    assert check_lengths([], 0, 5).shape == (0,)
    assert check_lengths([2**62], 1, None).tolist() == [2**62]


def test_check_lengths_copies():
    given = np.array([1, 2])
    check_lengths(given, 2, 2)[:] = 0
    assert given.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("bad", "error", "message"),
    [
        ([1, 3], ValueError, r"lengths\[1\] is 3, but x has 2 steps"),
        ([-1, 3], ValueError, r"lengths\[0\] is -1\b"),
        (np.array([1, 2**63], np.uint64), ValueError, rf"lengths\[1\] is {2**63}\b"),
        ([1, 2**100], ValueError, rf"lengths\[1\] is {2**100}\b"),
        ([1], ValueError, r"lengths has shape \(1,\), wanted \(2,\)"),
        (1, ValueError, r"lengths has shape \(\)"),
        ([[1, 2]], ValueError, r"lengths has shape \(1, 2\)"),
        ([1.0, 2.0], TypeError, "lengths is .*float64"),
        ([True, False], TypeError, "lengths is .*bool"),
        ([None, 1], TypeError, "lengths is .*object"),
        (np.array([]), TypeError, "lengths is .*float64"),
    ],
    ids=str,
)
def test_check_lengths_refuses(bad, error, message):
    with pytest.raises(error, match=message):
        check_lengths(bad, 2, 2)


def test_check_lengths_without_a_bound():
    with pytest.raises(ValueError, match=r"lengths\[0\] is -1, but lengths are from 0 up"):
        check_lengths([-1], 1, None)
