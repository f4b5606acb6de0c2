"""What a file of any format holds: its recurrent layers, how each is chosen, and what is not supported and why.

Of safetensors, npz and TensorFlow 1's checkpoints only the tables are read: every layer is built on arrays of the right
shapes that take no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..files import (
    json_file,
    keras_file,
    native,
    npz,
    onnx_file,
    pytorch_file,
    safetensors_file,
    state_dict,
    tensorflow_file,
)
from ..files.load import SOURCES, find_source
from ..files.tensors import WIDENED, Tensor
from ..importers.pytorch import PREFIXED_NAME
from ..importers.tensorflow_checkpoint import Variable, choose, find_groups, spec_from_checkpoint, without_slots
from ..onnx.analysis import Part, analyse
from ..onnx.recurrent import choice_of, operator

#: What a reader raises where a layer is not supported or does not fit.
REFUSALS = (ValueError, TypeError, NotImplementedError)

#: Options that a file may need, each with a value that is as good as any other.
FILLERS: tuple[dict[str, Any], ...] = ({"forget_bias": 1.0}, {"nonlinearity": "tanh"})


@dataclass(frozen=True)
class Found:
    """A recurrent layer or model of a file.

    Attributes
    ----------
    choice : the options of `load` that choose it, such as {"prefix": "encoder."}; empty where it is the only one
    text : kind and sizes as the names and shapes tell them
    layer : its LayerSpec, ModelSpec or a layer of fastrnn.keras; None where it cannot be loaded
    needs : options without which it cannot be loaded; `layer` is then as with any value of them
    reasons : why it cannot be loaded
    """

    choice: dict[str, str]
    text: str
    layer: Any
    needs: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Survey:
    """What a file holds.

    Attributes
    ----------
    format : as in ``load.SOURCES``
    title : the format's name in words
    found : the recurrent layers, also those that cannot be loaded
    others : names and shapes of the arrays that belong to none of them; None where they are not listed
    unsupported : other parts of the file that are not read, and why
    parts : of a graph of ONNX, what runs where; None for other files
    """

    format: str
    title: str
    found: list[Found]
    others: dict[str, tuple[int, ...]] | None = None
    unsupported: list[str] = field(default_factory=list)
    parts: list[Part] | None = None


def survey(path: str, given: Mapping[str, Any]) -> Survey:
    """Look for recurrent layers.

    Parameters
    ----------
    path : the file
    given : options of the readers, as of ``fastrnn.load``; with `prefix` or `scope`, what is there alone

    Raises
    ------
    ValueError, TypeError, NotImplementedError
        The file is damaged, of an unknown format, or has no recurrent layer (under the prefix or scope).
    OSError, ModuleNotFoundError
        As of ``fastrnn.load``.
    """
    format_name = find_source(path, given)
    title = SOURCES[format_name].title
    if format_name == "native":
        return Survey(format_name, title, [Found({}, "", native.read(path))])
    if format_name in ("keras", "hdf5"):
        return Survey(format_name, title, *_keras(path, dict(given)))
    if format_name == "tensorflow":
        return Survey(format_name, title, *_tensorflow(path, dict(given)))
    if format_name == "onnx":
        return _onnx(path, title, dict(given))
    return Survey(format_name, title, *_named(path, tensors_of(path, format_name), dict(given)))


def tensors_of(path: str, format_name: str) -> dict[str, Tensor]:
    """The table of a file with PyTorch's names; the arrays cannot be read any more."""
    if format_name == "torch":
        return pytorch_file.tensors(path)
    if format_name == "json":
        return json_file.tensors(path)
    with open(path, "rb") as file:
        if format_name == "npz":
            return npz.tensors(path, file)
        return safetensors_file.tensors(safetensors_file.read_header(path, file), file, memoryview(b""))


def _named(
    path: str, tensors: dict[str, Tensor], given: dict[str, Any]
) -> tuple[list[Found], dict[str, tuple[int, ...]]]:
    prefix = given.pop("prefix", None)
    groups = state_dict.groups_of(tensors)
    chosen = [state_dict.choose(path, tensors, prefix)] if prefix is not None or not groups else [*groups.values()]
    empty = {name: Tensor(tensor.shape, tensor.dtype, _reader(tensor)) for name, tensor in tensors.items()}
    found = []
    for group in chosen:

        def read(prefix: str = group.prefix, **options: Any) -> Any:
            return state_dict.spec_from_tensors(path, empty, prefix=prefix, **options)

        found.append(_attempt(path, {"prefix": group.prefix} if len(groups) > 1 else {}, group.text, read, given))
    others = {name: tensor.shape for name, tensor in tensors.items() if not PREFIXED_NAME.fullmatch(name)}
    return found, others


