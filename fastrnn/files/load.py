"""`fastrnn.load`: a file's format picks its reader, and the reader's options are checked by name."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import DTypeLike

from ..layers import LAYERS
from ..layers.engine import Backend
from ..models.sequential import Sequential
from ..models.spec import ModelSpec
from ..spec import LayerSpec, WeightDtype
from .recognize import recognize


@dataclass(frozen=True)
class Source:
    """One format that `load` reads.

    Attributes
    ----------
    title : what the format is called in messages
    module : full name of the module that reads it, imported when such a file is read
        Its function ``read(path: str, **options) -> LayerSpec | ModelSpec`` gets those of `options` that the caller
        has set, collects every fault before it raises, and raises nothing but ValueError, TypeError, OSError,
        NotImplementedError, or ModuleNotFoundError (of ``extras.require``).
    options : the keyword arguments of `load` that apply to it
    """

    title: str
    module: str
    options: frozenset[str]


_STATE_DICT = frozenset({"prefix", "nonlinearity", "batch_first"})

#: The formats by the names that `recognize` gives.
SOURCES: dict[str, Source] = {
    "native": Source("a file of fastrnn's own format", "fastrnn.files.native", frozenset()),
    "safetensors": Source("a safetensors file", "fastrnn.files.safetensors_file", _STATE_DICT),
    "npz": Source("an npz file", "fastrnn.files.npz", _STATE_DICT),
    "json": Source("a JSON file", "fastrnn.files.json_file", _STATE_DICT),
    "torch": Source("a PyTorch file", "fastrnn.files.pytorch_file", _STATE_DICT),
    "keras": Source("a Keras file", "fastrnn.files.keras_file", frozenset({"prefix", "batch_first", "config"})),
    "hdf5": Source("an HDF5 file", "fastrnn.files.keras_file", frozenset({"prefix", "batch_first", "config"})),
    "onnx": Source("a model of ONNX", "fastrnn.files.onnx_file", frozenset({"prefix", "batch_first"})),
    "tensorflow": Source(
        "a TensorFlow 1 checkpoint",
        "fastrnn.files.tensorflow_file",
        frozenset({"scope", "nonlinearity", "batch_first", "forget_bias"}),
    ),
}


def load(
    path: str | os.PathLike[str],
    *,
    prefix: str | None = None,
    scope: str | None = None,
    nonlinearity: Literal["tanh", "relu"] | None = None,
    batch_first: bool | None = None,
    forget_bias: float | None = None,
    config: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    backend: Backend = "auto",
    dtype: DTypeLike | None = None,
    isa: str | None = None,
    weight_dtype: WeightDtype | None = None,
) -> Any:
    """Load a trained recurrent layer or model from a file, whatever the file's name.

    The content tells the format: PyTorch (a state dict, or a checkpoint with one inside), safetensors, npz, JSON, Keras
    2 and 3, a TensorFlow 1 checkpoint, or what :meth:`save` wrote. A file is checked as a whole before memory is
    taken for its arrays.

    Parameters
    ----------
    path : the file; for a TensorFlow 1 checkpoint its prefix, without ``.index``
    prefix : which recurrent layer, where a file has several: what its names begin with, with or without the dot
        The error lists the choices. In a Keras file, the layer's name.
    scope : which cells of a TensorFlow 1 checkpoint
    nonlinearity : "tanh" or "relu" of an RNN, where the file cannot tell
    batch_first : whether x and y are (B, T, .) or (T, B, .), where the file cannot tell; None is True
    forget_bias : what TensorFlow 1's BasicLSTMCell and LSTMCell add to the forget gate at run time
        Required there: a checkpoint does not hold it.
    config : the architecture of a Keras ``.weights.h5``: ``model.to_json()``, its path, or ``model.get_config()``
    backend, dtype, isa, weight_dtype : as of the layers

    Returns
    -------
    LSTM, GRU or RNN
    Sequential
        From a file of a model, which ``Sequential.save`` wrote or Keras. It has no backend and dtype.
    SimpleRNN, LSTM, GRU, Bidirectional or Sequential of fastrnn.keras
        From a file of Keras where none of the others computes the same.

    Raises
    ------
    ValueError
        The file is damaged, of an unknown format, or holds no layer or several; an option does not apply to it. The
        message gives every reason.
    TypeError
        Arrays or arguments are of another type.
    NotImplementedError
        The file's format is known, but not read.
    OSError
        The file cannot be read.
    ModuleNotFoundError
        A package is missing; the message names it and the extra that brings it.

    Examples
    --------
    >>> import tempfile, fastrnn
    >>> weights = {"encoder.rnn.weight_ih_l0": np.eye(8, 3, dtype="f4"), "encoder.rnn.weight_hh_l0": np.eye(8, 2)}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/model.npz", **{name: array.astype("f4") for name, array in weights.items()})
    ...     layer = fastrnn.load(f"{folder}/model.npz")
    ...     layer.save(f"{folder}/model.safetensors")
    ...     again = fastrnn.load(f"{folder}/model.safetensors")
    >>> type(again).__name__, again.input_size, again.hidden_size
    ('LSTM', 3, 2)
    """
    given = {
        name: value
        for name, value in {
            "prefix": prefix,
            "scope": scope,
            "nonlinearity": nonlinearity,
            "batch_first": batch_first,
            "forget_bias": forget_bias,
            "config": config,
        }.items()
        if value is not None
    }
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path is {path!r}, wanted a str or a path")
    format_name = find_source(name, given)
    source = SOURCES[format_name]
    spec = importlib.import_module(source.module).read(name, **given)
    computing = {"backend": backend if backend != "auto" else None, "dtype": dtype}
    if isinstance(spec, ModelSpec):
        _refuse(computing, "fastrnn.Sequential")
        return Sequential.from_spec(spec, isa=isa, weight_dtype=weight_dtype)
    if format_name == "onnx" and not isinstance(spec, LayerSpec):
        _refuse(computing, "model of fastrnn.onnx")
        return importlib.import_module("fastrnn.onnx").build(spec, isa=isa, weight_dtype=weight_dtype)
    if not isinstance(spec, LayerSpec):
        layer = _as_it_is(spec, backend, dtype, isa)
        return layer if weight_dtype is None else layer.with_weight_dtype(weight_dtype)
    return LAYERS[spec.kind](spec, backend=backend, dtype=dtype, isa=isa, weight_dtype=weight_dtype)


def find_source(path: str, given: Mapping[str, Any]) -> str:
    """The name of a file's format in SOURCES.

    Parameters
    ----------
    path : the file
    given : the options of the reader that the caller has set

    Raises
    ------
    ValueError
        The content is of no format that is read, or an option does not apply to it.
    """
    format_name = recognize(path)
    source = SOURCES[format_name]
    if surplus := sorted(given.keys() - source.options):
        takes = f"takes {' and '.join(sorted(source.options))} only" if source.options else "says all that load needs"
        verb = "is" if len(surplus) == 1 else "are"
        raise ValueError(f"{' and '.join(surplus)} {verb} given, but {path} is {source.title}, which {takes}")
    return format_name


def _as_it_is(layer: Any, backend: Backend, dtype: DTypeLike | None, isa: str | None) -> Any:
    """A layer of fastrnn.keras, which chooses what to run on by itself."""
    given = {"backend": backend if backend != "auto" else None, "dtype": dtype, "isa": isa}
    _refuse(given, f"fastrnn.keras.{type(layer).__name__}")
    return layer


def _refuse(given: Mapping[str, Any], kind: str) -> None:
    """Raise ValueError if one of these options is given, which are not of what the file is loaded as."""
    if names := [name for name, value in given.items() if value is not None]:
        raise ValueError(f"{' and '.join(names)} given, but the file is loaded as a {kind}, which has no such option")
