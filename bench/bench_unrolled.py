"""The dynamic path, where rows drop out, and the unrolled path, where every row runs a fixed number of steps."""

import pytest

from fastrnn.benchmark.workloads import Workload, build_layer, draw_input, draw_lengths

STEPS = [25, 100, 400]


def workload_of(cell, steps, lengths="full"):
    return Workload("unrolled", cell, 128, 128, 1, 1, 32, steps, lengths)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_build_unrolled(benchmark, cell, steps):
    benchmark.group = "build"
    layer = build_layer(workload_of(cell, steps))
    benchmark(layer.unroll, steps)


@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("lengths", ["full", "uniform", "lognormal"])
@pytest.mark.parametrize("path", ["dynamic", "unrolled"])
def test_run(benchmark, path, lengths, cell, steps):
    benchmark.group = f"run-{cell}-T{steps}-{lengths}"
    workload = workload_of(cell, steps, lengths)
    layer, x = build_layer(workload), draw_input(workload)
    if path == "unrolled":
        benchmark(layer.unroll(steps), x)
    else:
        benchmark(layer, x, lengths=draw_lengths(workload))
