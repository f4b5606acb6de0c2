"""Keras's configurations of models (parsed JSON) -> the chain of recurrent layers that they describe.

No weights and no files here: what a layer computes, its place, and under which names Keras stores its weights.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from ..spec import Activation, CellKind
from .keras import ACTIVATIONS, KERAS_2_HARD_SIGMOID

#: Keras's classes of layers and cells -> kind of cell.
LAYERS: dict[str, CellKind] = {
    "LSTM": "lstm",
    "GRU": "gru",
    "SimpleRNN": "rnn",
    "CuDNNLSTM": "lstm",
    "CuDNNGRU": "gru",
}
CELLS: dict[str, CellKind] = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "rnn"}

#: Layers that pass numbers and masks on at inference as they are.
IDENTITIES = frozenset(
    (
        "ActivityRegularization",
        "AlphaDropout",
        "Dropout",
        "GaussianDropout",
        "GaussianNoise",
        "Identity",
        "InputLayer",
        "SpatialDropout1D",
    )
)

MODELS = frozenset(("Functional", "Model", "Sequential"))

#: Policies -> what the engine computes in. A policy of mixed precision has float32 weights.
POLICIES = {
    "bfloat16": "float32",
    "float16": "float32",
    "float32": "float32",
    "float64": "float64",
    "mixed_bfloat16": "float32",
    "mixed_float16": "float32",
}

#: Layers used as activations, and the names of their parameter.
_PARAMETRIC = {"ELU": ("elu", ("alpha",)), "LeakyReLU": ("leaky_relu", ("negative_slope", "alpha"))}

MOST_NESTED = 8  # models inside models

Structure = Literal["layer", "cells", "bidirectional"]


@dataclass(frozen=True)
class Cell:
    """One recurrence in one direction.

    Attributes
    ----------
    kind, units, activation, recurrent_activation, use_bias : as of Keras's layer
    reset_after : GRU; None where the configuration is older than the option: the bias tells
    is_cudnn : whether it is of a CuDNN class, whose weights always have CuDNN's layout in files of Keras 2
    dtype : "float32" or "float64"; None where the configuration is older than the option
    group : the HDF5 group of Keras 3's weights, such as ``layers/lstm_1/cell/vars``
    """

    kind: CellKind
    units: int
    activation: Activation
    recurrent_activation: Activation
    use_bias: bool
    reset_after: bool | None
    is_cudnn: bool
    dtype: str | None
    group: str


@dataclass(frozen=True)
class Recurrence:
    """One of Keras's recurrent layers.

    Attributes
    ----------
    names : the layer's name, after those of the models that contain it
    class_name : as in Keras, such as ``Bidirectional``
    structure : "layer" has one cell, "cells" a stack of them, "bidirectional" the forward and the backward one
    group : its own place in Keras 3's files, such as ``layers/lstm_1``
    zero_output_for_mask : of a bidirectional layer without meaning: Keras sets it
    """

    names: tuple[str, ...]
    class_name: str
    structure: Structure
    cells: tuple[Cell, ...]
    group: str
    return_sequences: bool
    return_state: bool
    go_backwards: bool
    stateful: bool
    zero_output_for_mask: bool
    merge_mode: str | None = "concat"

    @property
    def name(self) -> str:
        return "/".join(self.names)


@dataclass(frozen=True)
class MaskLayer:
    """One of Keras's Masking layers."""

    names: tuple[str, ...]
    value: float


@dataclass
class Model:
    """What a configuration says.

    Attributes
    ----------
    chain : the recurrent and the masking layers from input to output, where the model is a chain of them
    recurrences : every recurrent layer that can be read, in the order of the configuration; prefix chooses one
    outputs : indices of the last layer's results that the model returns; None for its output alone
    unsupported : why the model as a whole is not read: other layers and their places, connections
    faults : what is damaged
    """

    chain: list[Recurrence | MaskLayer] = field(default_factory=list)
    recurrences: list[Recurrence] = field(default_factory=list)
    outputs: tuple[int, ...] | None = None
    unsupported: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    unread: dict[tuple[str, ...], str] = field(default_factory=dict)  # recurrent layers, and why they are not read


