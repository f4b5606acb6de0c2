"""Decoding: a loop over steps in which a finished row leaves the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_array, as_integer, as_numbers
from .checks import as_number, check_like
from .structure import Structure, map_structure, take, walk

StepFunction = Callable[[NDArray[np.int64], Structure], tuple[ArrayLike, Structure]]


class Decoded(NamedTuple):
    """The result of :func:`decode`.

    Attributes
    ----------
    tokens : (B, S) int64, S the largest number of steps of a row; `end` past a row's end
    lengths : (B,) int64, tokens before `end`
    state : structure of (B, ...), each row's state when it finished
    """

    tokens: NDArray[np.int64]
    lengths: NDArray[np.int64]
    state: Structure


def decode(
    step_fn: StepFunction,
    first: ArrayLike,
    state: Structure,
    *,
    end: int,
    max_steps: int,
    rng: np.random.Generator | None = None,
    temperature: float = 1.0,
) -> Decoded:
    """Generate tokens, each from the one before, until every row has put out `end`.

    Parameters
    ----------
    step_fn : (tokens (n,), state of n rows) -> (scores (n, V), new state)
        Called with the rows that are not finished, in their order. Scores are logits: greedy decoding takes
        the largest, drawing takes them as log-probabilities up to a constant. A NaN or an infinite largest score
        is taken.
    first : (B,) integers, the tokens to start from
    state : structure of (B, ...)
    end : the token at which a row is finished
    max_steps : the largest number of tokens of a row, including `end`; unused steps cost nothing
    rng : numpy.random.Generator or None
        None is greedy: the largest score, or the first of equal ones. A generator draws from the softmax of the scores.
        A row's draws depend on the seed and on its index, not on the other rows or where they end.
    temperature : scores are divided by it before drawing; positive

    Returns
    -------
    Decoded

    Raises
    ------
    TypeError, ValueError
        An argument, or what step_fn returned, does not fit.

    Examples
    --------
    >>> import numpy as np
    >>> from fastrnn import nn
    >>> def count_down(tokens, state):
    ...     return np.eye(5)[tokens - 1], state
    >>> nn.decode(count_down, [3, 1, 4], (), end=0, max_steps=9).tokens
    array([[2, 1, 0, 0],
           [0, 0, 0, 0],
           [3, 2, 1, 0]])
    """
    if not callable(step_fn):
        raise TypeError(f"step_fn is {type(step_fn).__name__}, wanted a function")
    token = as_array(first, "first")
    if token.ndim != 1 or (token.dtype.kind not in "iu" and token.size):
        raise TypeError(f"first is {token.dtype} of shape {token.shape}, wanted (B,) integers")
    token = token.astype(np.int64)
    B = len(token)
    state = map_structure(lambda leaf: as_array(leaf, "state"), state)
    for path, leaf in walk(state, "state"):
        if leaf.shape[:1] != (B,):
            raise ValueError(f"{path} has shape {leaf.shape}, wanted ({B}, ...): a row for each of first")
    end, max_steps = as_integer(end, "end", 0), as_integer(max_steps, "max_steps", 0)
    if rng is not None and not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng is {type(rng).__name__}, wanted a numpy.random.Generator or None")
    heat = as_number(temperature, "temperature")
    if heat <= 0:
        raise ValueError(f"temperature is {temperature!r}, wanted a positive number")

    generators = None if rng is None else [np.random.default_rng(seed) for seed in rng.integers(2**63, size=B)]
    columns: list[NDArray[np.int64]] = []
    lengths = np.zeros(B, np.int64)
    last = map_structure(np.array, state)
    rows = np.arange(B)
    while rows.size and len(columns) < max_steps:
        scores, state = _checked(step_fn(token, state), state, len(rows))
        if generators is None:
            token = np.argmax(scores, axis=1)
        else:
            token = _draw(scores / heat, np.array([generators[row].random() for row in rows]))
        columns.append(np.full(B, end, np.int64))
        columns[-1][rows] = token
        map_structure(lambda whole, leaf, now=rows: whole.__setitem__(now, leaf), last, state)
        alive = token != end
        lengths[rows] += alive
        rows, token, state = rows[alive], token[alive], take(state, alive)
    tokens = np.stack(columns, axis=1) if columns else np.empty((B, 0), np.int64)
    return Decoded(tokens, lengths, last)


def _checked(returned: Any, state: Structure, n: int) -> tuple[NDArray[Any], Structure]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"step_fn returned {type(returned).__name__}, wanted the pair (scores, state)")
    scores = as_numbers(returned[0], "step_fn's scores")
    if scores.ndim != 2 or len(scores) != n or not scores.shape[1]:
        raise ValueError(f"step_fn returned scores of shape {scores.shape}, wanted ({n}, V)")
    return scores, check_like(state, returned[1], "step_fn's new state")


def _draw(logits: NDArray[Any], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """Choose a token for each row from the softmax of its scores by a number in [0, 1)."""
    largest = logits.argmax(axis=1)
    most = np.take_along_axis(logits, largest[:, None], axis=1).astype(np.float64)
    is_finite = np.isfinite(most)
    totals = np.cumsum(np.exp(np.where(is_finite, logits, 0) - np.where(is_finite, most, 0)), axis=1)
    # Not beyond the last token of positive probability: by rounding, a draw may equal the total.
    below = (totals <= draws[:, None] * totals[:, -1:]).sum(axis=1)
    drawn: NDArray[np.int64] = np.minimum(below, (totals < totals[:, -1:]).sum(axis=1))
    return np.where(is_finite[:, 0], drawn, largest)
