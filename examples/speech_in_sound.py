"""Is somebody speaking? silero-vad's LSTM out of its safetensors file, live, 32 ms of sound at a time.

    pip install --no-deps silero-vad==6.2.3 && pip install safetensors
    python examples/speech_in_sound.py [sound.wav]      # 16 kHz, one channel, 16 bits

The convolutions around the LSTM are NumPy's here. Each # is a frame with speech. Without a file, the sound is
a second of silence, one of a buzzer and one of noise, in which nobody speaks.
"""

import importlib.util
import sys
import wave
from pathlib import Path

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from safetensors.numpy import load_file

import fastrnn

RATE, FRAME, CONTEXT = 16000, 512, 64
path = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0]) / "data/silero_vad_16k.safetensors"
layer = fastrnn.load(path, prefix="lstm_cell")
weights = load_file(path)


def convolve(x, name, stride=1, pad=1):
    """x (channels, steps) through a convolution and, if it has a bias, relu."""
    windows = sliding_window_view(np.pad(x, ((0, 0), (pad, pad))), weights[f"{name}.weight"].shape[2], axis=1)[
        :, ::stride
    ]
    y = np.einsum("ctk,ock->ot", windows, weights[f"{name}.weight"])
    bias = weights.get(f"{name}.bias")
    return y if bias is None else np.maximum(y + bias[:, None], 0)


def features(samples):
    """CONTEXT + FRAME samples to the LSTM's input (128,)."""
    spectrum = convolve(np.pad(samples, (0, 64), "reflect")[None], "stft_conv", stride=128, pad=0)
    x = np.hypot(*np.split(spectrum, 2))
    for name, stride in (("conv1", 1), ("conv2", 2), ("conv3", 2), ("conv4", 1)):
        x = convolve(x, name, stride)
    return x[:, 0]


def demonstration():
    time = np.arange(RATE) / RATE
    buzzer = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 25))
    rng = np.random.default_rng(0)
    return np.concatenate([np.zeros(RATE), 0.1 * buzzer, 0.01 * rng.standard_normal(RATE)]).astype(np.float32)


if len(sys.argv) > 1:
    with wave.open(sys.argv[1]) as sound:
        samples = np.frombuffer(sound.readframes(-1), "<i2").astype(np.float32) / 32768
else:
    samples = demonstration()
samples = np.pad(samples, (CONTEXT, -len(samples) % FRAME))
frames = sliding_window_view(samples, CONTEXT + FRAME)[::FRAME]
inputs = np.stack([features(frame) for frame in frames])

stream = layer.stream()
h = np.concatenate([stream.step(x[None]) for x in inputs])
logits = np.maximum(h, 0) @ weights["final_conv.weight"][0, :, 0] + weights["final_conv.bias"]
speech = 1 / (1 + np.exp(-logits))
for second in range(0, len(speech), RATE // FRAME):
    print(f"{second * FRAME / RATE:5.1f} s  " + "".join("#" if p > 0.5 else "." for p in speech[second : second + 31]))
whole, _ = layer(inputs)
print(f"frame by frame and as a whole differ by {abs(whole - h).max():.1g}")
