"""Graphs of ONNX: ``python bench/bench_onnx.py [--threads N]``.

Prints what a call of a graph that is a recurrent node alone costs more than the same call of its layer, and the time of
a minute of sound in silero-vad's model (where that package is installed), here and in onnxruntime. Both take turns.
Under pytest the calls are timed one after the other.
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrnn
from fastrnn.benchmark.environment import limited
from fastrnn.benchmark.timing import fastest

UNITS = (16, 32, 64, 128, 256)
STEPS = (1, 20)

#: Inputs beside x.
WAYS: dict[str, tuple[str, ...]] = {"x": (), "lengths": ("lengths",), "states": ("h0", "c0")}

#: Calls without arguments, by what is called.
Calls = dict[str, Callable[[], Any]]


def node_calls(units: int, steps: int, way: str) -> Calls:
    """Calls of an LSTM of one row, as a layer and as a graph."""
    from onnx import helper, numpy_helper, save

    rng = np.random.default_rng(0)
    shapes = {"W": (1, 4 * units, units), "R": (1, 4 * units, units), "B": (1, 8 * units)}
    weights = [numpy_helper.from_array(rng.uniform(-0.1, 0.1, shape).astype("f4"), n) for n, shape in shapes.items()]
    x = rng.standard_normal((steps, 1, units)).astype("f4")
    feed = {"x": x, "lengths": np.array([steps], "i4")}
    feed |= {name: rng.standard_normal((1, 1, units)).astype("f4") for name in ("h0", "c0")}
    feed = {name: array for name, array in feed.items() if name == "x" or name in WAYS[way]}
    reads = ["x", *shapes, *(name if name in feed else "" for name in ("lengths", "h0", "c0"))]
    ports = [helper.make_tensor_value_info(n, 6 if n == "lengths" else 1, [None] * a.ndim) for n, a in feed.items()]
    results = [helper.make_tensor_value_info(name, 1, None) for name in ("y", "h", "c")]
    node = helper.make_node("LSTM", reads, ["y", "h", "c"], hidden_size=units)
    graph = helper.make_graph([node], "node", ports, results, weights)
    with tempfile.TemporaryDirectory() as folder:
        save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), f"{folder}/model.onnx")
        model = fastrnn.load(f"{folder}/model.onnx")
    (layer,) = model.layers.values()
    state = (feed["h0"], feed["c0"]) if way == "states" else None
    lengths = feed.get("lengths")
    others = {name: array for name, array in feed.items() if name in ("h0", "c0")}
    return {
        "layer": lambda: layer(x, state, lengths=lengths),
        "run": lambda: model.run(None, feed),
        "call": lambda: model(x, lengths=lengths, **others),
    }


def silero_calls() -> Calls:
    """A minute of sound, 1875 frames of 32 ms and 64 samples before each, here and in onnxruntime."""
    import onnxruntime

    (folder,) = importlib.util.find_spec("silero_vad").submodule_search_locations  # type: ignore[union-attr]
    path = Path(folder) / "data" / "silero_vad_16k_sequence.onnx"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = fastrnn.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    model = fastrnn.load(path)
    frames = (0.1 * np.random.default_rng(0).standard_normal((1875, 576))).astype("f4")
    feed = {"input": frames} | {name: np.zeros((1, 1, 128), "f4") for name in ("h", "c")}
    return {"onnxruntime": lambda: session.run(None, feed), "fastrnn": lambda: model.run(None, feed)}


@pytest.mark.parametrize("name", ["layer", "run", "call"])
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("units", UNITS)
def test_node(benchmark, units, way, name):
    pytest.importorskip("onnx")
    benchmark.group = f"LSTM {units}, one step, {way}"
    calls = node_calls(units, 1, way)
    np.testing.assert_array_equal(calls["run"]()[0][0, 0], calls["layer"]()[0][0])
    benchmark(calls[name])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=0.1)
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    with limited(arguments.threads):
        print(f"{'LSTM, one row':36} {'layer, us':>10} {'run, more':>10} {'call, more':>10}")
        for units in UNITS:
            for steps in STEPS:
                for way in WAYS:
                    calls = node_calls(units, steps, way)
                    times = fastest(list(calls.values()), arguments.rounds, arguments.seconds / 3)
                    layer, run, call = (1e6 * time for time in times)
                    name = f"{units} units, {steps} steps, {way}"
                    print(f"{name:36} {layer:10.1f} {run - layer:10.1f} {call - layer:10.1f}", flush=True)
        if importlib.util.find_spec("silero_vad") is not None:
            calls = silero_calls()
            for there, here in zip(calls["onnxruntime"](), calls["fastrnn"](), strict=True):
                np.testing.assert_allclose(here, there, rtol=1e-5, atol=1e-5)
            theirs, ours = fastest(list(calls.values()), arguments.rounds, 5 * arguments.seconds)
            figures = f"{1e3 * theirs:.1f} ms in onnxruntime, {1e3 * ours:.1f} ms here"
            print(f"silero-vad, a minute of sound: {figures}, {theirs / ours:.2f} times as fast")


if __name__ == "__main__":
    main()
