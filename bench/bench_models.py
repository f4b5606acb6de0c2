"""Whole models against other engines: ``python bench/bench_models.py [--threads N]``.

A tagger is an embedding, LSTMs and a linear layer. In both directions it gets sentences of unequal lengths, as padded
ids (B, T) with lengths, and gives (B, T, tags), zero past a sentence's end, or packed ids and packed tags; in one
direction it is a stream, one id a call. The script lets the engines take turns and prints the time of the fastest
other engine over fastrnn's; under pytest they are timed one after the other.
"""

from __future__ import annotations

import argparse
import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fastrnn
from fastrnn.benchmark import onnx_model
from fastrnn.benchmark.engines import TOLERANCES, missing_packages, torch_module
from fastrnn.benchmark.environment import limited
from fastrnn.benchmark.timing import fastest
from fastrnn.benchmark.workloads import Workload, build_layer, draw_lengths

Call = Callable[[], Any]  # returns the tags

WORDS, TAGS = 10_000, 50

#: Every model's LSTMs, behind an embedding of the same width as their input.
TAGGERS = (
    Workload("tagger", "lstm", 128, 256, 1, 2, 64, 100, "lognormal"),
    Workload("tagger", "lstm", 128, 256, 2, 2, 64, 100, "lognormal"),
    Workload("tagger", "lstm", 128, 256, 1, 1, 1, 1, "stream"),
)


def draw_ids(workload: Workload) -> NDArray[np.int64]:
    """Ids (B, T)."""
    return np.random.default_rng(4).integers(0, WORDS, (workload.batch, workload.steps))


def draw_others(workload: Workload) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """The weight of the embedding, and the weight and bias of the linear layer."""
    rng, width = np.random.default_rng(5), workload.num_directions * workload.hidden_size
    weights = (
        rng.standard_normal((WORDS, workload.input_size)),
        rng.uniform(-1, 1, (TAGS, width)),
        rng.uniform(-1, 1, TAGS),
    )
    table, head, bias = (array.astype(np.float32) for array in weights)
    return table, head / np.float32(np.sqrt(width)), bias


def fastrnn_calls(workload: Workload, num_threads: int) -> dict[str, Call]:
    fastrnn.set_num_threads(num_threads)
    table, head, bias = draw_others(workload)
    model = fastrnn.Sequential(fastrnn.Embedding(table), build_layer(workload), fastrnn.Linear(head, bias))
    ids, lengths = draw_ids(workload), draw_lengths(workload)
    if workload.is_stream:
        stream, step = model.stream(workload.batch), ids[:, 0]
        return {"fastrnn": lambda: stream.step(step)[:, None]}
    packed = fastrnn.pack(ids, lengths)
    return {
        "fastrnn": lambda: model(ids, lengths=lengths),
        "fastrnn packed": lambda: model(packed).data,
    }


def torch_calls(workload: Workload, num_threads: int) -> dict[str, Call]:
    import torch
    from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

    torch.set_num_threads(num_threads)
    table, head, bias = map(torch.from_numpy, draw_others(workload))
    lstm, ids, lengths = (
        torch_module(workload),
        torch.from_numpy(draw_ids(workload)),
        torch.from_numpy(draw_lengths(workload)),
    )
    embedding, linear = torch.nn.Embedding.from_pretrained(table), torch.nn.Linear(*head.shape[::-1])
    linear.load_state_dict({"weight": head, "bias": bias})
    state = None

    def step() -> Any:
        nonlocal state
        y, state = lstm(embedding(ids), state)
        return linear(y)

    def tag(packed: Any) -> Any:
        """Embedding and linear layer, too, on the packed steps alone."""
        vectors = PackedSequence(embedding(packed.data), *packed[1:])
        y = lstm(vectors)[0]
        return PackedSequence(linear(y.data), *packed[1:])

    def pack() -> Any:
        return pack_padded_sequence(ids, lengths, batch_first=True, enforce_sorted=False)

    def pad(packed: Any) -> Any:
        return pad_packed_sequence(packed, batch_first=True, total_length=workload.steps)[0]

    if workload.is_stream:
        ways = {"torch": step}
    else:
        same = fastrnn.pack(ids.numpy(), lengths.numpy())  # PyTorch may order rows of one length in another way
        arrays = same.data, same.batch_sizes, same.sorted_indices, same.unsorted_indices
        packed = PackedSequence(*map(torch.tensor, arrays))
        ways = {"torch": lambda: pad(tag(pack())), "torch packed": lambda: tag(packed).data}

    def call(way: Callable[[], Any]) -> NDArray[np.float32]:
        with torch.inference_mode():
            y: NDArray[np.float32] = way().numpy()
        return y

    return {name: lambda way=way: call(way) for name, way in ways.items()}


