"""Decoding: a step loop in which each row decides when it is finished, and leaves the batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_array, as_integer
from .checks import as_number
from .structure import Structure, flatten, map_structure, pack, take, walk

StepFunction = Callable[[NDArray[np.int64], Structure], tuple[ArrayLike, Structure]]


class Decoded(NamedTuple):
    """What :func:`decode` found.

    Attributes
    ----------
    tokens : (B, S) int64, S the most steps that a row took; `end` past a row's end
    lengths : (B,) int64, tokens before `end`
    state : structure of (B, ...), each row's when it left
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
        Called with the rows that are not finished, in their order. Scores are logits: any numbers to take the largest
        of, or log-probabilities up to a constant to draw from.
    first : (B,) integers, the tokens to start from
    state : structure of (B, ...)
    end : the token at which a row is finished
    max_steps : the most tokens of a row, `end` included
    rng : numpy.random.Generator or None
        None is greedy: the largest score, the first of equals. A generator draws from the softmax of the scores. A
        row's draws depend on the seed and on where it stands in the batch, not on when other rows finish.
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
    draws = None
    if rng is not None:
        if not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng is {type(rng).__name__}, wanted a numpy.random.Generator or None")
        draws = rng.random((B, max_steps))
    heat = as_number(temperature, "temperature")
    if heat is None or heat <= 0:
        raise ValueError(f"temperature is {temperature!r}, wanted a positive number")

    tokens = np.full((B, max_steps), end, np.int64)
    lengths = np.zeros(B, np.int64)
    last = map_structure(np.array, state)
    rows, steps = np.arange(B), 0
    while rows.size and steps < max_steps:
        scores, state = _checked(step_fn(token, state), state, len(rows))
        token = np.argmax(scores, axis=1) if draws is None else _draw(scores / heat, draws[rows, steps])
        tokens[rows, steps] = token
        map_structure(lambda whole, leaf, now=rows: whole.__setitem__(now, leaf), last, state)
        alive = token != end
        lengths[rows] += alive
        rows, token, state = rows[alive], token[alive], take(state, alive)
        steps += 1
    return Decoded(tokens[:, :steps], lengths, last)


def _checked(returned: Any, state: Structure, n: int) -> tuple[NDArray[Any], Structure]:
    if not isinstance(returned, tuple) or len(returned) != 2:
        raise TypeError(f"step_fn returned {type(returned).__name__}, wanted the pair (scores, state)")
    scores = as_array(returned[0], "scores")
    if scores.ndim != 2 or len(scores) != n or not scores.shape[1]:
        raise ValueError(f"step_fn returned scores of shape {scores.shape}, wanted ({n}, V)")
    after = map_structure(lambda leaf: as_array(leaf, "state"), pack(state, returned[1], "state"))
    for leaf, before in zip(flatten(after), flatten(state), strict=True):
        if leaf.shape != before.shape:
            raise ValueError(f"step_fn returned a state of shape {leaf.shape}, wanted {before.shape}")
    return scores, after


def _draw(logits: NDArray[Any], draws: NDArray[np.float64]) -> NDArray[np.int64]:
    """A token for each row from its softmax, by a number in [0, 1)."""
    exponents = logits.astype(np.float64)
    totals = np.cumsum(np.exp(exponents - exponents.max(axis=1, keepdims=True)), axis=1)
    # Not beyond the last that adds something: rounding may leave a draw at the very total.
    below = (totals <= draws[:, None] * totals[:, -1:]).sum(axis=1)
    drawn: NDArray[np.int64] = np.minimum(below, (totals < totals[:, -1:]).sum(axis=1))
    return drawn
