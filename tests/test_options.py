"""Options that PyTorch does not have: every backend and instruction set compared with the float64 reference."""

from dataclasses import replace

import cases
import numpy as np
import pytest

from fastrnn import _core, reference
from fastrnn.spec import ACTIVATIONS, DEFAULT_ACTIVATIONS, Activation

ENGINES = [
    *(pytest.param({"backend": "fused", "isa": isa}, id=f"fused-{isa}") for isa in _core.available_isas()),
    pytest.param({"backend": "blas"}, id="blas-float32"),
    pytest.param({"backend": "blas", "dtype": np.float64}, id="blas-float64"),
]

#: name -> kind, arguments of random_spec
OPTIONS = {
    "lstm": ("lstm", {}),
    "lstm-peephole": ("lstm", {"peephole": True}),
    "lstm-peephole-no-bias": ("lstm", {"peephole": True, "bias": False}),
    "lstm-cell-clip": ("lstm", {"cell_clip": 0.3}),
    "lstm-gate-clip": ("lstm", {"gate_clip": 0.4}),
    "lstm-coupled": ("lstm", {"coupled": True}),
    "lstm-proj": ("lstm", {"proj_size": 7}),
    "lstm-proj-clip": ("lstm", {"proj_size": 7, "proj_clip": 0.05}),
    "lstm-peephole-clips-coupled-proj": (
        "lstm",
        {"peephole": True, "cell_clip": 0.5, "gate_clip": 0.6, "coupled": True, "proj_size": 7, "proj_clip": 0.1},
    ),
    "gru": ("gru", {}),
    "gru-gate-clip": ("gru", {"gate_clip": 0.4}),
    "gru-reset-before": ("gru", {"linear_before_reset": False}),
    "gru-reset-before-gate-clip": ("gru", {"linear_before_reset": False, "gate_clip": 0.4}),
    "gru-reset-before-no-bias": ("gru", {"linear_before_reset": False, "bias": False}),
    "rnn": ("rnn", {}),
    "rnn-gate-clip": ("rnn", {"gate_clip": 0.4}),
}


def check(spec, batch, engine, past_end="zero", tolerance=3e-6):
    """Compare on one backend; float64 with the tolerance of float64."""
    if engine.get("dtype") is np.float64:
        state = batch.state
        state = tuple(s.astype(float) for s in state) if isinstance(state, tuple) else state.astype(float)
        batch = replace(batch, x=batch.x.astype(float), state=state)
        cases.assert_matches_reference(spec, batch, past_end, 1e-12, **engine)
    else:
        cases.assert_matches_reference(spec, batch, past_end, tolerance, **engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", OPTIONS)
def test_option(rng, name, engine):
    kind, options = OPTIONS[name]
    spec = cases.random_spec(rng, kind, 5, 19, 2, True, **options, scale=2)
    check(spec, cases.random_batch(rng, spec), engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", cases.LAYERS)
@pytest.mark.parametrize("missing", ["bias_ih", "bias_hh"])
def test_one_bias_alone(rng, kind, missing, engine):
    spec = cases.random_spec(rng, kind, 5, 9, scale=2)
    spec = replace(spec, cells=[replace(cell, **{missing: None}) for cell in spec.cells])
    check(spec, cases.random_batch(rng, spec), engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", cases.LAYERS)
@pytest.mark.parametrize("past_end", ["zero", "carry"])
def test_past_end(rng, kind, past_end, engine):
    spec = cases.random_spec(rng, kind, 5, 9, 2, True, scale=2)
    check(spec, cases.random_batch(rng, spec), engine, past_end)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("kind", cases.LAYERS)
def test_each_activation_on_each_gate(rng, kind, name, engine):
    defaults = [Activation.of(default) for default in DEFAULT_ACTIVATIONS[kind]]
    spec = cases.random_spec(rng, kind, 3, 17)
    batch = cases.random_batch(rng, spec, (3, 0, 5, 1, 3))
    for gate in range(len(defaults)):
        for parameters in (cases.PARAMETERS[name], (0.3, 0.7)):
            activations = (*defaults[:gate], Activation.of(name, *parameters), *defaults[gate + 1 :])
            check(replace(spec, cells=[replace(spec.cells[0], activations=activations)]), batch, engine)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", cases.LAYERS)
@pytest.mark.parametrize("seed", range(12))
def test_options_of_their_own_for_each_direction_and_layer(rng, kind, seed, engine):
    hidden_size = int(rng.integers(1, 40))
    proj_size = int(rng.integers(1, hidden_size + 1)) if kind == "lstm" and seed % 2 else 0
    spec = cases.random_spec(rng, kind, int(rng.integers(1, 40)), hidden_size, 2, True, proj_size, scale=0.5)
    spec = cases.random_options(rng, spec)
    lengths = tuple(rng.integers(0, 6, int(rng.integers(1, 20))).tolist())
    # with unbounded gates h grows, and so do its rounding errors
    check(spec, cases.random_batch(rng, spec, lengths), engine, "carry" if seed % 3 else "zero", tolerance=3e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", cases.LAYERS)
def test_reverse_sees_each_rows_own_last_step(rng, kind, engine):
    """With equal weights both ways, the reverse direction on a row equals the forward direction on the reversed row."""
    spec = cases.random_spec(rng, kind, 4, 6, bidirectional=True, scale=2)
    spec = replace(spec, cells=[spec.cells[0]] * 2)
    batch = cases.random_batch(rng, spec)
    dtype = engine.get("dtype", np.float32)
    x = batch.x.astype(dtype)
    turned = x.copy()
    for row, length in enumerate(batch.lengths):
        turned[row, :length] = x[row, :length][::-1]
    y, _, _ = cases.run_engine(spec, x, None, batch.lengths, **engine)
    y_turned, _, _ = cases.run_engine(spec, turned, None, batch.lengths, **engine)
    for row, length in enumerate(batch.lengths):
        np.testing.assert_array_equal(y[row, :length, 6:], y_turned[row, :length, :6][::-1])


def test_reference_differs_by_option(rng):
    """Each option in the table changes the results, so the tests above depend on it."""
    for name, (kind, options) in OPTIONS.items():
        if options:
            spec = cases.random_spec(rng, kind, 5, 19, 2, True, **options, scale=2)
            plain = {"peephole": None, "cell_clip": None, "gate_clip": None, "proj_clip": None, "coupled": False}
            cells = [replace(cell, **plain, linear_before_reset=True) for cell in spec.cells]
            batch = cases.random_batch(rng, spec)
            y, _, _ = reference.run(spec, batch.x, batch.state, batch.lengths)
            y_plain, _, _ = reference.run(replace(spec, cells=cells), batch.x, batch.state, batch.lengths)
            if name != "lstm-proj":
                assert abs(y - y_plain).max() > 1e-3, name