def onnx_tagger(workload: Workload) -> bytes:
    """The LSTMs of the workload between a Gather and a MatMul; ids are (T, B)."""
    import onnx
    from onnx import helper, numpy_helper

    model = onnx.load_from_string(onnx_model.model(workload))
    graph = model.graph
    weights = dict(zip(("table", "head", "bias"), draw_others(workload), strict=True))
    weights["head"] = np.ascontiguousarray(weights["head"].T)
    graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    graph.input[0].CopyFrom(helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["T", "B"]))
    graph.node.insert(0, helper.make_node("Gather", ["table", "ids"], ["x"]))
    graph.node.append(helper.make_node("MatMul", [graph.output[0].name, "head"], ["product"]))
    graph.node.append(helper.make_node("Add", ["product", "bias"], ["tags"]))
    graph.output[0].CopyFrom(helper.make_tensor_value_info("tags", onnx.TensorProto.FLOAT, ["T", "B", TAGS]))
    return bytes(model.SerializeToString())


def feed(workload: Workload) -> dict[str, NDArray[Any]]:
    inputs = onnx_model.feed(
        workload, np.zeros((workload.batch, workload.steps, 0), np.float32), draw_lengths(workload)
    )
    del inputs["x"]
    return {"ids": np.ascontiguousarray(draw_ids(workload).T)} | inputs


def onnxruntime_calls(workload: Workload, num_threads: int) -> dict[str, Call]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = num_threads, 1
    session = onnxruntime.InferenceSession(onnx_tagger(workload), options, providers=["CPUExecutionProvider"])
    return {"onnxruntime": onnx_model.carry(feed(workload), lambda feed: session.run(None, feed))}


def openvino_calls(workload: Workload, num_threads: int) -> dict[str, Call]:
    import openvino

    inputs = feed(workload)
    model = openvino.Core().read_model(io.BytesIO(onnx_tagger(workload)))
    model.reshape({name: list(array.shape) for name, array in inputs.items()})
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": num_threads, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(model, "CPU", hints).create_infer_request()
    run = onnx_model.carry(inputs, lambda feed: list(request.infer(feed, share_inputs=True).values()))
    return {"openvino": run}


ENGINES = {
    "fastrnn": fastrnn_calls,
    "torch": torch_calls,
    "onnxruntime": onnxruntime_calls,
    "openvino": openvino_calls,
}


def installed() -> list[str]:
    return [name for name in ENGINES if not missing_packages(name)]


def build(workload: Workload, engines: list[str], num_threads: int) -> dict[str, Call]:
    """The calls of the engines, whose answers at real steps were compared with those of fastrnn."""
    calls = {name: call for engine in engines for name, call in ENGINES[engine](workload, num_threads).items()}
    real = np.arange(workload.steps) < draw_lengths(workload)[:, None]
    wanted: dict[int, NDArray[np.float32]] = {}
    for name, call in calls.items():
        y = np.stack([call() for _ in range(5 if workload.is_stream else 1)])
        y = y[:, real] if y.ndim == 4 else y  # packed tags are those of real steps alone
        wanted.setdefault(y.ndim if "packed" in name else 0, y)
        np.testing.assert_allclose(y, wanted[y.ndim if "packed" in name else 0], rtol=0, atol=TOLERANCES["float32"])
    return calls


@pytest.mark.parametrize("engine", installed())
@pytest.mark.parametrize("workload", TAGGERS, ids=str)
def test_model(benchmark, workload, engine, num_threads):
    benchmark.group = str(workload)
    calls = build(workload, list(dict.fromkeys(["fastrnn", engine])), num_threads)
    benchmark(calls[engine])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    with limited(arguments.threads):
        for workload in TAGGERS:
            calls = build(workload, installed(), arguments.threads)
            times = dict(zip(calls, fastest(list(calls.values()), arguments.rounds, arguments.seconds), strict=True))
            peers = [name for name in times if not name.startswith("fastrnn")]
            best = min(peers, key=lambda name: times[name])
            print(f"{workload}: {times[best] / times['fastrnn']:.2f} times {best}")
            print("  " + ", ".join(f"{name} {1e6 * seconds:,.1f} us" for name, seconds in times.items()), flush=True)


if __name__ == "__main__":
    main()
