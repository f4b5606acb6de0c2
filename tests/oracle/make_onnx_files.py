"""Write tests/golden/onnx_files.tar.xz: models that exporters wrote, with inputs and their frameworks' answers.

Run twice; each keeps what the other wrote:

    python tests/oracle/make_onnx_files.py torch        # with torch and onnxscript: the exporter of torch.export
    python tests/oracle/make_onnx_files.py keras        # with keras, tensorflow and tf2onnx

Each model is <exporter>-<name>.onnx beside <exporter>-<name>.npz, which has in0, in1, ... and out0, out1, ...
"""

import contextlib
import io
import os
import sys
import tarfile
import tempfile
import warnings
from pathlib import Path

import numpy as np
import onnx

FILE = Path(__file__).parents[1] / "golden" / "onnx_files.tar.xz"


def stripped(model):
    """The model without what exporters write about the sources of its nodes."""
    for item in (model, *model.functions):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    graph = model.graph
    for item in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    graph.ClearField("value_info")
    return model.SerializeToString()


def from_torch(folder):
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self, last):
            super().__init__()
            self.embedding = nn.Embedding(20, 5)
            self.rnn = nn.LSTM(5, 4, bidirectional=True, batch_first=True)
            self.norm = nn.LayerNorm(8)
            self.linear = nn.Linear(8, 3)
            self.last = last

        def forward(self, ids):
            y, (h, _) = self.rnn(self.embedding(ids))
            y = torch.cat([h[0], h[1]], 1) if self.last else self.norm(y)
            return torch.log_softmax(self.linear(y), -1)

    torch.manual_seed(0)
    x, ids = torch.randn(3, 6, 5), torch.randint(0, 20, (3, 6))
    models = {
        "lstm": (nn.LSTM(5, 4, 2, batch_first=True), (x,)),
        "gru": (nn.GRU(5, 4, bidirectional=True, batch_first=True), (x,)),
        "gru-steps-first": (nn.GRU(5, 4), (x.swapaxes(0, 1).contiguous(),)),
        "tagger": (Tagger(last=False), (ids,)),
        "classifier": (Tagger(last=True), (ids,)),
    }
    for name, (module, inputs) in models.items():
        module.eval()
        auto = torch.export.Dim.AUTO
        shapes = tuple({0: auto, 1: auto} for _ in inputs)
        path = f"{folder}/model.onnx"
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            answers = module(*inputs)
            torch.onnx.export(module, inputs, path, dynamo=True, external_data=False, dynamic_shapes=shapes)
        flat = [answers]
        if isinstance(answers, tuple):
            flat = [answers[0], *(answers[1] if isinstance(answers[1], tuple) else (answers[1],))]
        yield f"torch-{name}", path, [array.numpy() for array in inputs], [array.numpy() for array in flat]


def from_keras(folder):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    import keras
    import tensorflow as tf
    import tf2onnx

    layers = keras.layers
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 6, 5)).astype(np.float32)
    ids = rng.integers(0, 20, (3, 6)).astype(np.int32)
    floats, integers = layers.Input((None, 5)), layers.Input((None,), dtype="int32")
    models = {
        "lstm-last": ([floats, layers.LSTM(4)], x),
        "bidirectional": ([floats, layers.Bidirectional(layers.LSTM(4, return_sequences=True))], x),
        "backwards": ([floats, layers.LSTM(4, go_backwards=True, return_sequences=True)], x),
        "tagger": (
            [
                integers,
                layers.Embedding(20, 5),
                layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
                layers.Dense(3, activation="softmax"),
            ],
            ids,
        ),
        "classifier": (
            [integers, layers.Embedding(20, 5), layers.LSTM(4), layers.Dense(3, activation="relu"), layers.Dense(2)],
            ids,
        ),
    }
    for name, (parts, value) in models.items():
        model = keras.Sequential(parts)
        signature = [tf.TensorSpec((None, None, *value.shape[2:]), value.dtype, name="x")]
        path = f"{folder}/model.onnx"
        tf2onnx.convert.from_function(
            tf.function(lambda x, model=model: model(x, training=False)),
            input_signature=signature,
            opset=15,
            output_path=path,
        )
        yield f"keras-{name}", path, [value], [np.asarray(model(value))]


def main():
    warnings.simplefilter("ignore")
    kept = {}
    exporter = sys.argv[1]
    if FILE.exists():
        with tarfile.open(FILE) as archive:
            for member in archive.getmembers():
                if not member.name.startswith(exporter):
                    kept[member.name] = archive.extractfile(member).read()
    with tempfile.TemporaryDirectory() as folder:
        for name, path, inputs, answers in {"torch": from_torch, "keras": from_keras}[exporter](folder):
            kept[f"{name}.onnx"] = stripped(onnx.load(path))
            arrays = {f"in{index}": array for index, array in enumerate(inputs)}
            file = io.BytesIO()
            np.savez(file, **arrays, **{f"out{index}": array for index, array in enumerate(answers)})
            kept[f"{name}.npz"] = file.getvalue()
    with tarfile.open(FILE, "w:xz", preset=9) as archive:
        for name, data in sorted(kept.items()):
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


if __name__ == "__main__":
    main()
