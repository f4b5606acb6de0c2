"""Use one thread everywhere, to compare kernels; FASTRNN_BENCH_THREADS sets another number."""

import os

import pytest

import fastrnn


@pytest.fixture(scope="session", autouse=True)
def num_threads():
    wanted, before = int(os.environ.get("FASTRNN_BENCH_THREADS", "1")), fastrnn.get_num_threads()
    fastrnn.set_num_threads(wanted)
    yield wanted
    fastrnn.set_num_threads(before)
