"""State dicts as JSON: names and lists of numbers, as programs write them whose models other languages read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..spec import LayerSpec
from . import state_dict
from .json_text import parse_json
from .tensors import Tensor

#: Bytes of a file that is read: a million weights or more. Python's objects take some ten times that.
MOST_BYTES = 1 << 25


def read(path: str, **options: Any) -> LayerSpec:
    """Read a recurrent layer with PyTorch's names; `options` as ``state_dict.spec_from_tensors`` has them."""
    return state_dict.spec_from_tensors(path, tensors(path), **options)


def tensors(path: str) -> dict[str, Tensor]:
    """The arrays of an object of JSON, or of the objects in it, by their names; numbers become float32.

    Raises
    ------
    ValueError
        The file is too large, no JSON, or a description of a model in another form.
    """
    with open(path, "rb") as file:
        text = file.read(MOST_BYTES + 1)
    if len(text) > MOST_BYTES:
        raise ValueError(f"{path} is JSON of more than {MOST_BYTES} bytes: wanted the weights as npz or safetensors")
    content = parse_json(path, text, "the text")
    if isinstance(content, Mapping) and "class_name" in content:
        raise ValueError(f"{path} is a configuration of Keras without weights: it is for config=, beside their file")
    if isinstance(content, Mapping) and isinstance(content.get("layers"), list):
        raise ValueError(
            f"{path} has a list of layers, as RTNeural writes a model of Keras, wanted names such as weight_ih_l0: "
            "load the file that it was made from"
        )
    return state_dict.tensors_of_checkpoint(path, content, _arrays)


def _arrays(mapping: Mapping[Any, Any]) -> dict[str, Tensor]:
    found = {name: _array(value) for name, value in mapping.items() if isinstance(value, list)}
    return {
        name: Tensor(array.shape, "float32", partial(np.asarray, array))
        for name, array in found.items()
        if array is not None
    }


def _array(value: list[Any]) -> NDArray[np.float32] | None:
    """Lists of numbers as an array; None of other ones."""
    try:
        array = np.array(value)
    except ValueError:  # of unequal lengths
        return None
    return array.astype(np.float32) if array.dtype.kind in "if" else None
