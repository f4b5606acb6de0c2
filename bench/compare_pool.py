"""A step of every session of a stream pool, as a fraction of the speed of the same rows as one stream.

    python bench/compare_pool.py [threads]

The sessions of the first pool have adjacent slots; those of the second are a quarter of its slots, in random order, and
some of them have had a run more than others. All take turns in one process; the fastest of the rounds counts.
"""

from __future__ import annotations

import sys

import numpy as np

import fastrnn
from fastrnn.benchmark.timing import fastest

SHAPES = [("LSTM", 256, 64), ("LSTM", 256, 16), ("LSTM", 256, 8), ("GRU", 128, 64), ("GRU", 128, 16), ("GRU", 128, 8)]
ROUNDS, SECONDS = 40, 1.0


def measure(kind: str, units: int, count: int) -> None:
    rng = np.random.default_rng(0)
    gates = 4 if kind == "LSTM" else 3
    weights = {
        f"weight_{part}_l0": rng.uniform(-0.1, 0.1, (gates * units, units)).astype("f4") for part in ("ih", "hh")
    }
    layer = getattr(fastrnn, kind).from_state_dict(weights)
    x = rng.standard_normal((count, units)).astype("f4")
    stream = layer.stream(batch_size=count)
    adjacent = fastrnn.StreamPool(layer, count)
    adjacent_pairs = [(adjacent.open(), x[i : i + 1]) for i in range(count)]
    scattered = fastrnn.StreamPool(layer, 4 * count)
    sessions = [scattered.open() for _ in range(4 * count)]
    chosen = [sessions[slot] for slot in rng.permutation(4 * count)[:count]]
    scattered.run([(session, x[:1]) for session in chosen[::3]])
    scattered_pairs = [(session, x[i : i + 1]) for i, session in enumerate(chosen)]
    alone, *pools = fastest(
        [lambda: stream.step(x), lambda: adjacent.run(adjacent_pairs), lambda: scattered.run(scattered_pairs)],
        ROUNDS,
        SECONDS,
    )
    speeds = ", ".join(
        f"{name} {100 * alone / seconds:.0f}%" for name, seconds in zip(["adjacent", "scattered"], pools, strict=True)
    )
    print(f"{kind} {units}, {count} sessions: one stream {1e6 * alone:.1f} us, pool {speeds}")


if __name__ == "__main__":
    fastrnn.set_num_threads(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    for shape in SHAPES:
        measure(*shape)
