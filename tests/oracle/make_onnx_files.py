"""Write tests/golden/onnx_files.tar.xz: models that exporters wrote, with inputs and their frameworks' answers.

Run three times; each keeps what the others wrote:

    python tests/oracle/make_onnx_files.py torch        # with torch and onnxscript: the exporter of torch.export
    python tests/oracle/make_onnx_files.py torchscript  # with torch: the exporter before that
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


def torch_models():
    """Modules with inputs, of which the first has free rows and steps, and the others (states, lengths) free rows."""
    import torch
    from torch import nn

    class Tagger(nn.Module):
        def __init__(self, pooling="none", conv=False):
            super().__init__()
            self.embedding = nn.Embedding(20, 5)
            self.conv = nn.Sequential(nn.Conv1d(5, 5, 3, padding=1), nn.BatchNorm1d(5), nn.ReLU()) if conv else None
            if conv:
                nn.init.uniform_(self.conv[1].running_mean)
            self.rnn = nn.LSTM(5, 4, bidirectional=True, batch_first=True)
            self.norm = nn.LayerNorm(8)
            self.linear = nn.Linear(8, 3)
            self.pooling = pooling

        def forward(self, ids):
            x = self.embedding(ids)
            y, (h, _) = self.rnn(x if self.conv is None else self.conv(x.transpose(1, 2)).transpose(1, 2))
            pooled = {
                "none": lambda: self.norm(y),
                "last": lambda: y[:, -1],
                "mean": lambda: y.mean(1),
                "max": lambda: y.max(1)[0],
                "states": lambda: torch.cat([h[0], h[1]], 1),
            }
            return torch.log_softmax(self.linear(pooled[self.pooling]()), -1)

    class WithStates(nn.Module):
        def __init__(self, rnn):
            super().__init__()
            self.rnn = rnn

        def forward(self, x, *states):
            return self.rnn(x, states if len(states) == 2 else states[0])

    class Packed(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = nn.LSTM(5, 4, bidirectional=True, batch_first=True)
            self.linear = nn.Linear(8, 3)

        def forward(self, x, lengths):
            packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True)
            y, (h, _) = self.rnn(packed)
            return torch.sigmoid(self.linear(nn.utils.rnn.pad_packed_sequence(y, batch_first=True)[0])), h

    torch.manual_seed(0)
    x, ids = torch.randn(3, 6, 5), torch.randint(0, 20, (3, 6))
    steps_first = x.swapaxes(0, 1).contiguous()

    def states(count):
        return torch.randn(count, 3, 4)

    return {
        "lstm": (nn.LSTM(5, 4, 2, batch_first=True), (x,)),
        "lstm-steps-first": (nn.LSTM(5, 4, 3, bidirectional=True), (steps_first,)),
        "lstm-states": (WithStates(nn.LSTM(5, 4, 2, bidirectional=True)), (steps_first, states(4), states(4))),
        "gru": (nn.GRU(5, 4, bidirectional=True, batch_first=True), (x,)),
        "gru-steps-first": (nn.GRU(5, 4), (steps_first,)),
        "gru-states": (WithStates(nn.GRU(5, 4, 2, batch_first=True)), (x, states(2))),
        "rnn": (nn.RNN(5, 4, 2, bidirectional=True, nonlinearity="relu"), (steps_first,)),
        "tagger": (Tagger(), (ids,)),
        "classifier": (Tagger("states"), (ids,)),
        "last": (Tagger("last", conv=True), (ids,)),
        "mean": (Tagger("mean"), (ids,)),
        "max": (Tagger("max"), (ids,)),
        "packed": (Packed(), (x, torch.tensor([6, 4, 2]))),
    }


def answers_of(module, inputs):
    """The module's answers, without nesting."""
    flat = [module(*inputs)]
    while any(isinstance(item, tuple) for item in flat):
        flat = [part for item in flat for part in (item if isinstance(item, tuple) else (item,))]
    return flat


def from_torch(folder):
    """The exporter of torch.export, without what it cannot do, or writes without recurrent nodes (RNN)."""
    import torch

    auto = torch.export.Dim.AUTO
    path = f"{folder}/model.onnx"
    for name, (module, inputs) in torch_models().items():
        if len(inputs) > 1 or name in ("rnn", "lstm-steps-first"):
            continue
        module.eval()
        with torch.no_grad(), contextlib.redirect_stdout(io.StringIO()):
            answers = answers_of(module, inputs)
            torch.onnx.export(
                module, inputs, path, dynamo=True, external_data=False, dynamic_shapes=({0: auto, 1: auto},)
            )
        yield f"torch-{name}", path, [array.numpy() for array in inputs], [array.numpy() for array in answers]


def from_torchscript(folder):
    """PyTorch's older exporter; half of the files keep their constants behind chains of nodes."""
    import torch

    path = f"{folder}/model.onnx"
    for index, (name, (module, inputs)) in enumerate(torch_models().items()):
        names = [f"in{number}" for number in range(len(inputs))]
        axes = {other: {1: "rows"} if inputs[number].ndim > 1 else {0: "rows"} for number, other in enumerate(names)}
        module.eval()
        with torch.no_grad():
            answers = answers_of(module, inputs)
            torch.onnx.export(
                module,
                inputs,
                path,
                dynamo=False,
                input_names=names,
                dynamic_axes=axes | {"in0": {0: "a", 1: "b"}},
                do_constant_folding=index % 2 == 0,
            )
        yield f"torchscript-{name}", path, [array.numpy() for array in inputs], [array.numpy() for array in answers]


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


EXPORTERS = {"torch": from_torch, "torchscript": from_torchscript, "keras": from_keras}


def main():
    warnings.simplefilter("ignore")
    kept = {}
    exporter = sys.argv[1]
    if FILE.exists():
        with tarfile.open(FILE) as archive:
            for member in archive.getmembers():
                if not member.name.startswith(f"{exporter}-"):
                    kept[member.name] = archive.extractfile(member).read()
    with tempfile.TemporaryDirectory() as folder:
        for name, path, inputs, answers in EXPORTERS[exporter](folder):
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