class _Fault(ValueError):
    """A configuration is damaged."""


class _Unsupported(ValueError):
    """A configuration is in order, but what it says is not read."""


#: Makes the exception of a reason, the layer's name before it.
Refusal = Callable[[str], _Unsupported]


def read_model(config: Any, version: str | None) -> Model:
    """Read the configuration of a whole model.

    Parameters
    ----------
    config : what the JSON of ``model.to_json()`` holds, or what ``model.get_config()`` gives
    version : the version of Keras that saved the file, None if it is not known
        It tells which function hard_sigmoid is; where it is None, options that one version alone writes tell.

    Returns
    -------
    Model : with every reason not to read it
    """
    model = Model()
    major = major_version(version)
    if version is not None and major is None:
        model.faults.append(f"keras_version is {_short(version)}, wanted a version such as '2.15.0'")
    elif major is not None and major < 2:
        model.unsupported.append(f"the file was saved by Keras {version}: load and save it with Keras 2 once")
    else:
        try:
            _read_layers(_as_model(config), _Context((), "", major, 0), model)
        except _Fault as fault:
            model.faults.append(str(fault))
        except _Unsupported as reason:
            model.unsupported.append(str(reason))
    names = [layer.names for layer in model.recurrences]
    twice = sorted({"/".join(name) for name in names if names.count(name) > 1}) if len(names) < 1000 else []
    if twice:
        model.faults.append(f"layers of the same name: {', '.join(map(repr, twice))}")
    return model


def major_version(version: str | None) -> int | None:
    """2 of "2.15.0" or "2.4.3-tf"; None if it is no version."""
    match = re.match(r"(\d{1,3})(\.|$)", version) if isinstance(version, str) else None
    return int(match[1]) if match else None


@dataclass(frozen=True)
class _Context:
    """The place of a list of layers: names of the models around it, its group, Keras's major version, depth."""

    names: tuple[str, ...]
    group: str
    major: int | None
    depth: int


def _as_model(config: Any) -> tuple[str, Any]:
    """Class name and configuration of a model; a bare configuration is known by what it holds."""
    if not isinstance(config, Mapping):
        raise _Fault(f"the configuration is {_short(config)}, wanted an object")
    if "class_name" in config:
        name = config["class_name"]
        if not isinstance(name, str) or name not in MODELS:
            raise _Unsupported(
                f"the model is of class {_short(name)}, whose layers its configuration does not list: wanted a "
                "Sequential or a Functional one"
            )
        return name, config.get("config")
    if "layers" not in config:
        raise _Fault(f"the configuration has {_short(sorted(map(str, config)))}, wanted class_name and config")
    return ("Functional" if "input_layers" in config else "Sequential"), config


def _read_layers(model_config: tuple[str, Any], context: _Context, model: Model) -> None:
    """Add the layers of a Sequential or Functional model."""
    class_name, config = model_config
    if context.depth > MOST_NESTED:
        raise _Unsupported(f"models are nested more than {MOST_NESTED} deep")
    layers = config if isinstance(config, list) else config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(layers, list):
        raise _Fault(f"the {class_name}'s configuration has no list of layers")
    entries = list(_entries(layers, context, model))
    found: dict[str, list[Recurrence | MaskLayer]] = {}
    for position, (entry, group) in enumerate(entries):
        where = f"(layer {position + 1} of {len(entries)}{_inside(context)})"
        found[entry.name] = _read_entry(entry, group, where, context, model)
    if class_name == "Sequential" or not isinstance(config, Mapping):
        for parts in found.values():
            model.chain += parts
    else:
        _read_graph(config, [entry for entry, _ in entries], found, context, model)


@dataclass(frozen=True)
class _Entry:
    class_name: str
    name: str
    config: Mapping[str, Any]
    nodes: Any
    custom: str | None  # where the class was registered, if it is the user's own


