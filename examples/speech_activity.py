"""When does somebody speak? silero-vad's ONNX model, its LSTM here and the convolutions around it in onnxruntime.

    pip install --no-deps silero-vad==6.2.3 && pip install onnx onnxruntime matplotlib
    pip download --no-deps --no-binary :all: silero-vad==6.2.3     # its sources have a minute of speech
    python examples/speech_activity.py silero_vad-6.2.3.tar.gz activity.png

The first argument is a sound (.wav of 16 kHz, one channel, 16 bits) or these sources; without it, the sound is a
second of silence, one of a buzzer and one of noise. The second one is a picture to be drawn. Each # is a frame of 32 ms
with speech. The sound runs as a whole, and live: one frame a call, the LSTM's state h and c passed on by the caller.
"""

import importlib.util
import io
import sys
import tarfile
import wave
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.lib.stride_tricks import sliding_window_view

import fastrnn

RATE, FRAME, CONTEXT = 16000, 512, 64
package = Path(importlib.util.find_spec("silero_vad").submodule_search_locations[0])
path = package / "data" / "silero_vad_16k_sequence.onnx"


def read(name):
    """A sound file's samples, or those of the test in the package's sources."""
    if not name.endswith(".wav"):
        with tarfile.open(name) as sources:
            (member,) = (item for item in sources if item.name.endswith("tests/data/test.wav"))
            name = io.BytesIO(sources.extractfile(member).read())
    with wave.open(name) as sound:
        if sound.getparams()[:3] != (1, 2, RATE):
            sys.exit("wanted one channel of 16 bits and 16 kHz")
        return np.frombuffer(sound.readframes(-1), "<i2").astype(np.float32) / 32768


def demonstration():
    time = np.arange(RATE) / RATE
    buzzer = sum(np.sin(2 * np.pi * 140 * n * time) / n for n in range(1, 25))
    rng = np.random.default_rng(0)
    return np.concatenate([np.zeros(RATE), 0.1 * buzzer, 0.01 * rng.standard_normal(RATE)]).astype(np.float32)


def draw(samples, speech, name):
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (top, bottom) = pyplot.subplots(2, sharex=True, figsize=(12, 4), layout="constrained")
    top.plot(np.arange(len(samples)) / RATE, samples, linewidth=0.3)
    top.set_ylabel("sound")
    bottom.step(np.arange(len(speech)) * FRAME / RATE, speech, where="post", linewidth=0.8)
    bottom.axhline(0.5, color="grey", linewidth=0.5)
    bottom.set(ylabel="probability of speech", xlabel="seconds", ylim=(0, 1.02), xlim=(0, len(samples) / RATE))
    figure.savefig(name, dpi=120)


sound = read(sys.argv[1]) if len(sys.argv) > 1 else demonstration()
samples = np.pad(sound, (CONTEXT, -len(sound) % FRAME))  # each frame has the last samples of the one before
frames = np.ascontiguousarray(sliding_window_view(samples, CONTEXT + FRAME)[::FRAME])

model = fastrnn.load(path)
for part in model.parts:
    print(f"{part.engine:12} {len(part.nodes)} nodes: {part.nodes[0]}{' ...' * (len(part.nodes) > 1)}")

speech, last_h, last_c = model(frames)  # h and c are zero if they are not given

h = c = np.zeros((1, 1, 128), np.float32)
live = []
for frame in frames:
    probability, h, c = model(frame[None], h=h, c=c)
    live.append(probability[0])

session = onnxruntime.InferenceSession(path)
zeros = np.zeros((1, 1, 128), np.float32)
(own,) = session.run(["speech_probs"], {"input": frames, "h": zeros, "c": zeros})

for second in range(0, len(speech), RATE // FRAME):
    print(f"{second * FRAME / RATE:5.1f} s  " + "".join("#" if p > 0.5 else "." for p in speech[second : second + 31]))
print(f"{len(speech)} probabilities, mean {speech.mean():.4f}")
print(f"frame by frame and as a whole differ by {abs(np.array(live) - speech).max():.1g}")
print(f"from onnxruntime's they differ by {abs(own - speech).max():.1g}")
if len(sys.argv) > 2:
    draw(sound, speech, sys.argv[2])
