"""Fixtures that most tests share."""

import contextlib
import zlib

import numpy as np
import pytest

from fastrnn import _core


@pytest.fixture
def rng(request):
    """A random generator for each test, seeded by the test's name."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Every instruction set that runs here, by name."""
    return request.param


# tqdm's monitor is a thread of its own. Where tests let allocations fail, one of the monitor's could fail while it
# holds a lock, for which the interpreter would wait at its exit.
with contextlib.suppress(ImportError):
    import tqdm

    tqdm.tqdm.monitor_interval = 0