def _entries(layers: list[Any], context: _Context, model: Model) -> Iterator[tuple[_Entry, str]]:
    """The entries of a list of layers with the groups that Keras 3 stores them in, which count by class."""
    counts: dict[str, int] = {}
    for position, layer in enumerate(layers):
        if not isinstance(layer, Mapping) or not isinstance(layer.get("config"), Mapping | list):
            raise _Fault(f"layer {position + 1}{_inside(context)} is {_short(layer)}, wanted class_name and config")
        class_name, config = layer.get("class_name"), layer["config"]
        fields = config if isinstance(config, Mapping) else {}
        name = layer.get("name", fields.get("name"))
        if not isinstance(class_name, str) or not class_name:
            raise _Fault(f"layer {position + 1}{_inside(context)} has the class {_short(class_name)}, wanted a name")
        if name is None:
            name = f"{snake_case(class_name)}_{position}"
        if not isinstance(name, str):
            raise _Fault(f"layer {position + 1}{_inside(context)} has the name {_short(name)}, wanted a text")
        snake = snake_case(class_name)
        count = counts.get(snake, 0)
        counts[snake] = count + 1
        group = f"{context.group}layers/{snake}" + (f"_{count}" if count else "")
        registered = layer.get("registered_name")
        custom = registered if isinstance(registered, str) and ">" in registered else None
        yield (
            _Entry(
                class_name,
                name,
                fields if isinstance(config, Mapping) else {"layers": config},
                layer.get("inbound_nodes"),
                custom,
            ),
            group,
        )


def snake_case(name: str) -> str:
    """Keras's name of a class in its files: ``SimpleRNN`` is ``simple_rnn``.

    Examples
    --------
    >>> snake_case("CuDNNLSTM"), snake_case("StackedRNNCells")
    ('cu_dnnlstm', 'stacked_rnn_cells')
    """
    name = re.sub(r"\W+", "", name)
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _read_entry(entry: _Entry, group: str, where: str, context: _Context, model: Model) -> list[Recurrence | MaskLayer]:
    """What one layer adds to a chain; what cannot be read is added to the model's reasons."""
    names = (*context.names, entry.name)
    if entry.class_name in IDENTITIES and entry.custom is None:
        return []
    if entry.class_name in ("NotEqual", "Any") and entry.custom in (None, entry.class_name):
        return []  # Keras 3's mask of a Masking layer, written out; the graph is checked
    if entry.class_name in MODELS and entry.custom is None:
        inner = replace(context, names=names, group=f"{group}/", depth=context.depth + 1)
        before = len(model.chain)
        outputs = model.outputs
        _read_layers((entry.class_name, entry.config), inner, model)
        model.outputs = outputs
        chain = model.chain[before:]
        del model.chain[before:]
        return chain
    try:
        if entry.custom is not None:
            raise _Unsupported(f"{entry.custom} {'/'.join(names)!r} {where} is a class of the user's")
        if entry.class_name == "Masking":
            value = _get(entry.config, "mask_value", (int, float), "a number", 0.0)
            return [MaskLayer(names, float(value))]
        recurrence = _read_recurrence(entry, names, group, where, context)
    except _Fault as fault:
        model.faults.append(f"{entry.class_name} {'/'.join(names)!r} {where}: {fault}")
        return []
    except _Unsupported as reason:
        model.unsupported.append(str(reason))
        if entry.class_name in LAYERS or entry.class_name in ("Bidirectional", "RNN"):
            model.unread[names] = str(reason)
        return []
    model.recurrences.append(recurrence)
    return [recurrence]


