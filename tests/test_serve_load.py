"""Short forms of bench/serve.py: under load, overload and stops nothing is lost, answered twice or left behind.

What they measure is not looked at. bench/README.md has the long forms.
"""

import argparse
import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[1] / "bench" / "serve.py"
SPEC = importlib.util.spec_from_file_location("bench_serve", PATH)
bench = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(bench)


def options(**values):
    return argparse.Namespace(**values)


def test_load():
    """Each chunk of each session has one answer, and the metrics count them."""
    chunk = bench.chunk_of(32, 10)
    with bench.fastrnn_server("lstm", 32) as (port, _):
        _, _, answered = bench.closed_loop(port, 32, chunk, 0.5)
        counted = bench.metrics(port)
        assert counted['fastrnn_requests_total{model="m",outcome="ok",protocol="websocket"}'] == answered > 32
        assert counted['fastrnn_steps_total{model="m"}'] == 10 * answered
        assert counted['fastrnn_sessions_opened_total{model="m"}'] == 32
        assert counted['fastrnn_queue_seconds_count{model="m"}'] == answered


@pytest.mark.slow
def test_overload():
    answers = bench.overload(options(size=512, steps=100, seconds=1, rate=200))
    assert answers[200] and answers[429]


@pytest.mark.slow
def test_soak():
    bench.soak(options(seconds=1.5, idle_seconds=1))


@pytest.mark.slow
def test_shutdowns():
    assert bench.shutdowns(options(count=2)) > 32
