"""Keras's configurations of models (parsed JSON) -> the chain of layers that they describe.

No weights and no files here: what a layer computes, its place, and under which names Keras stores its weights.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..spec import CellKind
from .keras import ACTIVATIONS
from .keras_fields import (
    Fault,
    Refusal,
    Unsupported,
    activation_of,
    custom_name,
    dtype_of,
    get,
    get_flag,
    get_number,
    get_object,
    major_of,
    major_version,
    short,
)
from .keras_model import Cell, Layer, MaskLayer, Model, Recurrence, Structure, mask_after, refusals
from .keras_operations import IDENTITIES, Operation, read_operation

#: Keras's classes of layers and cells -> kind of cell.
LAYERS: dict[str, CellKind] = {
    "LSTM": "lstm",
    "GRU": "gru",
    "SimpleRNN": "rnn",
    "CuDNNLSTM": "lstm",
    "CuDNNGRU": "gru",
}
CELLS: dict[str, CellKind] = {"LSTMCell": "lstm", "GRUCell": "gru", "SimpleRNNCell": "rnn"}

#: Classes of layers that compute something else where they are called with a mask.
TAKE_MASKS = frozenset((*LAYERS, "Bidirectional", "GlobalAveragePooling1D", "RNN", "Softmax"))

MODELS = frozenset(("Functional", "Model", "Sequential"))

_ACTIVATIONS = ("activation", "recurrent_activation")  # the second is not of SimpleRNN

MOST_NESTED = 8  # models inside models


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
        model.faults.append(f"keras_version is {short(version)}, wanted a version such as '2.15.0'")
    elif major is not None and major < 2:
        model.unsupported.append(f"the file was saved by Keras {version}: load and save it with Keras 2 once")
    else:
        try:
            _read_layers(_as_model(config), _Context((), "", major, 0), model)
        except Fault as fault:
            model.faults.append(str(fault))
        except Unsupported as reason:
            model.unsupported.append(str(reason))
    others = [layer for layer in model.chain if not isinstance(layer, Recurrence)]
    names = [layer.names for layer in (*model.recurrences, *others)]
    twice = sorted({"/".join(name) for name in names if names.count(name) > 1}) if len(names) < 1000 else []
    if twice:
        model.faults.append(f"layers of the same name: {', '.join(map(repr, twice))}")
    if not model.faults:
        model.unsupported += refusals(model)
    model.chain = [layer for layer in model.chain if not (isinstance(layer, Operation) and layer.mask == "ends")]
    return model


@dataclass(frozen=True)
class _Context:
    """The place of a list of layers: names of the models around it, its group, Keras's major version, depth."""

    names: tuple[str, ...]
    group: str
    major: int | None
    depth: int


def _as_model(config: Any) -> tuple[str, Any]:
    """Class name and configuration of a model; a bare configuration is known by what it holds.

    A recurrent layer alone is a model of one layer.
    """
    if not isinstance(config, Mapping):
        raise Fault(f"the configuration is {short(config)}, wanted an object")
    if "class_name" in config:
        name = config["class_name"]
        if isinstance(name, str) and (name in LAYERS or name in ("Bidirectional", "RNN")):
            return "Sequential", {"layers": [config]}
        if not isinstance(name, str) or name not in MODELS:
            raise Unsupported(
                f"the model is of class {short(name)}, whose layers its configuration does not list: wanted a "
                "Sequential or a Functional one"
            )
        return name, config.get("config")
    if "layers" not in config:
        raise Fault(f"the configuration has {short(sorted(map(str, config)))}, wanted class_name and config")
    return ("Functional" if "input_layers" in config else "Sequential"), config