def _read_recurrence(entry: _Entry, names: tuple[str, ...], group: str, where: str, context: _Context) -> Recurrence:
    title = f"{entry.class_name} {'/'.join(names)!r} {where}"

    def unsupported(reason: str) -> _Unsupported:
        return _Unsupported(f"{title} {reason}")

    structure: Structure = "layer"
    config, merge_mode = entry.config, "concat"
    if entry.class_name == "Bidirectional":
        structure = "bidirectional"
        directions = [_part(config, "layer")]
        if config.get("backward_layer") is not None:
            directions.append(_part(config, "backward_layer"))
        merge_mode = config.get("merge_mode", "concat")
        if merge_mode not in ("concat", "sum", "mul", "ave", None):
            raise _Fault(f"merge_mode is {_short(merge_mode)}, wanted concat, sum, mul, ave or null")
        options = [_run_options(part) for _, part in directions]
        if len(options) == 1:
            directions, options = directions * 2, [options[0], options[0] | {"go_backwards": True}]
        cells = []
        for (class_name, part), side in zip(directions, ("forward_layer", "backward_layer"), strict=True):
            found = _cells(class_name, part, f"{group}/{side}", context.major, unsupported)
            if len(found) > 1:
                raise unsupported("runs a stack of cells in two directions, which is not read")
            cells += found
        if options[0]["go_backwards"] or not options[1]["go_backwards"]:
            raise unsupported("has a forward layer that goes backwards, or a backward layer that does not")
        for name in ("return_sequences", "return_state", "stateful"):
            if options[0][name] != options[1][name]:
                raise _Fault(f"its two layers differ in {name}")
        if merge_mode not in ("concat", None) and cells[0].units != cells[1].units:
            raise _Fault(
                f"merge_mode is {merge_mode!r}, but its layers have {cells[0].units} and {cells[1].units} units"
            )
        run = options[0]
    else:
        cells = _cells(entry.class_name, config, group, context.major, unsupported)
        structure = "layer" if len(cells) == 1 else "cells"
        run = _run_options(config)
        if len(cells) > 1 and run["go_backwards"]:
            raise unsupported("runs a stack of cells with go_backwards, which is not read")
    if run.pop("time_major"):
        raise unsupported("has time_major, which is not read")
    return Recurrence(names, entry.class_name, structure, tuple(cells), group, **run, merge_mode=merge_mode)


def _run_options(config: Mapping[str, Any]) -> dict[str, bool]:
    options = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask", "time_major")
    return {option: _get(config, option, bool, "true or false", False) for option in options}


def _part(config: Mapping[str, Any], key: str) -> tuple[str, Mapping[str, Any]]:
    """Class name and configuration of an object inside a configuration."""
    value = config.get(key)
    class_name = value.get("class_name") if isinstance(value, Mapping) else None
    inner = value.get("config") if isinstance(value, Mapping) else None
    if not isinstance(class_name, str) or not isinstance(inner, Mapping):
        raise _Fault(f"{key} is {_short(value)}, wanted class_name and config")
    registered = value.get("registered_name") if isinstance(value, Mapping) else None
    return (registered if isinstance(registered, str) and ">" in registered else class_name), inner


def _cells(
    class_name: str, config: Mapping[str, Any], group: str, major: int | None, unsupported: Refusal
) -> list[Cell]:
    """The cells of LSTM, GRU, SimpleRNN, their CuDNN forms, or RNN."""
    if class_name in LAYERS:
        place = f"{group}/vars" if class_name.startswith("CuDNN") else f"{group}/cell/vars"
        return [_cell(LAYERS[class_name], class_name, config, place, major, unsupported)]
    if class_name != "RNN":
        raise unsupported("is not read" if class_name not in CELLS else "is a cell without RNN")
    cell = config.get("cell")
    inner: Mapping[str, Any]
    if isinstance(cell, list):  # as Keras 2 before 2.2 wrote a stack
        inner = {"cells": cell}
    else:
        cell_class, cell_config = _part(config, "cell")
        if cell_class in CELLS:
            return [_cell(CELLS[cell_class], cell_class, cell_config, f"{group}/cell/vars", major, unsupported)]
        if cell_class != "StackedRNNCells":
            raise unsupported(f"has a cell of class {cell_class!r}, which is not read")
        inner = cell_config
    stack = inner.get("cells")
    if not isinstance(stack, list) or not stack:
        raise _Fault(f"cells is {_short(stack)}, wanted a list")
    cells: list[Cell] = []
    counts: dict[str, int] = {}
    for i in range(len(stack)):
        cell_class, cell_config = _part({"cells": stack[i]}, "cells")
        if cell_class not in CELLS:
            raise unsupported(f"has a cell of class {cell_class!r}, which is not read")
        snake = snake_case(cell_class)
        count = counts.get(snake, 0)
        counts[snake] = count + 1
        place = f"{group}/cell/cells/{snake}" + (f"_{count}" if count else "") + "/vars"
        cells.append(_cell(CELLS[cell_class], cell_class, cell_config, place, major, unsupported))
    return cells


