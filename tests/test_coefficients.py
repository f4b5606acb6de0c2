"""The polynomials of vmath.h, computed again."""

import re
from math import factorial, log
from pathlib import Path

import numpy as np
import pytest
from numpy.polynomial import Chebyshev, Polynomial

HEADER = Path(__file__).parents[1] / "fastrnn" / "core" / "kernels" / "vmath.h"
NODES = 400
REACH = 1.01 * log(2) / 2  # rounding of n lets r go a little beyond ln2/2


def exponential_rest(r):
    """(e^r - 1 - r) / r^2, by its series, which has no cancellation at 0."""
    return sum(r ** (n - 2) / factorial(n) for n in range(2, 22))


def artanh_rest(z):
    """(artanh(s)/s - 1) / z with z = s^2, by its series."""
    return sum(z ** (n - 1) / (2 * n + 1) for n in range(1, 60))


FITS = {
    "v_exp_parts": (exponential_rest, (-REACH, REACH), 4),
    "v_log1p_unit": (artanh_rest, (0, 1 / 9), 5),
}


def fit(function, interval, degree):
    """Least squares at Chebyshev nodes; coefficients of 1, x, x^2, ..."""
    low, high = interval
    nodes = (low + high) / 2 + (high - low) / 2 * np.cos(np.pi * (np.arange(NODES) + 0.5) / NODES)
    return Chebyshev.fit(nodes, function(nodes), degree, domain=interval).convert(kind=Polynomial).coef


def constants(name):
    """The coefficients of q in a function of the header, constant term first."""
    body = re.search(rf"{name}\([^)]*\)\n{{.*?\n}}", HEADER.read_text(), re.DOTALL)[0]
    found = re.search(r"\bq\[\] = {([^}]+)}", body)[1]
    return np.array(found.split(","), np.float64).astype(np.float32)


@pytest.mark.parametrize("name", FITS)
def test_header_has_the_fitted_coefficients(name):
    np.testing.assert_array_equal(constants(name), fit(*FITS[name]).astype(np.float32))


@pytest.mark.parametrize("name", FITS)
def test_rounded_coefficients_are_near_enough(name):
    """The error of the term that q adds to exp or log1p is below half a unit in the last place of float32."""
    function, (low, high), _ = FITS[name]
    x = np.linspace(low, high, 10_001)
    error = np.abs(Polynomial(constants(name).astype(np.float64))(x) - function(x))
    weight = x**2 if name == "v_exp_parts" else np.abs(x)
    assert (error * weight).max() < 2.0**-25


def test_ln2_is_split_exactly():
    """n times the first part is exact in float32 for every n in exp and expm1."""
    high, low = map(float, re.findall(r"v_set1\(-(0\.6931\S+?|1\.428\S+?)\)", HEADER.read_text()))
    steps = np.arange(-128, 129)
    assert (steps * high == (steps * np.float32(high)).astype(np.float64)).all()
    assert abs(high + low - log(2)) < 1e-13
