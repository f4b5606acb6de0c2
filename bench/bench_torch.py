"""Modules of PyTorch, plain and accelerated: ``python bench/bench_torch.py [--threads N]``.

The workloads are those of ``fastrnn bench``: ragged batches, given as packed sequences or padded (then the call packs
and unpacks them, by PyTorch's functions); single sequences; and the shapes of streams, as a cell that a Python loop
calls for each of 100 steps. The script lets both take turns and prints how many times as fast the accelerated module
is; under pytest they are timed one after the other.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fastrnn.benchmark.engines import TOLERANCES, torch_module
from fastrnn.benchmark.environment import limited
from fastrnn.benchmark.timing import fastest
from fastrnn.benchmark.workloads import Workload, choose, draw_input, draw_lengths

Call = Callable[[], Any]
STEPS = 100

#: How the module is called, and the group of the workloads.
GROUPS = {"packed": "ragged", "padded": "ragged", "single": "single", "cell": "stream"}


def calls(workload: Workload, way: str) -> dict[str, Call]:
    """Calls of both modules, without arguments, that return y."""
    import torch
    from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

    from fastrnn.torch import accelerate

    plain = torch_module(workload, cell=way == "cell")
    modules = {"plain": plain, "accelerated": accelerate(plain)}
    x, lengths = torch.from_numpy(draw_input(workload)), torch.from_numpy(draw_lengths(workload))

    def pack() -> Any:
        return pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)

    def padded(module: Any) -> Any:
        return pad_packed_sequence(module(pack())[0], batch_first=True)[0]

    def loop(module: Any) -> Any:
        state, step = None, x[:, 0]
        for _ in range(STEPS):
            state = module(step, state)
        return state[0] if workload.cell == "lstm" else state

    packed = pack()
    ways = {
        "packed": lambda module: module(packed)[0].data,
        "padded": padded,
        "single": lambda module: module(x)[0],
        "cell": loop,
    }

    def call(module: Any) -> Any:
        with torch.inference_mode():
            return ways[way](module)

    return {name: lambda module=module: call(module) for name, module in modules.items()}


def check(both: dict[str, Call]) -> None:
    np.testing.assert_allclose(both["accelerated"](), both["plain"](), rtol=0, atol=TOLERANCES["float32"])


@pytest.mark.parametrize("name", ["plain", "accelerated"])
@pytest.mark.parametrize(
    ("way", "workload"), [(way, workload) for way, group in GROUPS.items() for workload in choose([group])], ids=str
)
def test_module(benchmark, way, workload, name, num_threads):
    torch = pytest.importorskip("torch")
    torch.set_num_threads(num_threads)
    benchmark.group = f"{way} {workload}"
    both = calls(workload, way)
    check(both)
    benchmark(both[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ways", nargs="*", default=list(GROUPS), help=f"of {', '.join(GROUPS)}")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.3)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with limited(arguments.threads):
        import torch

        torch.set_num_threads(arguments.threads)
        print(f"{'workload':48} {'plain, us':>12} {'accelerated':>12} {'ratio':>6}")
        for way in arguments.ways:
            ratios = []
            for workload in choose([GROUPS[way]]):
                both = calls(workload, way)
                check(both)
                plain, accelerated = fastest(list(both.values()), arguments.rounds, arguments.seconds)
                ratios.append(plain / accelerated)
                name = str(workload).replace(workload.group, way, 1)
                print(f"{name:48} {1e6 * plain:12.1f} {1e6 * accelerated:12.1f} {ratios[-1]:6.2f}", flush=True)
            mean = math.exp(sum(map(math.log, ratios)) / len(ratios))
            print(f"{way}: geometric mean {mean:.2f}, worst {min(ratios):.2f}")


if __name__ == "__main__":
    main()