def _cell(
    kind: CellKind, class_name: str, config: Mapping[str, Any], group: str, major: int | None, unsupported: Refusal
) -> Cell:
    is_cudnn = class_name.startswith("CuDNN")
    units = _get(config, "units", int, "an integer")
    if units < 1:
        raise _Fault(f"units is {units}, wanted at least 1")
    activations = {"activation": ACTIVATIONS["tanh"], "recurrent_activation": ACTIVATIONS["sigmoid"]}
    if not is_cudnn:
        for name in ("activation", "recurrent_activation")[: 1 if kind == "rnn" else 2]:
            if name not in config:
                raise _Fault(f"{name} is missing")
            activations[name] = _activation(config[name], name, _major_of(config, major), unsupported)
    reset_after: bool | None = True
    if kind == "gru" and not is_cudnn:
        reset_after = _get(config, "reset_after", bool, "true or false", None)
    use_bias = True if is_cudnn else _get(config, "use_bias", bool, "true or false")
    return Cell(
        kind,
        units,
        **activations,
        use_bias=use_bias,
        reset_after=reset_after,
        is_cudnn=is_cudnn,
        dtype=_dtype(config, unsupported),
        group=group,
    )


def _major_of(config: Mapping[str, Any], major: int | None) -> int | None:
    """Keras's major version, of the file or by options that one version alone writes."""
    if major is not None:
        return major
    if "time_major" in config or "implementation" in config:
        return 2
    return 3 if "zero_output_for_mask" in config or "seed" in config else None


def _activation(value: Any, name: str, major: int | None, unsupported: Refusal) -> Activation:
    """An activation as a configuration has it: a name, null, or a layer that is used as a function."""
    if value is None:
        return ACTIVATIONS["linear"]
    if isinstance(value, Mapping):
        class_name, config = value.get("class_name"), value.get("config")
        if value.get("registered_name") in (None, class_name) and isinstance(config, Mapping):
            if isinstance(class_name, str) and class_name in _PARAMETRIC:
                ours, parameters = _PARAMETRIC[class_name]
                given = [config[key] for key in parameters if key in config]
                if given and type(given[0]) in (int, float):
                    return Activation.of(ours, float(given[0]))
            plain = config.get("max_value") is None and not (config.get("negative_slope") or config.get("threshold"))
            if class_name == "ReLU" and plain:
                return ACTIVATIONS["relu"]
        raise _unknown(value, name, unsupported)
    if not isinstance(value, str):
        raise _Fault(f"{name} is {_short(value)}, wanted a name")
    if value == "hard_sigmoid":
        if major is None:
            raise unsupported(
                f"has {name} hard_sigmoid, which is clip(0.2 x + 0.5) in Keras 2 and clip(x / 6 + 0.5) in Keras 3, and "
                "nothing tells which saved the file: put 'keras_version' into config"
            )
        return KERAS_2_HARD_SIGMOID if major == 2 else ACTIVATIONS["hard_sigmoid"]
    if value not in ACTIVATIONS:
        raise _unknown(value, name, unsupported)
    return ACTIVATIONS[value]


def _unknown(value: Any, name: str, unsupported: Refusal) -> _Unsupported:
    return unsupported(f"has {name} {_short(value)}, wanted one of {', '.join(sorted(ACTIVATIONS))}")


def _dtype(config: Mapping[str, Any], unsupported: Refusal) -> str | None:
    dtype = config.get("dtype")
    if isinstance(dtype, Mapping) and isinstance(dtype.get("config"), Mapping):
        dtype = dtype["config"].get("name")
    if dtype is None:
        return None
    if not isinstance(dtype, str) or dtype not in POLICIES:
        raise unsupported(f"has dtype {_short(config.get('dtype'))}, wanted one of {', '.join(sorted(POLICIES))}")
    return POLICIES[dtype]


_REQUIRED = object()


def _get(config: Mapping[str, Any], key: str, wanted: Any, what: str, default: Any = _REQUIRED) -> Any:
    """A field of a configuration; bool is no int here.

    Raises
    ------
    _Fault
        It is missing and has no default, or of another type.
    """
    value = config.get(key, default)
    if value is _REQUIRED:
        raise _Fault(f"{key} is missing")
    if value is default:
        return value
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise _Fault(f"{key} is {_short(value)}, wanted {what}")
    return value


