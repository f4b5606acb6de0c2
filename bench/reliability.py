"""Measure other costs that must stay small: ``python bench/reliability.py`` takes a minute and prints figures.

Each figure is that of the fastest of several rounds, or the median if each round is a process.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np

import fastrnn

ROUNDS = 7

MODEL = """
import os, signal, sys, threading, time
import numpy as np
import fastrnn
rng = np.random.default_rng(1)
draw = lambda *shape: (rng.uniform(-1, 1, shape) / shape[-1] ** 0.5).astype("f4")
layer = fastrnn.LSTM.from_state_dict({"weight_ih_l0": draw(2048, 64), "weight_hh_l0": draw(2048, 512)})
"""

INTERRUPT = """
fastrnn.set_num_threads(int(sys.argv[1]))
x = np.broadcast_to(np.float32(1), (int(sys.argv[2]), int(sys.argv[3]), 64))
sent = []
def send():
    time.sleep(0.5)
    sent.append(time.perf_counter())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send).start()
try:
    layer(x)
except KeyboardInterrupt:
    print(time.perf_counter() - sent[0])
"""

IMPORT = "import time, numpy; start = time.perf_counter(); import fastrnn; print(time.perf_counter() - start)"

RESIDENT = """
layer(np.ones((1, 100, 64), "f4"))
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmRSS")))
"""


def in_processes(code: str, *arguments: object, rounds: int = ROUNDS) -> float:
    """The median of what the code prints in several processes."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return statistics.median(float(subprocess.check_output(command, text=True)) for _ in range(rounds))


def seconds(call: Callable[[], object], times: int) -> float:
    """Seconds per call, the fastest of several rounds."""

    def one_round() -> float:
        start = time.perf_counter()
        for _ in range(times):
            call()
        return (time.perf_counter() - start) / times

    return min(one_round() for _ in range(ROUNDS))


def build(kind: type[fastrnn.LSTM], hidden: int, gates: int, scale: float = 1) -> fastrnn.LSTM:
    rng = np.random.default_rng(2)
    draw = lambda *shape: (scale * rng.uniform(-1, 1, shape) / hidden**0.5).astype("f4")  # noqa: E731
    weights = {"weight_ih_l0": draw(gates * hidden, hidden), "weight_hh_l0": draw(gates * hidden, hidden)}
    return kind.from_state_dict(weights)


def subnormal_ratio() -> float:
    """The time with subnormal inputs and states, divided by that with numbers of about 1."""
    layer = build(fastrnn.LSTM, 128, 4)
    x = np.random.default_rng(3).standard_normal((8, 50, 128)).astype("f4")
    state = (np.ones((1, 8, 128), "f4"), np.ones((1, 8, 128), "f4"))
    small = tuple(part * np.float32(1e-40) for part in state)
    slow = seconds(lambda: layer(x * np.float32(1e-40), small), 50)
    return slow / seconds(lambda: layer(x * np.float32(1), state), 50)


def step_overhead() -> tuple[float, float]:
    """Seconds per step of one unit, which does hardly any work: in single steps from Python, and in one run."""
    stream, x = build(fastrnn.LSTM, 1, 4).stream(), np.ones((1, 1000, 1), "f4")
    one = np.ones((1, 1), "f4")
    return seconds(lambda: stream.step(one), 20000), seconds(lambda: stream.run(x), 50) / 1000


def main() -> None:
    for name, rows, steps in (("one sequence", 1, 60000), ("64 sequences", 64, 8000)):
        for threads in (1, 2):
            latency = in_processes(MODEL + INTERRUPT, threads, rows, steps, rounds=3)
            print(f"{1e3 * latency:8.1f} ms  from Ctrl-C to KeyboardInterrupt, {name}, {threads} thread(s); wanted: 50")
    print(f"{subnormal_ratio():8.2f}     time with subnormal inputs and states over that with normal ones; wanted: 1.2")
    print(f"{1e3 * in_processes(IMPORT):8.1f} ms  to import fastrnn after numpy; wanted: 30")
    print(f"{in_processes(MODEL + RESIDENT) / 1024:8.1f} MB  resident after a first answer, numpy included; wanted: 50")
    step, inside = step_overhead()
    print(f"{1e6 * (step - inside):8.2f} us  a stream.step costs beyond its C work; wanted: 1")


if __name__ == "__main__":
    main()
