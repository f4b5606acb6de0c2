"""Fixtures that most tests share."""

import contextlib
import os
import zlib

import numpy as np
import pytest
from serving import free_port

from fastrnn import _core


@pytest.fixture
def rng(request):
    """A random generator for each test, seeded by the test's name."""
    return np.random.default_rng(zlib.crc32(request.node.nodeid.encode()))


@pytest.fixture(params=_core.available_isas())
def isa(request):
    """Every instruction set that runs here, by name."""
    return request.param


# Ray Serve reads these when it is imported. HAProxy stands in the place of its proxies, one of which runs beside it.
os.environ |= {
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "0.5",
    **{
        f"RAY_SERVE_{name}_PORT": str(free_port())
        for name in ("FALLBACK_PROXY_HTTP", "HAPROXY_METRICS", "HAPROXY_STATS")
    },
}


@pytest.fixture(scope="session")
def ray_cluster():
    """A cluster of Ray of this machine alone, started once. Two workers of a processor each must not take all."""
    ray = pytest.importorskip("ray", reason="needs the package ray")
    options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    ray.init(num_cpus=4, object_store_memory=100 << 20, **options)
    yield
    ray.shutdown()


# tqdm's monitor is a thread of its own. Where tests let allocations fail, one of the monitor's could fail while it
# holds a lock, for which the interpreter would wait at its exit.
with contextlib.suppress(ImportError):
    import tqdm

    tqdm.tqdm.monitor_interval = 0