@dataclass
class _Node:
    """How a layer of a Functional model is called: layers and indices of tensors that it takes, and the mask."""

    inputs: list[tuple[str, int]]
    mask: str | None
    others: list[str]  # arguments that are not read
    values: list[Any]  # of an operation


def _read_graph(
    config: Mapping[str, Any],
    entries: list[_Entry],
    found: dict[str, list[Recurrence | MaskLayer]],
    context: _Context,
    model: Model,
) -> None:
    """Add the layers of a Functional model to the chain, if each takes the output of the one before it."""
    inside = _inside(context)
    reasons: list[str] = []
    classes = {entry.name: entry.class_name for entry in entries}
    if len(classes) < len(entries):
        raise _Fault(f"layers of the same name{inside}")
    inputs = [entry.name for entry in entries if entry.class_name == "InputLayer"]
    if len(inputs) != 1:
        reasons.append(f"the model{inside} has {len(inputs)} inputs, wanted 1")
    source = {name: name for name in inputs}  # each tensor on the chain -> itself; masks -> their Masking layer
    masks: dict[str, str] = {}
    compared: dict[str, tuple[str, float]] = {}
    masked: dict[tuple[str, float], str] = {}  # tensor and value -> the Masking layer that masks it
    mask_now: dict[str, str | None] = dict.fromkeys(inputs)  # layer -> the Masking layer that its output's mask is of
    users: dict[str, list[str]] = {}
    explicit = any("args" in node for entry in entries for node in _as_list(entry.nodes) if isinstance(node, Mapping))
    chain: list[Recurrence | MaskLayer] = []
    nodes_of = {entry.name: _nodes(entry, inside) for entry in entries if entry.class_name != "InputLayer"}
    for name, nodes in nodes_of.items():
        for part in found[name]:
            if classes[name] == "Masking" and isinstance(part, MaskLayer) and len(nodes) == 1 and nodes[0].inputs:
                masked[nodes[0].inputs[0][0], part.value] = name
    for entry in entries:
        if entry.class_name == "InputLayer":
            continue
        nodes = nodes_of[entry.name]
        title = f"{entry.class_name} {entry.name!r}{inside}"
        if len(nodes) != 1:
            reasons.append(f"{title} is called {len(nodes)} times, wanted once")
            continue
        node = nodes[0]
        if entry.class_name == "NotEqual" and len(node.inputs) == 1:
            numbers = [value for value in node.values if type(value) in (int, float)]
            compared[entry.name] = (node.inputs[0][0], float(numbers[0]) if numbers else 0.0)
            continue
        if entry.class_name == "Any" and len(node.inputs) == 1 and node.inputs[0][0] in compared:
            if compared[node.inputs[0][0]] in masked:
                masks[entry.name] = masked[compared[node.inputs[0][0]]]
            continue
        if entry.class_name in ("NotEqual", "Any"):
            reasons.append(f"{title} is not read")
            continue
        if node.others:
            reasons.append(f"{title} is called with {', '.join(node.others)}, which is not read")
        if len(node.inputs) != 1 or node.inputs[0][0] not in source or node.inputs[0][1] != 0:
            taken_from = ", ".join(f"{name}[{index}]" for name, index in node.inputs[:5]) or "nothing"
            reasons.append(f"{title} takes {taken_from}, wanted the output of one layer before it")
            continue
        before = node.inputs[0][0]
        users.setdefault(before, []).append(entry.name)
        source[entry.name] = entry.name
        mask = mask_now.get(before)
        inner = entry.class_name in MODELS
        if inner and any(isinstance(part, MaskLayer) for part in found[entry.name]):
            reasons.append(f"{title} has a Masking layer inside, which is not read in a Functional model")
        if explicit and (inner or entry.class_name in LAYERS or entry.class_name in ("Bidirectional", "RNN")):
            given = masks.get(node.mask) if node.mask is not None else None
            if (node.mask is not None and given is None) or given != mask:
                reasons.append(f"{title} is called with another mask than that of the Masking layer before it")
        returns = all(part.return_sequences for part in found[entry.name] if isinstance(part, Recurrence))
        mask_now[entry.name] = entry.name if entry.class_name == "Masking" else mask if returns else None
        chain += found[entry.name]
    branching = sorted(name for name, after in users.items() if len(after) > 1)
    if branching:
        reasons.append(f"{', '.join(map(repr, branching[:5]))}{inside} goes into several layers: the model is no chain")
    ends = [name for name in source if name not in users]
    outputs = _outputs(config, inside)
    if len(ends) == 1 and outputs:
        recurrent = {name for name, parts in found.items() if any(isinstance(part, Recurrence) for part in parts)}
        if any(name != ends[0] for name, _ in outputs):
            states = all(name == ends[0] or (name in recurrent and index > 0) for name, index in outputs)
            what = "states of layers before the last" if states else "outputs of layers before the last"
            reasons.append(f"the model{inside} returns {what}")
        elif context.depth == 0:
            model.outputs = tuple(index for _, index in outputs)
    elif not reasons:
        reasons.append(f"the model{inside} has {len(ends)} ends, wanted 1")
    model.unsupported += reasons[:20]
    model.chain += chain


