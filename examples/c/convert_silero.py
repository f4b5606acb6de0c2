"""silero-vad's ONNX model as two files for speech_activity.c: its encoder, and its LSTM with the output.

    pip install --no-deps silero-vad==6.2.3 && pip install onnx
    python examples/c/convert_silero.py encoder.safetensors detector.safetensors

The short-time Fourier transform before the encoder is in the C program. A third argument is the path of
silero_vad_16k_sequence.onnx, if the package is not installed.
"""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

import fastrnn

if len(sys.argv) == 4:
    path = Path(sys.argv[3])
else:
    package = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0])
    path = package / "data" / "silero_vad_16k_sequence.onnx"

graph = onnx.load(path).graph
arrays = {array.name: numpy_helper.to_array(array) for array in graph.initializer}
(node,) = (node for node in graph.node if node.op_type == "LSTM")

layers = []
for index, stride in enumerate((1, 2, 2, 1)):
    weight, bias = arrays[f"encoder.{index}.weight"], arrays[f"encoder.{index}.bias"]
    layers += [fastrnn.Conv1d(weight, bias, stride=stride, padding=1), "relu"]
encoder = fastrnn.Sequential(*layers, fastrnn.Last())  # four steps in, one out
encoder.save(sys.argv[1])


def reordered(array):
    """ONNX's gates i o f c as PyTorch's i f g o."""
    i, o, f, c = np.split(array, 4)
    return np.concatenate([i, f, c, o])


weight_ih, weight_hh, biases = (arrays[name][0] for name in node.input[1:4])
lstm = fastrnn.LSTM.from_state_dict(
    {
        "weight_ih_l0": reordered(weight_ih),
        "weight_hh_l0": reordered(weight_hh),
        "bias_ih_l0": reordered(biases[: len(biases) // 2]),
        "bias_hh_l0": reordered(biases[len(biases) // 2 :]),
    }
)
output = fastrnn.Linear(arrays["output.weight"][:, :, 0], arrays["output.bias"])
fastrnn.Sequential(lstm, "relu", output, "sigmoid").save(sys.argv[2])
