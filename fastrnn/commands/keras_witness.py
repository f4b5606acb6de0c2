"""The model or layer of a file of Keras, loaded by Keras itself."""

from __future__ import annotations

import importlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import extras
from ..files import keras_file
from ..importers.keras_fields import major_version
from .options import framework_errors

#: Keras's backends, and the module that each needs.
BACKENDS = {"tensorflow": "tensorflow", "torch": "torch", "jax": "jax"}


class Witness(NamedTuple):
    """A model or a layer of Keras.

    Attributes
    ----------
    name : Keras's name and version
    run : x (B, T, I), a mask (B, T) or None, and initial states or None to a list of outputs
    shape : the numbers of rows and steps that it is built for, None for any
    dtype : of the model's input; None for the layer's own
        tf-keras loses the mask of an input that it casts.
    """

    name: str
    run: Callable[[NDArray[Any], NDArray[np.bool_] | None, list[NDArray[Any]] | None], list[NDArray[Any]]]
    shape: tuple[int | None, int | None]
    dtype: np.dtype[Any] | None


def from_file(path: str, format_name: str, prefix: str | None, config: Any) -> Witness:
    """The whole model, or the layer that a prefix chooses. Files of Keras 2 are for tf-keras, Keras 2's successor."""
    model, version = keras_file.survey(path, config)
    module = "tf_keras" if major_version(version) == 2 else "keras"
    extras.require([module], "verify", "verify")
    _choose_backend()
    keras = importlib.import_module(module)
    with framework_errors(f"{module} {keras.__version__}"):
        loaded = _load(keras, path, format_name, config)
    shape = tuple(loaded.input_shape[:2]) if isinstance(loaded.input_shape, tuple) else (None, None)
    part = loaded
    if prefix is not None:
        (chosen,) = keras_file.choose(path, model, prefix)
        for name in chosen.names:
            part = part.get_layer(name)

    def run(x: NDArray[Any], mask: NDArray[np.bool_] | None, states: list[NDArray[Any]] | None) -> list[NDArray[Any]]:
        for layer in loaded.layers:
            if getattr(layer, "stateful", False):
                (layer.reset_state if hasattr(layer, "reset_state") else layer.reset_states)()
        options: dict[str, Any] = (
            {} if mask is None else {"mask": keras.ops.convert_to_tensor(mask) if hasattr(keras, "ops") else mask}
        )
        if states is not None:
            options["initial_state"] = [_state(keras, state) for state in states]
        y = part(_tensor(keras, x), **options)
        return [_array(keras, one) for one in (y if isinstance(y, list | tuple) else [y])]

    dtype = getattr(loaded.inputs[0].dtype, "name", loaded.inputs[0].dtype) if prefix is None else None
    return Witness(f"{module} {keras.__version__}", run, shape, None if dtype is None else np.dtype(dtype))


def _choose_backend() -> None:
    """Let Keras 3 take a backend that is installed, unless the user has chosen one."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "KERAS_BACKEND" not in os.environ:
        installed = [backend for backend, module in BACKENDS.items() if not extras.missing([module])]
        os.environ["KERAS_BACKEND"] = installed[0] if installed else "numpy"


def _load(keras: Any, path: str, format_name: str, config: Any) -> Any:
    """Load through a symbolic link, because Keras tells a file's format by the end of its name."""
    with tempfile.TemporaryDirectory() as folder:
        if format_name == "keras":
            link = os.path.join(folder, "model.keras")
        elif config is None or _is_legacy(path):
            link = os.path.join(folder, "model.h5")
        else:
            link = os.path.join(folder, "model.weights.h5")
        os.symlink(os.path.abspath(path), link)
        if config is None and format_name != "keras":
            config = _completed(path)
        if config is None:
            return keras.models.load_model(link, compile=False, safe_mode=True)
        model = keras.models.model_from_json(_json(config))
        model.load_weights(link)
        return model


def _completed(path: str) -> str | None:
    """The architecture in a file from before Keras's GRU had reset_after, which was then False; None of other files."""
    import h5py

    with h5py.File(path, "r") as file:
        text = file.attrs.get("model_config")
    parsed = None if text is None else json.loads(text)
    changed = False
    waiting = [parsed]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            settings = part.get("config")
            if part.get("class_name") == "GRU" and isinstance(settings, dict) and "reset_after" not in settings:
                settings["reset_after"], changed = False, True
        waiting += part.values() if isinstance(part, dict) else part if isinstance(part, list) else ()
    return json.dumps(parsed) if changed else None


def _is_legacy(path: str) -> bool:
    import h5py

    with h5py.File(path, "r") as file:
        return "layer_names" in file.attrs


def _json(config: Any) -> str:
    if isinstance(config, Mapping):
        return json.dumps(config)
    if isinstance(config, str) and config.lstrip().startswith("{"):
        return config
    with open(config, encoding="utf-8") as file:
        return file.read()


def _tensor(keras: Any, array: NDArray[Any]) -> Any:
    return keras.ops.convert_to_tensor(array) if hasattr(keras, "ops") else array


def _state(keras: Any, array: NDArray[Any]) -> Any:
    """An initial state; tf-keras takes no arrays of NumPy as such."""
    if hasattr(keras, "ops"):
        return keras.ops.convert_to_tensor(array)
    return importlib.import_module("tensorflow").convert_to_tensor(array)


def _array(keras: Any, tensor: Any) -> NDArray[Any]:
    return np.asarray(keras.ops.convert_to_numpy(tensor) if hasattr(keras, "ops") else tensor)