def _outputs(config: Mapping[str, Any], inside: str) -> list[tuple[str, int]]:
    outputs = config.get("output_layers")
    if isinstance(outputs, list) and outputs and isinstance(outputs[0], str):
        outputs = [outputs]
    if not isinstance(outputs, list) or not all(_is_history(output) for output in outputs):
        raise _Fault(f"output_layers{inside} is {_short(outputs)}, wanted [name, node, tensor]")
    return [(output[0], output[2]) for output in outputs]


def _is_history(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 3
        and isinstance(value[0], str)
        and type(value[1]) is int
        and type(value[2]) is int
    )


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _nodes(entry: _Entry, inside: str) -> list[_Node]:
    """The calls of a layer: Keras 3 writes args and kwargs, Keras 2 lists of [name, node, tensor, kwargs]."""
    if not isinstance(entry.nodes, list):
        raise _Fault(
            f"{entry.class_name} {entry.name!r}{inside} has inbound_nodes {_short(entry.nodes)}, wanted a list"
        )
    nodes = []
    for item in entry.nodes:
        node = _Node([], None, [], [])
        if isinstance(item, Mapping):
            for value in _as_list(item.get("args")):
                if history := _tensor(value):
                    node.inputs.append(history)
                elif isinstance(value, list | Mapping):
                    node.others.append("nested arguments")
                else:
                    node.values.append(value)
            kwargs = item.get("kwargs")
        elif isinstance(item, list):
            if item and isinstance(item[0], str):
                item = [item]
            kwargs = {}
            for call in item:
                if not _is_history(call):
                    raise _Fault(f"{entry.class_name} {entry.name!r}{inside} has a node {_short(call)}")
                node.inputs.append((call[0], call[2]))
                if len(call) > 3 and isinstance(call[3], Mapping):
                    kwargs |= call[3]
        else:
            raise _Fault(f"{entry.class_name} {entry.name!r}{inside} has a node {_short(item)}")
        for key, value in kwargs.items() if isinstance(kwargs, Mapping) else ():
            history = _tensor(value)
            if key == "mask" and history:
                node.mask = history[0]
            elif value is not None and value is not False:  # also training=True, which drops at inference
                node.others.append(str(key)[:40])
        nodes.append(node)
    return nodes


def _tensor(value: Any) -> tuple[str, int] | None:
    """Layer and index of a tensor in a node of Keras 3."""
    if not isinstance(value, Mapping) or value.get("class_name") != "__keras_tensor__":
        return None
    config = value.get("config")
    history = config.get("keras_history") if isinstance(config, Mapping) else None
    return (history[0], history[2]) if isinstance(history, list) and _is_history(history) else None


def _inside(context: _Context) -> str:
    return f" in {'/'.join(context.names)!r}" if context.names else ""


def _short(value: Any) -> str:
    """repr of a value of a file, short enough for a message."""
    if isinstance(value, list | Mapping) and len(value) > 20:
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, Mapping):
        return f"an object with {', '.join(sorted(map(str, value)))[:80]}"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 90 else f"{text[:90]}..."
