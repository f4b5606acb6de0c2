"""Feed the readers that are ours with broken files, guided by coverage; needs atheris (extra 'fuzz').

    python bench/fuzz_files.py --seconds 60          # a minute; the exit status is not 0 where something was found
    python bench/fuzz_files.py CRASH-FILE            # what was found, again

The first byte of an input chooses the target, the others are a file, or text in one. The same targets run in
tests/test_hostile_files.py on seeded mutations, without atheris.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import struct
import sys
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import fastrnn
from fastrnn._core import check_model_file
from fastrnn.commands import sequences
from fastrnn.files import hdf5, keras_file, load, native, npz, onnx_file, protobuf, recognize, safetensors_file
from fastrnn.importers import keras_config, keras_fields, keras_model, keras_operations
from fastrnn.importers import onnx as onnx_nodes
from fastrnn.onnx import axes, chain, constants, follower, graph, recurrent, rules

#: All that may come out of a reader; the last one where a package is missing.
ALLOWED = (ValueError, TypeError, OSError, NotImplementedError, ModuleNotFoundError)

_folder = tempfile.TemporaryDirectory()
_path = f"{_folder.name}/input"


def _weights() -> dict[str, np.ndarray]:
    return {"rnn.weight_ih_l0": np.ones((6, 2), np.float32), "rnn.weight_hh_l0": np.ones((6, 2), np.float32)}


def _read(reader: Callable[[str], object]) -> Callable[[bytes], None]:
    def target(data: bytes) -> None:
        Path(_path).write_bytes(data)
        with contextlib.suppress(ALLOWED):
            reader(_path)

    return target


def native_config(data: bytes) -> None:
    """A configuration of our own format, of a layer and of a model, without arrays."""
    for version in (native.VERSION, native.MODEL_VERSION):
        values = ("fastrnn", version, data.decode("ascii", "replace"))
        text = json.dumps({"__metadata__": dict(zip(native.METADATA, values, strict=True))}).encode()
        with contextlib.suppress(ALLOWED):
            check_model_file(struct.pack("<Q", len(text)) + text)


def keras_json(data: bytes) -> None:
    """The configuration of a model of Keras."""
    with contextlib.suppress(ALLOWED):
        keras_file.check_config(data)


def _run_sequences(data: bytes) -> None:
    """The input of ``fastrnn run``, with parts that are as small as can be."""
    ids = sequences.Wanted(1, np.dtype(np.int64), "safe", num_ids=9)
    with contextlib.suppress(ALLOWED):
        for fragment in sequences.Lines("input", io.BytesIO(data), ids).fragments(1):
            assert fragment.x.shape in ((0,), (1,)) and ((fragment.x >= 0) & (fragment.x < 9)).all()
    wanted = sequences.Wanted(2, np.dtype(np.float32), "safe")
    with contextlib.suppress(ALLOWED):
        for fragment in sequences.Lines("input", io.BytesIO(data), wanted).fragments(1):
            assert fragment.x.shape in ((0, 2), (1, 2)) and np.isfinite(fragment.x).all()
    with contextlib.suppress(ALLOWED):
        Path(_path).write_bytes(data)
        with open(_path, "rb") as file:
            for fragment in sequences.Archive(_path, file, wanted, None, 2).fragments(2):
                assert fragment.x.shape in ((0, 2), (1, 2), (2, 2))


def onnx_model(data: bytes) -> None:
    """A model of ONNX up to its layers; what onnxruntime would compute of it is left out."""

    def compute(whole: graph.Graph, name: str) -> np.ndarray:
        raise ValueError(f"{name} needs onnxruntime")

    Path(_path).write_bytes(data)
    with contextlib.suppress(*ALLOWED, axes.NotAChain):
        whole = onnx_file.read_graph(_path)
        known = constants.Constants(whole, compute)
        found = recurrent.find(whole, known, [])
        for call in found.values():
            recurrent.Call(call, whole.opset, None, {})
        chain.find_chain(whole, known, found, None)


def _onnx_models() -> list[bytes]:
    """A node with a chain of constants and lengths, and a tagger; none where the package onnx is missing."""
    if importlib.util.find_spec("onnx") is None:
        return []
    from onnx import helper, numpy_helper

    arrays = {name: np.ones(shape, np.float32) for name, shape in (("W", (6, 2)), ("R", (1, 6, 2)), ("E", (3, 2)))}
    arrays |= {"axes": np.array([0]), "axis": np.array([1]), "K": np.ones((2, 3), np.float32)}
    opset = [helper.make_opsetid("", 17)]

    def model(nodes: list[object], inputs: list[tuple[str, int, list[str | int]]]) -> bytes:
        ports = [helper.make_tensor_value_info(*port) for port in inputs]
        tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
        made = helper.make_graph(nodes, "g", ports, [helper.make_tensor_value_info("y", 1, None)], tensors)
        return bytes(helper.make_model(made, opset_imports=opset, ir_version=8).SerializeToString())

    unsqueeze = helper.make_node("Unsqueeze", ["W", "axes"], ["W1"])
    first = [
        helper.make_node("Cast", ["lens"], ["short"], to=6),
        helper.make_node("GRU", ["x", "W1", "R", "", "short"], ["y"], hidden_size=2, clip=1.0),
    ]
    others = [
        helper.make_node("Gather", ["E", "x"], ["a"]),
        helper.make_node("GRU", ["a", "W1", "R"], ["b"], activations=["Sigmoid", "Tanh"], direction="reverse"),
        helper.make_node("Squeeze", ["b", "axis"], ["c"]),
        helper.make_node("MatMul", ["c", "K"], ["d"]),
        helper.make_node("Softmax", ["d"], ["y"], axis=-1),
    ]
    return [
        model([unsqueeze, *first], [("x", 1, ["T", "B", 2]), ("lens", 7, ["B"])]),
        model([unsqueeze, *others], [("x", 7, ["T", "B"])]),
    ]


#: Targets by name; each takes an input's bytes, and raises nothing unless it has found a defect.
TARGETS: dict[str, Callable[[bytes], None]] = {
    "recognize": _read(recognize.recognize),
    "load": _read(load.load),
    "safetensors": _read(safetensors_file.read),
    "native": _read(native.read),
    "npz": _read(npz.read),
    "native_config": native_config,
    "keras": _read(keras_file.read),
    "keras_config": keras_json,
    "onnx": onnx_model,
    "sequences": _run_sequences,
}

#: Archives of files that Keras saved -> members that are seeds, files and configurations.
KERAS_SEEDS = {
    "keras_files": (
        ("keras2/gru.h5", "keras3/gru.keras"),
        ("keras2/both-unlike.json", "keras3/functional-masking.json"),
    ),
    "keras_models": (("keras3/text.h5", "keras2/average.keras"), ("keras2/normed.json", "keras3/graph-average.json")),
}


def _save_model(path: str) -> bytes:
    """Save a model; its configuration."""
    layer = fastrnn.GRU.from_state_dict(_weights(), "rnn.")
    convolution = fastrnn.Conv1d(np.ones((2, 2, 2), np.float32), padding="causal")
    table = fastrnn.Embedding(np.ones((3, 2), np.float32), mask_zero=True)
    fastrnn.Sequential(table, convolution, layer, "elu", fastrnn.Mean(), fastrnn.LayerNorm()).save(path)
    with open(path, "rb") as file:
        return safetensors_file.read_header(path, file).metadata["config"].encode()


def seeds() -> dict[str, list[bytes]]:
    """Files and texts that are right, by target."""
    with tempfile.TemporaryDirectory() as folder:
        fastrnn.GRU.from_state_dict(_weights(), "rnn.").save(f"{folder}/model")
        own = Path(f"{folder}/model").read_bytes()
        fastrnn.GRU.from_state_dict(_weights(), "rnn.", weight_dtype="int8").save(f"{folder}/model")
        small = Path(f"{folder}/model").read_bytes()
        model_config = _save_model(f"{folder}/model")
        model = Path(f"{folder}/model").read_bytes()
        np.savez(f"{folder}/stored.npz", **_weights())
        np.savez_compressed(f"{folder}/deflated.npz", **_weights())
        archives = [Path(f"{folder}/{name}.npz").read_bytes() for name in ("stored", "deflated")]
    with tempfile.NamedTemporaryFile() as file:
        file.write(own)
        file.flush()
        header = safetensors_file.read_header(file.name, file)  # type: ignore[arg-type]
    every = [own, small, model, *archives]
    found = dict.fromkeys(("load", "safetensors", "native", "npz"), every)
    found |= {"recognize": every + _onnx_models(), "onnx": _onnx_models()}
    keras: dict[str, list[bytes]] = {"keras": [], "keras_config": []}
    for archive_name, members in KERAS_SEEDS.items():
        with tarfile.open(Path(__file__).parents[1] / "tests" / "golden" / f"{archive_name}.tar.xz") as archive:
            for target, names in zip(keras, members, strict=True):
                keras[target] += [archive.extractfile(name).read() for name in names]  # type: ignore[union-attr]
    configs = {"native_config": [header.metadata["config"].encode(), model_config]}
    buffer = io.BytesIO()
    np.savez(buffer, x=np.ones((2, 3, 2), np.float32), lengths=np.array([3, 1]))
    sequences_inputs = {"sequences": [b"[[1,2.5],[-3e2,4]]\n[]\n[[1,2]]", b"[1,8]\n[]\n[0]", buffer.getvalue()]}
    return found | configs | keras | sequences_inputs


def one_input(data: bytes) -> None:
    if data:
        names = sorted(TARGETS)
        TARGETS[names[data[0] % len(names)]](data[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description="Fuzz the readers of files.")
    parser.add_argument("inputs", nargs="*", help="inputs to run once instead")
    parser.add_argument("--seconds", type=int, default=60, help="how long (default: %(default)s)")
    options = parser.parse_args()
    if options.inputs:
        for path in options.inputs:
            one_input(Path(path).read_bytes())
        return
    try:
        import atheris
    except ModuleNotFoundError:
        sys.exit("bench/fuzz_files.py needs the package atheris, not installed (extra 'fuzz': pip install '.[fuzz]')")
    with tempfile.TemporaryDirectory() as corpus:
        for index, name in enumerate(sorted(TARGETS)):
            for number, seed in enumerate(seeds().get(name, [])):
                Path(f"{corpus}/{name}-{number}").write_bytes(bytes([index]) + seed)
        importers = (keras_config, keras_fields, keras_model, keras_operations, onnx_nodes)
        readers = (hdf5, keras_file, load, native, npz, onnx_file, protobuf, recognize, safetensors_file, sequences)
        graphs = (axes, chain, constants, follower, graph, recurrent, rules)
        for module in (*importers, *readers, *graphs):
            for value in vars(module).values():
                if callable(value) and getattr(value, "__module__", None) == module.__name__:
                    try:
                        atheris.instrument_func(value)
                    except Exception:
                        continue  # classes
        atheris.Setup([sys.argv[0], f"-max_total_time={options.seconds}", "-timeout=20", corpus], one_input)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
