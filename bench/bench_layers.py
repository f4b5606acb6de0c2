"""All installed engines on the default workloads of ``fastrnn bench``, with the same weights."""

import numpy as np
import pytest

from fastrnn.benchmark.engines import ENGINES, TOLERANCES, answers, missing_packages
from fastrnn.benchmark.workloads import choose, draw_input, draw_lengths


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if not missing_packages(engine)])
@pytest.mark.parametrize("workload", choose([]), ids=str)
def test_layer(benchmark, workload, engine, num_threads):
    if not ENGINES[engine].runs(workload):
        pytest.skip(f"{engine} does not run it")
    x, lengths = draw_input(workload), draw_lengths(workload)
    benchmark.group = str(workload)
    benchmark.extra_info["steps"] = int(lengths.sum()) * workload.num_layers * workload.num_directions
    call = ENGINES[engine].build(workload, x, lengths, num_threads)
    if engine != "fastrnn":
        wanted = answers(workload, ENGINES["fastrnn"].build(workload, x, lengths, num_threads))
        np.testing.assert_allclose(answers(workload, call), wanted, rtol=0, atol=TOLERANCES[ENGINES[engine].weights])
    benchmark(call)
