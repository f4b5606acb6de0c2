"""How close the float32 kernels come: activations in ulp, whole layers in absolute error."""

import cases
import numpy as np
import pytest

from fastrnn import _core, reference
from fastrnn.spec import ACTIVATIONS, Activation

#: Largest error allowed, in units of the last place of the right result.
ULP = {"sigmoid": 3.0, "tanh": 3.0}

#: Below this a result may be flushed to zero.
SMALLEST = 2.0**-125


def floats(start: int, stop: int, step: int) -> np.ndarray:
    """Positive float32 numbers by their bits, and the same ones negative."""
    positive = np.arange(start, stop, step, dtype=np.uint32).view(np.float32)
    return np.concatenate([positive, -positive])


def sweep() -> np.ndarray:
    """About 2,000 mantissas for every exponent, and more where the functions bend."""
    bends = [int(np.float32(edge).view(np.uint32)) for edge in (2.0**-14, 2.0**7)]
    return np.concatenate([floats(0, 0x7F800000, 4093), floats(*bends, 509)])


def right(name: str, x: np.ndarray, alpha: float = 0.0, beta: float = 0.0) -> np.ndarray:
    return reference.activate(Activation(name, alpha, beta), x.astype(np.float64))


@pytest.mark.parametrize("name", ULP)
def test_error_in_ulp(isa, name):
    x = sweep()
    wanted = right(name, x)
    error = np.abs(_core.activate(isa, name, x).astype(np.float64) - wanted)
    normal = np.abs(wanted) >= SMALLEST
    assert error[~normal].max() <= SMALLEST
    ulps = error[normal] / np.spacing(np.abs(wanted[normal]).astype(np.float32))
    worst = ulps.argmax()
    assert ulps[worst] <= ULP[name], f"{name}({x[normal][worst]!r}) is {ulps[worst]:.2f} ulp off"


@pytest.mark.parametrize("x", [1e20, 3e38, np.inf])
def test_saturation_is_exact(isa, x):
    np.testing.assert_array_equal(_core.activate(isa, "sigmoid", np.array([x, -x], np.float32)), [1, 0])
    np.testing.assert_array_equal(_core.activate(isa, "tanh", np.array([x, -x], np.float32)), [1, -1])


@pytest.mark.parametrize("name", ULP)
def test_never_leaves_its_range(isa, name):
    y = _core.activate(isa, name, sweep())
    assert y.min() >= (-1 if name == "tanh" else 0) and y.max() <= 1


@pytest.mark.parametrize("name", ULP)
def test_zero_is_exact(isa, name):
    assert _core.activate(isa, name, np.zeros(1, np.float32))[0] == (0.5 if name == "sigmoid" else 0)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_stays_nan(isa, name):
    x = np.array([0.5, np.nan, -0.5], np.float32)
    y = _core.activate(isa, name, x, *cases.PARAMETERS[name])
    np.testing.assert_array_equal(np.isnan(y), [False, True, False])


@pytest.mark.parametrize("parameters", [(), (0.3, 0.7)])
@pytest.mark.parametrize("name", [name for name in ACTIVATIONS if name not in ULP])
def test_other_activations(isa, name, parameters):
    """Errors are below 10^-6 of the result, or of the terms of which the result is the difference."""
    x = np.concatenate([floats(0x00800000, 0x5F000000, 65521), [0]]).astype(np.float32)
    alpha, beta = parameters or cases.PARAMETERS[name]
    alpha, beta = float(np.float32(alpha)), float(np.float32(beta))
    y = _core.activate(isa, name, x, alpha, beta)
    wanted = right(name, x, alpha, beta)
    summand = abs(beta) if name in ("affine", "hard_sigmoid") else 0.0
    scale = np.maximum(np.abs(wanted), max(summand, SMALLEST))
    worst = (np.abs(y - wanted) / scale).argmax()
    assert np.abs(y - wanted)[worst] <= 1e-6 * scale[worst] + SMALLEST, f"{name}({x[worst]!r}) is {y[worst]!r}"


@pytest.mark.parametrize("length", [0, 1, 7, 8, 9, 15, 16, 17, 33])
def test_any_number_of_elements(isa, length):
    x = np.linspace(-3, 3, length, dtype=np.float32)
    np.testing.assert_allclose(_core.activate(isa, "tanh", x), np.tanh(x), rtol=1e-6)


@pytest.mark.parametrize("backend", ["fused", "blas"])
@pytest.mark.parametrize("kind", cases.LAYERS)
def test_outputs_after_100_steps(rng, kind, isa, backend):
    spec = cases.random_spec(rng, kind, 32, 48)
    batch = cases.random_batch(rng, spec, (100, 37, 100))
    found = cases.run_engine(spec, batch.x, batch.state, batch.lengths, backend=backend, isa=isa)
    wanted = reference.run(spec, batch.x, batch.state, batch.lengths)
    for a, b in zip(found[:2], wanted[:2], strict=True):
        assert np.abs(a - b).max() <= 2e-6
