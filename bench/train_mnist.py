"""Train the classifier of ``fastrnn mnist`` with PyTorch: ``python bench/train_mnist.py``, half a minute.

It writes the weights in the package, and a file for the tests with a few images and PyTorch's answers. It uses one
thread and fixed seeds, so that the same PyTorch on the same machine writes the same bytes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from fastrnn.mnist.images import COLUMNS, ROWS, SPLIT_SEED, as_input, count_rows, load_images, split

ROOT = Path(__file__).parents[1]
WEIGHTS = ROOT / "fastrnn" / "mnist" / "weights.npz"
SAMPLE = ROOT / "tests" / "data" / "mnist.npz"

HIDDEN, DIGITS = 32, 10
BATCH, LEARNING_RATE, WEIGHT_DECAY = 100, 0.01, 1e-3
SHIFT = 2  # pixels; the 4000 images are few, so they are moved in each epoch
SAMPLE_SIZE = 20


class Classifier(torch.nn.Module):
    """An LSTM over the rows of an image, and a dense layer on one of its outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = torch.nn.LSTM(COLUMNS, HIDDEN, batch_first=True)
        self.dense = torch.nn.Linear(HIDDEN, DIGITS)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the logits (B, 10) after all rows, and those after each image's last row with ink."""
        y, _ = self.lstm(x)
        return self.dense(y[:, -1]), self.dense(y[torch.arange(len(y)), lengths - 1])


def shifted(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Move each image by up to SHIFT pixels in both directions, filled with zeros."""
    padded = np.pad(images, ((0, 0), (SHIFT, SHIFT), (SHIFT, SHIFT)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (ROWS, COLUMNS), axis=(1, 2))
    down, right = rng.integers(0, 2 * SHIFT + 1, (2, len(images)))
    return windows[np.arange(len(images)), down, right]


def train(images: np.ndarray, labels: np.ndarray, epochs: int, seed: int) -> Classifier:
    """Train on both kinds of answer, so that the weights work for images with and without the blank rows below."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = Classifier()
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=WEIGHT_DECAY)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps)
    for epoch in range(epochs):
        total = 0.0
        for rows in rng.permutation(len(images)).reshape(-1, BATCH):
            batch = shifted(images[rows], rng)
            lengths = torch.from_numpy(count_rows(batch))
            target = torch.from_numpy(labels[rows])
            full, ragged = model(torch.from_numpy(as_input(batch)), lengths)
            loss = cross_entropy(full, target) + cross_entropy(ragged, target)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item() / 2
        print(f"epoch {epoch + 1:3} of {epochs}: loss {total / (len(images) // BATCH):.4f}", flush=True)
    return model.eval()


@torch.inference_mode()
def logits(model: Classifier, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the model's logits for whole and for ragged images, (B, 10) each."""
    full, ragged = model(torch.from_numpy(as_input(images)), torch.from_numpy(count_rows(images)))
    return full.numpy(), ragged.numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the classifier of `fastrnn mnist` with PyTorch.")
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)

    images, labels = load_images()
    training, test = split(len(images))
    model = train(images[training], labels[training], arguments.epochs, arguments.seed)
    right = [float((answer.argmax(axis=1) == labels[test]).mean()) for answer in logits(model, images[test])]
    print("right on the {} test images: {:.1%} of whole ones, {:.1%} of ragged ones".format(len(test), *right))

    weights = {name: tensor.numpy() for name, tensor in model.lstm.state_dict().items()}
    weights |= {f"dense_{name}": tensor.numpy() for name, tensor in model.dense.state_dict().items()}
    seeds = {"seed": arguments.seed, "split_seed": SPLIT_SEED}
    np.savez(WEIGHTS, **weights, **seeds, accuracy_full=right[0], accuracy_ragged=right[1])
    sample = test[:SAMPLE_SIZE]
    full, ragged = logits(model, images[sample])
    np.savez_compressed(SAMPLE, images=images[sample], labels=labels[sample], logits_full=full, logits_ragged=ragged)


if __name__ == "__main__":
    main()