def _read_layers(model_config: tuple[str, Any], context: _Context, model: Model) -> None:
    """Add the layers of a Sequential or Functional model."""
    class_name, config = model_config
    if context.depth > MOST_NESTED:
        raise Unsupported(f"models are nested more than {MOST_NESTED} deep")
    layers = config if isinstance(config, list) else config.get("layers") if isinstance(config, Mapping) else None
    if not isinstance(layers, list):
        raise Fault(f"the {class_name}'s configuration has no list of layers")
    entries = list(_entries(layers, context, model))
    if context.depth == 0:
        model.input_rank = _input_rank(layers, 0)
    found: list[list[Layer]] = []
    for position, (entry, group) in enumerate(entries):
        where = f"(layer {position + 1} of {len(entries)}{_inside(context)})"
        found.append(_read_entry(entry, group, where, context, model))
    if class_name == "Sequential" or not isinstance(config, Mapping):
        model.chain += [layer for parts in found for layer in parts]
    else:
        by_name = {entry.name: parts for (entry, _), parts in zip(entries, found, strict=True)}
        _read_graph(config, [entry for entry, _ in entries], by_name, context, model)


def _input_rank(layers: list[Any], depth: int) -> int | None:
    """The number of axes of the input of a list of layers, as its first layer says."""
    first = layers[0] if layers and isinstance(layers[0], Mapping) else {}
    config = first.get("config")
    if first.get("class_name") in MODELS and depth < MOST_NESTED:
        inner = config.get("layers") if isinstance(config, Mapping) else config
        return _input_rank(inner, depth + 1) if isinstance(inner, list) else None
    fields = config if isinstance(config, Mapping) else {}
    shape = fields.get("batch_shape", fields.get("batch_input_shape"))
    return len(shape) if isinstance(shape, list | tuple) else None


@dataclass(frozen=True)
class _Entry:
    class_name: str
    name: str
    config: Mapping[str, Any]
    nodes: Any
    custom: str | None  # the class's full name, if it is the user's own
    is_function: bool  # whether it is a function of keras.ops


