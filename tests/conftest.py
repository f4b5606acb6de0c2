"""Fixtures that most tests share."""

import zlib

import numpy as np
import pytest

from fastrnn import _core


@pytest.fixture
def rng(request):
    """A generator of its own for each test, the same in every run."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Every instruction set that runs here, by name."""
    return request.param
