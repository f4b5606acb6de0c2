"""Every engine that is installed on the shapes of ``shapes/*.txt``, with the same weights and inputs."""

import numpy as np
import pytest
from peers import ENGINES, TOLERANCE, answers, missing_packages
from workloads import draw_input, draw_lengths, read_workloads


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("workload", read_workloads(), ids=str)
def test_layer(benchmark, workload, engine, num_threads):
    if missing := missing_packages(engine):
        pytest.skip(f"not installed: {', '.join(missing)}")
    x, lengths = draw_input(workload), draw_lengths(workload.lengths, workload.batch, workload.steps)
    benchmark.group = str(workload)
    benchmark.extra_info["steps"] = int(lengths.sum()) * workload.num_layers * workload.num_directions
    call = ENGINES[engine](workload, x, lengths, num_threads)
    if engine != "fastrnn":
        wanted = answers(workload, ENGINES["fastrnn"](workload, x, lengths, num_threads))
        np.testing.assert_allclose(answers(workload, call), wanted, rtol=0, atol=TOLERANCE)
    benchmark(call)
