"""A test of the tests: comparison with the reference must detect every bug of `mutants.py`."""

from functools import cache

import cases
import numpy as np
import pytest
from mutants import MUTANTS

from fastrnn import reference

#: kind -> models; the stacked ones are square, so that a transposed or misplaced matrix still fits.
MODELS = {
    "lstm": [
        ((10, 5, 2, True), {}),
        ((4, 5, 1), {"peephole": True}),
        ((10, 5, 2, True), {"peephole": True, "cell_clip": 0.4, "gate_clip": 0.5}),
        ((4, 5, 1), {"coupled": True}),
        ((6, 5, 2, True, 3), {"proj_clip": 0.1}),
    ],
    "gru": [
        ((10, 5, 2, True), {}),
        ((10, 5, 2, True), {"linear_before_reset": False}),
        ((4, 5, 1), {"gate_clip": 0.5}),
    ],
    "rnn": [((10, 5, 2, True), {}), ((4, 5, 1), {"gate_clip": 0.5})],
}


@cache
def wanted(kind, index, past_end):
    """A case and the reference's answer to it."""
    rng = np.random.default_rng(index)
    sizes, options = MODELS[kind][index]
    spec = cases.random_spec(rng, kind, *sizes, scale=2, **options)
    batch = cases.random_batch(rng, spec)
    return spec, batch, reference.run(spec, batch.x, batch.state, batch.lengths, past_end)


def differential_check(kind, run):
    """Raise AssertionError if `run` and the reference differ."""
    for index in range(len(MODELS[kind])):
        for past_end in ("zero", "carry"):
            spec, batch, answer = wanted(kind, index, past_end)
            cases.assert_close(run(spec, batch.x, batch.state, batch.lengths, past_end), answer, 3e-6)


@pytest.mark.parametrize("kind", MUTANTS)
def test_the_engine_itself_lives(kind):
    differential_check(kind, cases.run_engine)


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in MUTANTS for name in MUTANTS[kind]])
def test_every_mutant_dies(kind, name):
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        differential_check(kind, MUTANTS[kind][name](cases.run_engine))
