"""TensorFlow 1 checkpoints (``PREFIX.index`` and ``PREFIX.data-*``): the index is checked here, TensorFlow reads."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..importers.tensorflow_checkpoint import Reader, Variable, spec_from_checkpoint
from ..spec import LayerSpec
from .tensorflow_index import read_index


def read(path: str, **options: Any) -> LayerSpec:
    """Read a recurrent layer from a checkpoint of ``tf.train.Saver``.

    Parameters
    ----------
    path : the checkpoint's prefix, without ``.index``
    options : scope, nonlinearity, batch_first, forget_bias, as of ``spec_from_checkpoint``

    Raises
    ------
    ValueError, TypeError
        The checkpoint is damaged, or holds no such layer; the message has every reason.
    NotImplementedError
        It is of TensorFlow 2's kind.
    OSError
        A file cannot be read.
    ModuleNotFoundError
        tensorflow is not installed.
    """
    return spec_from_checkpoint(path, variables_of(path), reader_of(path), **options)


def variables_of(path: str) -> dict[str, Variable]:
    """The table of a checkpoint's variables; TensorFlow is not needed for it.

    Parameters
    ----------
    path : the checkpoint's prefix

    Raises
    ------
    ValueError, NotImplementedError, OSError
        As of :func:`read`.
    """
    entries = read_index(path)
    if "_CHECKPOINTABLE_OBJECT_GRAPH" in entries:
        raise NotImplementedError(
            f"{path} was saved by tf.train.Checkpoint or by Keras, whose names depend on the program's objects, wanted "
            "a checkpoint of tf.compat.v1.train.Saver; a Keras model can be saved to a .keras or .h5 file"
        )
    return {name: Variable(entry.shape, entry.dtype) for name, entry in entries.items()}


def reader_of(path: str) -> Reader:
    """A function that reads one variable of a checkpoint whose table has been checked.

    TensorFlow is imported when the first one is read.
    """
    opened: list[Any] = []

    def read_one(name: str) -> NDArray[Any]:
        extras.require(["tensorflow"], f"{path} is a TensorFlow checkpoint, which", "tensorflow")
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its start-up notes would be in the program's output
        import tensorflow as tf

        try:
            if not opened:
                opened.append(tf.train.load_checkpoint(path))
            return np.asarray(opened[0].get_tensor(name))
        except OSError:
            raise
        except Exception as error:  # OpError, IndexError, RuntimeError, depending on what is damaged
            reason = str(error).strip().split("\n")[0]
            raise ValueError(f"{path} is damaged: TensorFlow cannot read {name}: {reason}") from None

    return read_one