def _entries(layers: list[Any], context: _Context, model: Model) -> Iterator[tuple[_Entry, str]]:
    """The entries of a list of layers with the groups that Keras 3 stores them in, which count by class."""
    counts: dict[str, int] = {}
    for position, layer in enumerate(layers):
        if not isinstance(layer, Mapping) or not isinstance(layer.get("config"), Mapping | list):
            raise Fault(f"layer {position + 1}{_inside(context)} is {short(layer)}, wanted class_name and config")
        class_name, config = layer.get("class_name"), layer["config"]
        fields = config if isinstance(config, Mapping) else {}
        name = layer.get("name", fields.get("name"))
        if not isinstance(class_name, str) or not class_name:
            raise Fault(f"layer {position + 1}{_inside(context)} has the class {short(class_name)}, wanted a name")
        if name is None:
            name = f"{snake_case(class_name)}_{position}"
        if not isinstance(name, str):
            raise Fault(f"layer {position + 1}{_inside(context)} has the name {short(name)}, wanted a text")
        snake = snake_case(class_name)
        count = counts.get(snake, 0)
        counts[snake] = count + 1
        group = f"{context.group}layers/{snake}" + (f"_{count}" if count else "")
        yield (
            _Entry(
                class_name,
                name,
                fields if isinstance(config, Mapping) else {"layers": config},
                layer.get("inbound_nodes"),
                custom_name(layer),
                ".ops" in str(layer.get("module")),
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


def _read_entry(entry: _Entry, group: str, where: str, context: _Context, model: Model) -> list[Layer]:
    """What one layer adds to a chain; what cannot be read is added to the model's reasons."""
    names = (*context.names, entry.name)
    if entry.class_name in IDENTITIES and entry.custom is None and not entry.is_function:
        ends_mask = entry.class_name == "Identity" and major_of(entry.config, context.major) != 3
        return [Operation(names, "Identity", group, None, lambda _: [], mask="ends")] if ends_mask else []
    if entry.class_name in ("NotEqual", "Any") and entry.custom in (None, entry.class_name):
        return []  # Keras 3's mask of a Masking or Embedding layer, written out; the graph is checked
    if entry.class_name in MODELS and entry.custom is None:
        inner = replace(context, names=names, group=f"{group}/", depth=context.depth + 1)
        before = len(model.chain)
        outputs = model.outputs
        _read_layers((entry.class_name, entry.config), inner, model)
        model.outputs = outputs
        chain = model.chain[before:]
        del model.chain[before:]
        return chain
    title = f"{'/'.join(names)!r} {where}"

    def unsupported(reason: str) -> Unsupported:
        return Unsupported(f"{entry.class_name} {title} {reason}")

    try:
        if entry.custom is not None:
            raise Unsupported(f"{entry.custom} {title} is a class of the user's")
        if entry.is_function:
            raise unsupported("is a function and no layer, which is not read")
        if entry.class_name == "Masking":
            return [MaskLayer(names, get_number(entry.config, "mask_value", 0.0))]
        if operation := _read_operation(entry, names, group, context, unsupported):
            return [operation]
        recurrence = _read_recurrence(entry, names, group, context, unsupported)
    except Fault as fault:
        model.faults.append(f"{entry.class_name} {title}: {fault}")
        return []
    except Unsupported as reason:
        model.unsupported.append(str(reason))
        if entry.class_name in LAYERS or entry.class_name in ("Bidirectional", "RNN"):
            model.unread[names] = str(reason)
        return []
    model.recurrences.append(recurrence)
    return [recurrence]


def _read_operation(
    entry: _Entry, names: tuple[str, ...], group: str, context: _Context, unsupported: Refusal
) -> Operation | None:
    try:
        return read_operation(entry.class_name, entry.config, names, group, context.major, unsupported)
    except Fault as fault:  # a recurrent layer beside it can be loaded all the same
        raise unsupported(f"is not read: {fault}") from None


def _read_recurrence(
    entry: _Entry, names: tuple[str, ...], group: str, context: _Context, unsupported: Refusal
) -> Recurrence:
    structure: Structure = "layer"
    config, merge_mode = entry.config, "concat"
    if entry.class_name == "Bidirectional":
        structure = "bidirectional"
        directions = [get_object(config, "layer")]
        if config.get("backward_layer") is not None:
            directions.append(get_object(config, "backward_layer"))
        merge_mode = config.get("merge_mode", "concat")
        if merge_mode not in ("concat", "sum", "mul", "ave", None):
            raise Fault(f"merge_mode is {short(merge_mode)}, wanted concat, sum, mul, ave or null")
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
                raise Fault(f"its two layers differ in {name}")
        if merge_mode not in ("concat", None) and cells[0].units != cells[1].units:
            raise Fault(
                f"merge_mode is {merge_mode!r}, but its layers have {cells[0].units} and {cells[1].units} units"
            )
        run = options[0] | {"unroll": options[1]["unroll"]}
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
    options = ("return_sequences", "return_state", "go_backwards", "stateful", "zero_output_for_mask", "unroll")
    return {option: get_flag(config, option, False) for option in (*options, "time_major")}


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
        cell_class, cell_config = get_object(config, "cell")
        if cell_class in CELLS:
            return [_cell(CELLS[cell_class], cell_class, cell_config, f"{group}/cell/vars", major, unsupported)]
        if cell_class != "StackedRNNCells":
            raise unsupported(f"has a cell of class {cell_class!r}, which is not read")
        inner = cell_config
    stack = inner.get("cells")
    if not isinstance(stack, list) or not stack:
        raise Fault(f"cells is {short(stack)}, wanted a list")
    cells: list[Cell] = []
    counts: dict[str, int] = {}
    for i in range(len(stack)):
        cell_class, cell_config = get_object({"cells": stack[i]}, "cells")
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
    needed = ["units"] if is_cudnn else ["units", "use_bias", *_ACTIVATIONS[: 1 if kind == "rnn" else 2]]
    if len(missing := [name for name in needed if name not in config]) > 1:
        raise Fault(f"{', '.join(missing[:-1])} and {missing[-1]} are missing")
    units = get(config, "units", int, "an integer")
    if units < 1:
        raise Fault(f"units is {units}, wanted at least 1")
    activations = {"activation": ACTIVATIONS["tanh"], "recurrent_activation": ACTIVATIONS["sigmoid"]}
    if not is_cudnn:
        for name in _ACTIVATIONS[: 1 if kind == "rnn" else 2]:
            if name not in config:
                raise Fault(f"{name} is missing")
            activations[name] = activation_of(config[name], name, major_of(config, major), unsupported)
    reset_after: bool | None = True
    if kind == "gru" and not is_cudnn:
        reset_after = get(config, "reset_after", bool, "true or false", None)
    use_bias = True if is_cudnn else get_flag(config, "use_bias")
    return Cell(
        kind,
        units,
        **activations,
        use_bias=use_bias,
        reset_after=reset_after,
        is_cudnn=is_cudnn,
        dtype=dtype_of(config, unsupported),
        group=group,
    )


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
    found: dict[str, list[Layer]],
    context: _Context,
    model: Model,
) -> None:
    """Add the layers of a Functional model to the chain, if each takes the output of the one before it."""
    inside = _inside(context)
    reasons: list[str] = []
    classes = {entry.name: entry.class_name for entry in entries}
    if len(classes) < len(entries):
        raise Fault(f"layers of the same name{inside}")
    inputs = [entry.name for entry in entries if entry.class_name == "InputLayer"]
    if len(inputs) != 1:
        reasons.append(f"the model{inside} has {len(inputs)} inputs, wanted 1")
    source = {name: name for name in inputs}  # each tensor on the chain -> itself
    masks: dict[str, str] = {}  # each tensor that is a mask -> the Masking or Embedding layer that it is of
    compared: dict[str, tuple[str, float]] = {}
    masked: dict[tuple[str, float], str] = {}  # tensor and value -> the Masking layer that masks it
    ids: dict[str, str] = {}  # tensor -> the Embedding layer that masks its zeros
    mask_now = dict.fromkeys(inputs, "")  # layer -> the layer that the mask of its output is of, "" for none
    users: dict[str, list[str]] = {}
    explicit = any("args" in node for entry in entries for node in _as_list(entry.nodes) if isinstance(node, Mapping))
    chain: list[Layer] = []
    nodes_of = {entry.name: _nodes(entry, inside) for entry in entries if entry.class_name != "InputLayer"}
    for name, nodes in nodes_of.items():
        for part in found[name] if classes[name] not in MODELS and len(nodes) == 1 and nodes[0].inputs else ():
            tensor = nodes[0].inputs[0][0]
            if isinstance(part, MaskLayer):
                masked[tensor, part.value] = part.name
            elif isinstance(part, Operation) and part.mask == "makes":
                ids[tensor] = part.name
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
            compared[entry.name] = tensor, value = node.inputs[0][0], numbers[0] if numbers else 0
            if value == 0 and tensor in ids:
                masks[entry.name] = ids[tensor]
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
        mask = mask_now[before]
        inner = entry.class_name in MODELS
        if inner and any(mask_after(part, "") for part in found[entry.name]):
            reasons.append(f"{title} makes a mask inside, which is not read in a Functional model")
        if explicit and (inner or entry.class_name in TAKE_MASKS):
            given = "" if node.mask is None else masks.get(node.mask, f"tensor {node.mask}")
            if given != mask:
                wanted = f"that of {mask!r}" if mask else "none"
                reasons.append(f"{title} is called with another mask than the layers before it have, wanted {wanted}")
        for part in found[entry.name]:
            mask = mask_after(part, mask)
        mask_now[entry.name] = mask
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
        raise Fault(f"output_layers{inside} is {short(outputs)}, wanted [name, node, tensor]")
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
        raise Fault(f"{entry.class_name} {entry.name!r}{inside} has inbound_nodes {short(entry.nodes)}, wanted a list")
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
                    raise Fault(f"{entry.class_name} {entry.name!r}{inside} has a node {short(call)}")
                node.inputs.append((call[0], call[2]))
                if len(call) > 3 and isinstance(call[3], Mapping):
                    kwargs |= call[3]
        else:
            raise Fault(f"{entry.class_name} {entry.name!r}{inside} has a node {short(item)}")
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