def _reader(tensor: Tensor) -> Callable[[], NDArray[Any]]:
    return lambda: _zeros(tensor.shape, WIDENED[tensor.dtype])


def _zeros(shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """An array of zeros without memory of its own."""
    return np.broadcast_to(np.zeros((), dtype), shape)


def _tensorflow(path: str, given: dict[str, Any]) -> tuple[list[Found], dict[str, tuple[int, ...]]]:
    variables = tensorflow_file.variables_of(path)
    scope = given.pop("scope", None)
    groups = find_groups(variables, scope)
    if not groups:
        choose(path, variables, scope)  # raises, and lists what there is
    everything = find_groups(variables)

    def read_one(name: str) -> NDArray[Any]:
        variable: Variable = variables[name]
        return _zeros(variable.shape, np.float64 if variable.dtype == "float64" else np.float32)

    found = []
    for group in groups:

        def read(scope: str = group.scope, **options: Any) -> Any:
            return spec_from_checkpoint(path, variables, read_one, scope=scope, **options)

        choice = {"scope": group.scope} if len(everything) > 1 else {}
        found.append(_attempt(path, choice, group.describe(variables), read, given))
    used = {name for group in everything for cell in group.cells for name in cell.names.values()}
    return found, {name: variables[name].shape for name in without_slots(variables) if name not in used}


def _keras(path: str, given: dict[str, Any]) -> tuple[list[Found], None, list[str]]:
    config, prefix = given.get("config"), given.get("prefix")
    model, _ = keras_file.survey(path, config)
    unread = dict(model.unread)
    unsupported = [reason for reason in model.unsupported if reason not in unread.values()]

    def read(**options: Any) -> Any:
        return keras_file.read(path, **options)

    found = []
    if prefix is not None:
        found.append(_attempt(path, {"prefix": prefix}, "", read, given))
        return found, None, unsupported
    if not (model.recurrences or unread or model.has_operations):
        read(**given)  # raises, with every reason
    if not model.unsupported:
        found.append(_attempt(path, {}, "the whole model", read, given))
    if model.unsupported or model.has_operations or len(model.recurrences) > 1:
        for layer in model.recurrences:
            choice = {"prefix": layer.name}
            found.append(_attempt(path, choice, f"{layer.class_name} {layer.name!r}", read, given | choice))
    for names, reason in unread.items():
        found.append(Found({"prefix": "/".join(names)}, "", None, reasons=[reason]))
    return found, None, unsupported


def _onnx(path: str, title: str, given: dict[str, Any]) -> Survey:
    """The whole graph, and each of its recurrent nodes; no session of onnxruntime is made."""
    if "prefix" in given:
        choice = {"prefix": given["prefix"]}
        return Survey("onnx", title, [_attempt(path, choice, "", lambda **given: onnx_file.read(path, **given), given)])
    analysis = analyse(onnx_file.read_whole(path))
    unsupported, parts = list(analysis.elsewhere), list(analysis.parts)
    if analysis.chain is not None and not analysis.why_not_sequential:
        return Survey("onnx", title, [Found({}, "", analysis.chain.spec)], None, unsupported, parts)
    found = [Found({}, f"the whole graph; no Sequential: {analysis.why_not_sequential}", None)]
    nodes = [call.node for call in analysis.recurrent.values()]
    for call in analysis.recurrent.values():
        reasons = [] if call.spec is not None else ["its weights come with each call"]
        choice = {"prefix": choice_of(call.node, nodes)}
        found.append(Found(choice, operator(call.node), call.spec, reasons=reasons))
    return Survey("onnx", title, found, None, unsupported, parts)


def _attempt(path: str, choice: dict[str, str], text: str, read: Callable[..., Any], given: Mapping[str, Any]) -> Found:
    """Load a layer; if options are missing, with values that are as good as any other."""
    try:
        return Found(choice, text, read(**given))
    except REFUSALS as error:
        reason = str(error).removeprefix(f"{path}: ")
    layers: list[tuple[Any, Sequence[str]]] = []
    for filler in FILLERS:
        if filler.keys() & given.keys():
            continue
        try:
            layers.append((read(**given, **filler), list(filler)))
        except REFUSALS:
            continue
    needs = [" or ".join(name for _, names in layers for name in names)] if layers else []
    return Found(choice, text, layers[0][0] if len(layers) == 1 else None, needs, [reason])
