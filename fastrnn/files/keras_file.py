"""Files of Keras 2 and 3 (.keras, .h5, .weights.h5), read without Keras into what gives the same results."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..importers.keras import WEIGHTS, spec_from_weights
from ..importers.keras_config import read_model
from ..importers.keras_model import (
    Cell,
    Layer,
    MaskLayer,
    Model,
    Recurrence,
    recurrent_operations,
    sequence_faults,
)
from ..importers.keras_operations import Operation
from ..keras import Bidirectional, Masking, Sequential
from ..keras.recurrent import LAYERS, Recurrent
from ..models.spec import AnyOp, ModelSpec
from ..spec import NUM_GATES, LayerSpec
from . import hdf5
from .archive import BLOCK, Member, open_archive
from .json_text import parse_json
from .tensors import WIDENED, Tensor

#: Bytes of a configuration; a layer takes some two thousand.
MOST_CONFIG = 1 << 20

MOST_REASONS = 20  # in one message

ConfigLike = str | os.PathLike[str] | Mapping[str, Any]
Loaded = LayerSpec | ModelSpec | Recurrent | Bidirectional | Sequential

#: The arrays of a WeightGroup in its order, with the names that the file has for them; fewer where some are missing.
Arrays = list[tuple[str, Tensor]]


@dataclass
class _Source:
    """An open file: its configuration, the version of Keras that saved it, and where the weights are.

    Attributes
    ----------
    root : the HDF5 group that has the layers by name (Keras 2's .h5); None for Keras 3, which groups them by class
    is_own : whether the configuration is the file's own
    """

    path: str
    file: hdf5.File
    config: Any
    version: str | None
    root: str | None
    is_own: bool


def read(
    path: str, *, prefix: str | None = None, batch_first: bool | None = None, config: ConfigLike | None = None
) -> Loaded:
    """Read a file of Keras.

    Parameters
    ----------
    path : a .keras archive, an .h5 of a whole model or of weights, or a .weights.h5
    prefix : name of one recurrent layer, after the names of the models that contain it: "encoder/lstm"
        None for the whole model.
    batch_first : whether x and y of a LayerSpec or ModelSpec are (B, T, .) or (T, B, .); None is True
    config : the model's architecture, where the file has none: ``model.to_json()``, its path, ``model.get_config()``

    Returns
    -------
    LayerSpec : where a plain layer computes what the file says: one layer, a stack of equal ones, or a stack of
        Bidirectional ones that concatenate
    ModelSpec : where the model has other layers than recurrent ones and Masking
    SimpleRNN, LSTM, GRU, Bidirectional or Sequential of fastrnn.keras : everything else
        The other merge modes, go_backwards, stateful, Masking, and stacks of layers that differ.

    Raises
    ------
    ValueError
        The file is damaged, does not fit its configuration, or has no layer of that name.
    NotImplementedError
        The model has layers or options that are not read; the message names all of them.
    TypeError
        An argument is of another type.
    OSError
        The file cannot be read.
    """
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"prefix is {prefix!r}, wanted a str")
    if batch_first is not None and not isinstance(batch_first, bool):
        raise TypeError(f"batch_first is {batch_first!r}, wanted True or False")
    with ExitStack() as stack:
        source = _open(path, config, stack)
        model = read_model(source.config, source.version)
        chain = choose(path, model, prefix)
        arrays, faults = _find_arrays(source, chain)
        if prefix is None:
            faults += _surplus(source, chain)
        layouts, shape_faults = _check_shapes(chain, arrays)
        _refuse(path, faults + shape_faults)
        outputs = model.outputs if prefix is None else None
        return _build(path, chain, arrays, layouts, outputs, batch_first)


def survey(path: str, config: ConfigLike | None = None) -> tuple[Model, str | None]:
    """What a file's configuration says, and the version of Keras that saved it; no weights are read.

    Raises
    ------
    As of :func:`read`, where the file or the configuration is damaged.
    """
    with ExitStack() as stack:
        source = _open(path, config, stack)
        model = read_model(source.config, source.version)
        _refuse(path, model.faults)
        return model, source.version


def _refuse(path: str, reasons: Sequence[str], error: type[Exception] = ValueError) -> None:
    if reasons:
        more = f"; and {len(reasons) - MOST_REASONS} more" if len(reasons) > MOST_REASONS else ""
        raise error(f"{path}: {'; '.join(reasons[:MOST_REASONS])}{more}")


# Opening


def _open(path: str, config: ConfigLike | None, stack: ExitStack) -> _Source:
    file = stack.enter_context(open(path, "rb"))  # noqa: SIM115 - the stack closes it
    if file.read(2) == b"PK":
        return _open_archive(path, file, config, stack)
    h5 = hdf5.File(path, file)
    root = "model_weights" if h5.has_group("model_weights") else ""
    own = h5.text("", "model_config")
    is_legacy = h5.texts(root, "layer_names") is not None
    if not is_legacy and not any(map(h5.has_group, ("layers", "_layer_checkpoint_dependencies"))):
        some = ", ".join(map(repr, h5.children("", 5))) or "nothing"
        raise ValueError(f"{path} is an HDF5 file with {some}, wanted one that Keras saved")
    version = h5.text("", "keras_version") or h5.text(root, "keras_version")
    if own is not None:
        if config is not None:
            raise ValueError(f"config is given, but {path} has its own architecture")
        parsed, is_own = parse_json(path, own, "model_config"), True
    else:
        parsed, is_own = _take_config(path, config, h5), False
        if version is None and isinstance(parsed, Mapping):
            given = parsed.get("keras_version")
            version = given if isinstance(given, str) else None
    if is_legacy and version is None:
        version = "1"  # as Keras itself takes it
    return _Source(path, h5, parsed, version, root if is_legacy else None, is_own)


def _open_archive(path: str, file: BinaryIO, config: ConfigLike | None, stack: ExitStack) -> _Source:
    if config is not None:
        raise ValueError(f"config is given, but {path} has its own architecture")
    archive = open_archive(path, file)
    members = {info.filename: info for info in archive.infolist()}
    missing = [name for name in ("config.json", "model.weights.h5") if name not in members]
    if "model.weights.h5" in missing and "model.weights.json" in members:
        raise NotImplementedError(f"{path} has its weights in several files, which is not read: save it without shards")
    if missing:
        raise ValueError(f"{path} has no {' and no '.join(missing)}, wanted an archive that Keras saved")
    texts = {}
    for name in ("config.json", "metadata.json"):
        if name in members:
            if members[name].file_size > MOST_CONFIG:
                raise ValueError(f"{path}: {name} has {members[name].file_size} bytes, wanted at most {MOST_CONFIG}")
            texts[name] = parse_json(path, b"".join(_blocks(Member(path, archive, members[name]), members[name])), name)
    metadata = texts.get("metadata.json")
    version = metadata.get("keras_version") if isinstance(metadata, Mapping) else None
    if version is not None and not isinstance(version, str):
        raise ValueError(f"{path}: metadata.json has keras_version {version!r}, wanted a text")
    # HDF5 reads here and there, which a packed member cannot; the check sum is compared before.
    weights = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    info = members["model.weights.h5"]
    for block in _blocks(Member(path, archive, info), info):
        weights.write(block)
    return _Source(path, hdf5.File(path, weights), texts["config.json"], version, None, True)


def _blocks(member: Member, info: Any) -> Iterator[bytes]:
    for start in range(0, info.file_size, BLOCK):
        yield member.read(min(BLOCK, info.file_size - start))
    member.finish()


def _take_config(path: str, config: ConfigLike | None, h5: hdf5.File) -> Any:
    """A caller's configuration, parsed."""
    if config is None:
        some = ", ".join(map(repr, h5.children("layers", 10) or h5.texts("", "layer_names") or [])) or "none"
        raise ValueError(
            f"{path} has weights and no architecture (its layers: {some}): wanted config=, the model's to_json(), that "
            "text's path, or its get_config(); or one layer's, {'class_name': 'LSTM', 'config': layer.get_config()}"
        )
    if isinstance(config, Mapping):
        return config
    if isinstance(config, str) and config.lstrip().startswith("{"):
        return parse_json("config", config, "the text")
    if not isinstance(config, str | os.PathLike):
        raise TypeError(f"config is {type(config).__name__}, wanted a dict, JSON, or a path")
    with open(config, "rb") as file:
        text = file.read(MOST_CONFIG + 1)
    if len(text) > MOST_CONFIG:
        raise ValueError(f"config: {os.fspath(config)} has more than {MOST_CONFIG} bytes")
    return parse_json(str(os.fspath(config)), text, "config")


# Choosing


def choose(path: str, model: Model, prefix: str | None) -> list[Layer]:
    """The layers that are wanted, in the order in which they run.

    Raises
    ------
    ValueError, NotImplementedError
        There is none of that name, or the model has parts that are not read; the message has every reason.
    """
    _refuse(path, model.faults)
    names = ", ".join(repr(layer.name) for layer in model.recurrences[:MOST_REASONS]) or "none"
    if prefix is not None:
        wanted = prefix.rstrip("./")
        for compare in (lambda names: "/".join(names), lambda names: names[-1]):
            found = [layer for layer in model.recurrences if compare(layer.names) == wanted]
            unread = [reason for names_, reason in model.unread.items() if compare(names_) == wanted]
            if len(found) == 1 and not unread:
                return [found[0]]
            if len(unread) == 1 and not found:
                raise NotImplementedError(f"{path}: {unread[0]}")
        raise ValueError(f"{path}: no recurrent layer is called {wanted!r}, or several are, wanted one of {names}")
    reasons = list(model.unsupported)
    if not model.chain and not reasons:
        reasons.append("the model has no layer that does something")
    if reasons and model.recurrences:
        reasons = [*reasons[:MOST_REASONS], f"a recurrent layer alone is loaded by prefix=, one of {names}"]
    _refuse(path, reasons, NotImplementedError)
    _refuse(path, sequence_faults(model.chain))
    return model.chain


# Weights


def _find_arrays(source: _Source, chain: list[Layer]) -> tuple[list[list[Arrays]], list[str]]:
    """The arrays of every layer, by its WeightGroups, not yet read, and what is missing or surplus."""
    faults: list[str] = []
    find = _by_group if source.root is None else _by_name
    return [find(source, layer, faults) if layer.weights else [] for layer in chain], faults


def _by_group(source: _Source, layer: Layer, faults: list[str]) -> list[Arrays]:
    """Keras 3's groups, which are named by class and not by the layer's name."""
    assert not isinstance(layer, MaskLayer)
    file = source.file
    old = not file.has_group("layers")

    def place(group: str) -> str:  # Keras 2.12 to 2.15
        return "/".join("_layer_checkpoint_dependencies" if part == "layers" and old else part for part in parts(group))

    def parts(group: str) -> list[str]:
        return group.split("/")

    stored = file.text(f"{place(layer.group)}/vars", "name")
    if stored is not None and stored != layer.names[-1]:
        parent = place(layer.group).rsplit("/", 1)[0]
        others = {file.text(f"{parent}/{child}/vars", "name") for child in file.children(parent, 1000)}
        if source.is_own or layer.names[-1] in others:
            faults.append(f"{layer.group} is called {stored!r}, wanted {layer.names[-1]!r}: the layers are in disorder")
    found = []
    for weights in layer.weights:
        group = place(weights.place)
        arrays: Arrays = []
        count = len(weights.names)
        for i, part in enumerate(weights.names):
            tensor = file.tensor(f"{group}/{i}")
            if tensor is None:
                some = ", ".join(map(repr, file.children(group, 5))) or "nothing"
                hint = ": looks like use_bias=False" if part == "bias" else ""
                faults.append(f"{layer.name!r}: {group}/{i} ({part}) is missing, found {some}{hint}")
                break
            arrays.append((f"{group}/{i}", tensor))
        surplus = [name for name in file.children(group, 10) if name not in map(str, range(count))]
        if len(arrays) == count and surplus:
            hint = _bias_hint(weights.names, count + len(surplus))
            faults.append(f"{layer.name!r}: {group} has {', '.join(map(repr, surplus))} too many{hint}")
        found.append(arrays)
    return found


def _by_name(source: _Source, layer: Layer, faults: list[str]) -> list[Arrays]:
    """Keras 2's groups: a layer's arrays are under its name, those of inner models under the outermost model's."""
    file = source.file
    group = f"{source.root}/{layer.names[0]}" if source.root else layer.names[0]
    names = file.texts(group, "weight_names")
    if names is None:
        some = ", ".join(map(repr, (file.texts(source.root or "", "layer_names") or [])[:10])) or "none"
        faults.append(f"no weights of a layer {layer.names[0]!r}, found those of {some}")
        return [[] for _ in layer.weights]
    inner = set(layer.names[1:])
    names = [name for name in names if inner <= set(name.split("/"))]
    wanted = [part for weights in layer.weights for part in weights.names]
    if len(names) > len(wanted):  # a stateful layer's states follow them
        names = [name for name in names if _part(name) in (*WEIGHTS, *wanted)]
    if len(names) != len(wanted):
        hint = _bias_hint(layer.weights[0].names, len(names) // len(layer.weights))
        faults.append(f"{layer.name!r} has {len(names)} arrays, wanted {len(wanted)}: {', '.join(wanted)}{hint}")
        return [[] for _ in layer.weights]
    tensors = []
    for name, part in zip(names, wanted, strict=True):
        if _part(name) in (*WEIGHTS, *wanted) and _part(name) != part:
            faults.append(f"{layer.name!r} has {name!r} where {part} is wanted")
        tensor = file.tensor(f"{group}/{name}")
        if tensor is None:
            faults.append(f"{layer.name!r}: {name!r} is missing")
            return [[] for _ in layer.weights]
        tensors.append((name, tensor))
    found, start = [], 0
    for weights in layer.weights:
        found.append(tensors[start : start + len(weights.names)])
        start += len(weights.names)
    return found


def _bias_hint(names: Sequence[str], count: int) -> str:
    """The likely cause of another number of arrays than these names, behind a colon; "" if none is known."""
    if "kernel" in names and count == len(names) + 1 and "bias" not in names:
        return ": looks like use_bias=True"
    return ": looks like use_bias=False" if count == len(names) - 1 and "bias" in names else ""


def _part(name: str) -> str:
    """``kernel`` of "lstm/lstm_cell/kernel:0"."""
    return name.rsplit("/", 1)[-1].split(":")[0]


def _surplus(source: _Source, chain: list[Layer]) -> list[str]:
    """Layers with weights in the file that the configuration does not have."""
    file = source.file
    used = [layer for layer in chain if not isinstance(layer, MaskLayer)]
    if source.root is not None:
        outer = {layer.names[0] for layer in used}
        names = [name for name in file.texts(source.root, "layer_names") or [] if name not in outer]
        surplus = [
            name for name in names if file.texts(f"{source.root}/{name}" if source.root else name, "weight_names")
        ]
    else:
        root = "layers" if file.has_group("layers") else "_layer_checkpoint_dependencies"
        groups = {layer.group.split("/")[1] for layer in used}
        names = [name for name in file.children(root, 1000) if name not in groups]
        parts = ("cell", "forward_layer", "layer", "layers", "vars/0")
        surplus = [
            name
            for name in names
            if any(file.has_group(f"{root}/{name}/{part}") for part in parts) or file.children(f"{root}/{name}/vars", 1)
        ]
    return [f"the file has weights of {name!r}, which the configuration lacks" for name in surplus[:MOST_REASONS]]


# Shapes


@dataclass
class _Layout:
    """How to convert a cell's arrays."""

    is_cudnn: bool
    reset_after: bool
    input_size: int


def _check_shapes(chain: list[Layer], arrays: list[list[Arrays]]) -> tuple[list[list[_Layout]], list[str]]:
    """Compare the shapes with what the configuration says, and each layer's input with the output before it.

    Returns
    -------
    The layouts of each layer's cells, of none for a layer without, and the faults.
    """
    faults: list[str] = []
    layouts: list[list[_Layout]] = []
    width: int | None = None
    for layer, groups in zip(chain, arrays, strict=True):
        found: list[_Layout] = []
        if isinstance(layer, Recurrence):
            width = _check_recurrence(layer, groups, width, found, faults)
        elif isinstance(layer, Operation):
            width = _check_operation(layer, groups[0] if groups else [], width, faults)
        layouts.append(found)
    return layouts, faults


def _check_operation(layer: Operation, arrays: Arrays, width: int | None, faults: list[str]) -> int | None:
    """Check an operation that gets vectors of this width, None if it is not known; the width after it."""
    for (name, tensor), (part, sizes) in zip(arrays, layer.arrays, strict=False):  # some may be missing
        if width is None and None in sizes and len(sizes) == len(tensor.shape):
            width = tensor.shape[sizes.index(None)]
        wanted = tuple(width if size is None else size for size in sizes)
        if tensor.shape != wanted:
            faults.append(f"{layer.name!r}: {name} ({part}) has shape {tensor.shape}, wanted {wanted}")
        faults += _type_faults(layer, name, tensor)
    return width if layer.output_size is None else layer.output_size


def _type_faults(layer: Layer, name: str, tensor: Tensor) -> list[str]:
    if tensor.dtype in WIDENED:
        return []
    return [f"{layer.name!r}: {name} is of type {tensor.dtype}, wanted one of {', '.join(WIDENED)}"]


def _check_recurrence(
    layer: Recurrence, groups: list[Arrays], width: int | None, found: list[_Layout], faults: list[str]
) -> int:
    """Check a layer's cells, and add their layouts to `found`; the width of a step's vector after it."""
    for cell, given in zip(layer.cells, groups, strict=True):
        layout = _Layout(False, cell.reset_after is not False, 0)
        if given:
            layout = _check_cell(layer, cell, given, faults)
            if width is not None and layout.input_size != width:
                faults.append(f"{layer.name!r}: {given[0][0]} takes {layout.input_size} inputs, wanted {width}")
        found.append(layout)
        if layer.structure == "cells":
            width = cell.units
    if layer.structure == "bidirectional" and found[0].input_size != found[1].input_size:
        sizes = f"{found[0].input_size} and {found[1].input_size}"
        faults.append(f"{layer.name!r}: its directions take {sizes} inputs, wanted the same")
    units = [cell.units for cell in layer.cells]
    return sum(units) if layer.structure == "bidirectional" and layer.merge_mode == "concat" else units[-1]


def _check_cell(layer: Recurrence, cell: Cell, arrays: Arrays, faults: list[str]) -> _Layout:
    gates, H = NUM_GATES[cell.kind], cell.units
    columns = gates * H
    shapes = [tensor.shape for _, tensor in arrays]
    inputs = shapes[0][0] if len(shapes[0]) == 2 else 0
    bias = shapes[2] if len(shapes) > 2 else None
    reset_after = cell.reset_after
    if reset_after is None:  # the configuration is older than the option, unless the bias tells
        reset_after = bias is not None and bias in ((2, columns), (2 * columns,))
    is_cudnn = bias == (2 * columns,) and cell.kind != "rnn" and reset_after
    wanted: list[tuple[int, ...]] = [(inputs, columns), (H, columns)]
    if is_cudnn:
        wanted.append((2 * columns,))
    else:
        wanted.append((2, columns) if cell.kind == "gru" and reset_after else (columns,))
    for (name, _), shape, want, part in zip(arrays, shapes, wanted, WEIGHTS, strict=False):
        if shape != want:
            hint = _cause(cell, part, shape)
            faults.append(f"{layer.name!r}: {name} ({part}) has shape {shape}, wanted {want}{hint}")
    for name, tensor in arrays:
        faults += _type_faults(layer, name, tensor)
    return _Layout(bool(is_cudnn), bool(reset_after), inputs)


def _cause(cell: Cell, part: str, shape: tuple[int, ...]) -> str:
    """The likely cause of a shape, behind a colon; "" if none is known."""
    H = cell.units
    columns = NUM_GATES[cell.kind] * H
    if part == "bias":
        causes = {
            ("gru", (2, columns)): "reset_after=True",
            ("gru", (columns,)): "reset_after=False",
            ("gru", (2 * columns,)): "CuDNNGRU, which has reset_after=True",
        }
        cause = causes.get((cell.kind, shape))
        return f": looks like Keras's {cause}" if cause else ""
    if len(shape) == 2 and shape[0] == columns and (part == "kernel" or shape[1] == H) and shape[1] != columns:
        return ": looks transposed, as PyTorch has it"
    names = {"lstm": "an LSTM", "gru": "a GRU", "rnn": "a SimpleRNN"}
    if len(shape) == 2 and part == "recurrent_kernel":
        for kind, gates in NUM_GATES.items():
            if shape == (shape[0], gates * shape[0]) and shape[0]:
                return f": looks like {names[kind]} of {shape[0]} units"
    return ""


# Building


class _Stored(Sequence[NDArray[Any]]):
    """A cell's arrays, each read when it is asked for and not kept: memory for one at a time."""

    def __init__(self, arrays: Arrays) -> None:
        self._arrays = arrays

    def __len__(self) -> int:
        return len(self._arrays)

    def __getitem__(self, index: Any) -> Any:
        return self._arrays[index][1].read()


def _weights(cell: Cell, arrays: Arrays, layout: _Layout) -> Sequence[NDArray[Any]]:
    """A cell's arrays as Keras's get_weights() has them, CuDNN's layout undone."""
    if not layout.is_cudnn:
        return _Stored(arrays)
    weights = [tensor.read() for _, tensor in arrays]
    gates = NUM_GATES[cell.kind]
    weights[0] = np.hstack([part.T.reshape(part.shape, order="F") for part in np.hsplit(weights[0], gates)])
    weights[1] = np.hstack([part.T for part in np.hsplit(weights[1], gates)])
    biases = weights[2].reshape(2, -1)
    weights[2] = biases.sum(axis=0) if cell.kind == "lstm" else biases
    return weights


def _dtype(cell: Cell, arrays: Arrays) -> np.dtype[Any]:
    return np.dtype(cell.dtype or WIDENED[arrays[0][1].dtype])


def _build(
    path: str,
    chain: list[Layer],
    arrays: list[list[Arrays]],
    layouts: list[list[_Layout]],
    outputs: tuple[int, ...] | None,
    batch_first: bool | None,
) -> Loaded:
    described = list(zip(chain, arrays, layouts, strict=True))
    if any(isinstance(layer, Operation) for layer in chain):
        operations = [one for layer, groups, found in described for one in _operations(layer, groups, found)]
        try:
            return ModelSpec(tuple(operations), batch_first is not False).validate()
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    layers = [layer for layer in chain if isinstance(layer, Recurrence)]
    if _is_plain(chain, arrays):
        specs = [spec for layer, groups, found in described for spec in _specs(layer, groups, found)]
        cells = [cell for spec in specs for cell in spec.cells]
        first = layers[0]
        bidirectional = first.structure == "bidirectional"
        return LayerSpec(
            first.cells[0].kind,
            cells,
            layouts[0][0].input_size,
            first.cells[0].units,
            len(cells) // (2 if bidirectional else 1),
            bidirectional,
            batch_first=batch_first is not False,
        ).validate()
    if batch_first is False:
        raise ValueError(f"batch_first is False, but {path} is loaded as layers of fastrnn.keras, which have (B, T, .)")
    built: list[Recurrent | Bidirectional | Masking] = []
    for i, (layer, groups, found) in enumerate(described):
        if isinstance(layer, MaskLayer):
            built.append(Masking(layer.value))
        elif isinstance(layer, Recurrence):
            is_last = i == len(chain) - 1
            return_state = layer.return_state and is_last
            if is_last and outputs is not None:
                return_state = _returns_state(path, layer, outputs)
            built += _layers(layer, groups, found, return_state)
    return built[0] if len(built) == 1 and not isinstance(built[0], Masking) else Sequential(built)


def _is_plain(chain: list[Layer], arrays: list[list[Arrays]]) -> bool:
    """Whether one layer with PyTorch's meaning computes what the chain does."""
    kinds = set()
    for layer, groups in zip(chain, arrays, strict=True):
        if not isinstance(layer, Recurrence):
            return False
        if layer.go_backwards or layer.stateful or layer.merge_mode != "concat":
            return False
        for cell, given in zip(layer.cells, groups, strict=True):
            kinds.add((cell.kind, cell.units, layer.structure == "bidirectional", _dtype(cell, given)))
    return len(kinds) == 1


def _returns_state(path: str, layer: Recurrence, outputs: tuple[int, ...]) -> bool:
    """Whether a model returns all that its last layer does, or its output alone.

    Raises
    ------
    NotImplementedError
        It returns another part.
    """
    count = 2 if layer.merge_mode is None else 1
    states = sum(2 if cell.kind == "lstm" else 1 for cell in layer.cells)
    if outputs == tuple(range(count)):
        return False
    if layer.return_state and outputs == tuple(range(count + states)):
        return True
    raise NotImplementedError(
        f"{path}: the model returns the results {list(outputs)} of {layer.name!r}, wanted its output, or all it returns"
    )


def _operations(layer: Layer, groups: list[Arrays], layouts: list[_Layout]) -> list[AnyOp]:
    """The operations of a layer of a ModelSpec."""
    if isinstance(layer, Recurrence):
        return recurrent_operations(layer, _specs(layer, groups, layouts))
    assert isinstance(layer, Operation)
    arrays = zip(layer.weights[0].names, groups[0], strict=True) if groups else ()
    return layer.make({name: tensor.read() for name, (_, tensor) in arrays})


def _specs(layer: Layer, groups: list[Arrays], layouts: list[_Layout]) -> list[LayerSpec]:
    """The spec of each cell of a recurrent layer."""
    assert isinstance(layer, Recurrence)
    return [_describe(*given) for given in zip(layer.cells, groups, layouts, strict=True)]


def _describe(cell: Cell, arrays: Arrays, layout: _Layout) -> LayerSpec:
    return spec_from_weights(
        cell.kind,
        _weights(cell, arrays, layout),
        cell.units,
        activation=cell.activation,
        recurrent_activation=cell.recurrent_activation,
        use_bias=cell.use_bias,
        reset_after=layout.reset_after,
        dtype=_dtype(cell, arrays),
    )


def _layers(
    layer: Recurrence, arrays: list[Arrays], layouts: list[_Layout], return_state: bool
) -> list[Recurrent | Bidirectional]:
    """The layers that correspond to a layer of Keras: one, or for a stack of cells one for each cell."""
    made: list[Recurrent] = []
    for i, (cell, given, layout) in enumerate(zip(layer.cells, arrays, layouts, strict=True)):
        is_last = layer.structure != "cells" or i == len(layer.cells) - 1
        options: dict[str, Any] = {"reset_after": layout.reset_after} if cell.kind == "gru" else {}
        if cell.kind != "rnn":
            options["recurrent_activation"] = cell.recurrent_activation
        made.append(
            LAYERS[cell.kind](
                cell.units,
                activation=cell.activation,
                use_bias=cell.use_bias,
                return_sequences=layer.return_sequences if is_last else True,
                return_state=return_state and is_last,
                go_backwards=(i == 1) if layer.structure == "bidirectional" else layer.go_backwards,
                stateful=layer.stateful,
                zero_output_for_mask=layer.zero_output_for_mask and is_last,
                weights=list(_weights(cell, given, layout)),
                dtype=_dtype(cell, given),
                **options,
            )
        )
    if layer.structure == "bidirectional":
        return [Bidirectional(made[0], layer.merge_mode, backward_layer=made[1])]  # type: ignore[arg-type]
    return list(made)


def check_config(data: bytes) -> None:
    """Parse a configuration as if it were in a file, for fuzzing. Raises only ValueError."""
    if len(data) > MOST_CONFIG:
        raise ValueError("too long")
    config = parse_json("config", data, "config")
    for version in ("2.15.0", "3.5.0", None):
        read_model(config, version)
