"""Names of a TensorFlow 1 checkpoint -> the recurrent cells in it -> LayerSpec. TensorFlow itself is never imported.

Nothing is read before names, shapes and types are checked: what these functions take is a checkpoint's table of
variables, and a function that reads one of them.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..spec import Activation, CellKind, CellSpec, LayerSpec
from .tensorflow import shapes_of, spec_from_variables

Reader = Callable[[str], NDArray[Any]]

#: Cells that are read, by the name that TensorFlow gives to their scope.
KINDS: dict[str, CellKind] = {
    "basic_rnn_cell": "rnn",
    "basic_lstm_cell": "lstm",
    "lstm_cell": "lstm",  # also of LSTMBlockCell
    "lstm_block_cell": "lstm",
    "lstm_block_wrapper": "lstm",  # LSTMBlockFusedCell, later lstm_fused_cell
    "lstm_fused_cell": "lstm",
    "cudnn_compatible_lstm_cell": "lstm",
    "gru_cell": "gru",
    "gru_block_cell": "gru",
    "gru_block_cell_v2": "gru",
    "cudnn_compatible_gru_cell": "gru",
}

#: Cells and wrappers of TensorFlow with equations of their own.
OTHERS = re.compile(
    r"ugrnn_cell|nas_rnn|nas_cell|intersection_rnn_cell|layer_norm_\w*lstm_cell|coupled_input_forget_gate_lstm_cell|"
    r"time_freq_lstm_cell|\w*grid_lstm_cell|phased_lstm_cell|glstm_cell|sru_cell|conv\w*_lstm_cell|\w+_wrapper"
)

#: Names of variables -> those since TensorFlow 1.2. Of 1.0 and 1.1: weights and biases; of 0.x: with capitals.
NAMES: dict[str, str] = {
    "kernel": "kernel",
    "weights": "kernel",
    "Linear/Matrix": "kernel",
    "W_0": "kernel",
    "bias": "bias",
    "biases": "bias",
    "Linear/Bias": "bias",
    "B": "bias",
    "gates/kernel": "gates/kernel",
    "gates/weights": "gates/kernel",
    "Gates/Linear/Matrix": "gates/kernel",
    "w_ru": "gates/kernel",  # GRUBlockCell
    "gates/bias": "gates/bias",
    "gates/biases": "gates/bias",
    "Gates/Linear/Bias": "gates/bias",
    "b_ru": "gates/bias",
    "candidate/kernel": "candidate/kernel",
    "candidate/weights": "candidate/kernel",
    "Candidate/Linear/Matrix": "candidate/kernel",
    "w_c": "candidate/kernel",
    "candidate/bias": "candidate/bias",
    "candidate/biases": "candidate/bias",
    "Candidate/Linear/Bias": "candidate/bias",
    "b_c": "candidate/bias",
    "projection/kernel": "projection/kernel",
    "projection/weights": "projection/kernel",
    "W_P_0": "projection/kernel",
    **{f"{w}_{gate}_diag": f"w_{gate.lower()}_diag" for w, gates in (("w", "ifo"), ("W", "IFO")) for gate in gates},
    **{
        f"candidate/{side}_projection/{part}": f"candidate/{side}_projection/{part}"
        for side in ("input", "hidden")
        for part in ("kernel", "bias")
    },
}

#: What optimisers and averages add to a variable's name.
SLOT = re.compile(
    r"(Adam|AdamW|Adamax|Nadam|LAMB|Lamb|Momentum|RMSProp|Adagrad|AdagradDA|Adadelta|Ftrl|ExponentialMovingAverage|"
    r"AddSign|PowerSign|gradient_\w*accumulator|\w*[Oo]ptimizer)(_\d+)?"
)

#: Counters of training; and CudnnLSTM's two biases, whose sum is the bias.
COUNTERS = re.compile(r"global_step|local_step|save_counter|beta[12]_power(_\d+)?|biased|bias_cudnn[_ ][01]")

DRIVER = re.compile(r"(stack_)?(bidirectional_|bi_)?rnn(_\d+)?|\w+_wrapper(_\d+)?")
BOTH_WAYS = re.compile(r"(bidirectional|bi)_rnn(_\d+)?")
STACK = re.compile(r"multi_rnn_cell(_\d+)?")
ENTRY = re.compile(r"cell_?(\d{1,6})")
CAPITALS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")

TYPES = ("float16", "bfloat16", "float32", "float64")

MOST_LISTED = 20


class Variable(NamedTuple):
    """What a checkpoint's table says of a variable."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class FoundCell:
    """A cell of a checkpoint.

    Attributes
    ----------
    scope : such as ``rnn/multi_rnn_cell/cell_0/lstm_cell``
    kind : None where the cell has a name of its own, which does not tell
    names : TensorFlow 1.2's names, such as ``kernel``, to the checkpoint's
    base : the scope of the function that runs the cell, such as ``rnn``
    outer : its place in a ``stack_bidirectional_rnn``, or None
    direction : "", "fw" or "bw"
    inner : its place in a MultiRNNCell, in one inside that, ...
    """

    scope: str
    kind: CellKind | None
    names: dict[str, str]
    base: str
    outer: int | None
    direction: str
    inner: tuple[int, ...]

    @property
    def is_cudnn(self) -> bool:
        return _snake(self.scope.rpartition("/")[2]).startswith("cudnn_compatible")

    @property
    def resets_after(self) -> bool:
        """A GRU of cuDNN's kind: the reset is after the matmul."""
        return "candidate/hidden_projection/kernel" in self.names


@dataclass(frozen=True)
class Group:
    """Cells that run together: one layer, if they are alike.

    Attributes
    ----------
    scope : what chooses it
    cells : in the order of ``LayerSpec.cells``
    faults : why they are not one layer
    """

    scope: str
    cells: tuple[FoundCell, ...]
    num_layers: int = 1
    bidirectional: bool = False
    reverse: bool = False
    faults: list[str] = field(default_factory=list)

    def describe(self, variables: Mapping[str, Variable]) -> str:
        """Kind and sizes, such as "LSTM of 5 inputs, 16 units, both directions"."""
        texts = [_describe(cell, variables) for cell in self.cells]
        last = self.cells[-1]
        sizes = _sizes(last, last.kind, variables) if last.kind else None
        alike = (
            len({(cell.kind, text.partition("inputs")[2]) for cell, text in zip(self.cells, texts, strict=True)}) == 1
        )
        if not alike or sizes is None:
            return ", then ".join(texts[:4]) + (", ..." if len(texts) > 4 else "")
        layers = f", {self.num_layers} layers" if self.num_layers > 1 else ""
        return texts[0] + layers + (", both directions" if self.bidirectional else ", backward" if self.reverse else "")


class Sizes(NamedTuple):
    """Sizes I, H and P of a cell."""

    inputs: int
    units: int
    outputs: int
    projects: bool


def without_slots(names: Iterable[str]) -> list[str]:
    """The names that are no optimiser's slots, averages or counters.

    Examples
    --------
    >>> without_slots(["rnn/kernel", "rnn/kernel/Adam_1", "rnn/kernel/my_slot", "beta1_power"])
    ['rnn/kernel']
    """
    everything = set(names)

    def is_slot(name: str) -> bool:
        last = name.rpartition("/")[2]
        if SLOT.fullmatch(last) or COUNTERS.fullmatch(last):
            return True
        return any(above in everything for above in _above(name))

    return sorted(name for name in everything if not is_slot(name))


def find_cells(names: Iterable[str], scope: str | None = None) -> list[FoundCell]:
    """The recurrent cells among a checkpoint's variables.

    Parameters
    ----------
    names : of all variables
    scope : only cells at it and below it; what is exactly there is a cell, whatever its name

    Examples
    --------
    >>> names = ["a/rnn/lstm_cell/kernel", "a/rnn/lstm_cell/bias", "a/dense/kernel", "a/dense/bias"]
    >>> [(cell.scope, cell.kind, cell.base) for cell in find_cells(names)]
    [('a/rnn/lstm_cell', 'lstm', 'a/rnn')]
    """
    scope = None if scope is None else scope.strip("/")
    leaves: dict[str, dict[str, str]] = {}
    for name in without_slots(names):
        parts = name.split("/")
        for count in (3, 2, 1):  # candidate/input_projection/kernel before kernel
            known = NAMES.get("/".join(parts[-count:])) if len(parts) >= count else None
            if known is not None:
                leaves.setdefault("/".join(parts[:-count]), {})[known] = name
                break
    cells = []
    for path, found in leaves.items():
        if not found.keys() & {"kernel", "gates/kernel"} or not (
            scope is None or f"{path}/".startswith(f"{scope}/" if scope else "")
        ):
            continue
        cell = _place(path, found)
        if _is_cell(cell) or path == scope:
            cells.append(cell)
    return cells


def find_groups(names: Iterable[str], scope: str | None = None) -> list[Group]:
    """The cells of a checkpoint, those that run together side by side; see :func:`find_cells`."""
    wanted = None if scope is None else scope.strip("/")
    together: dict[Any, list[FoundCell]] = {}
    for cell in find_cells(names, scope):
        together.setdefault((cell.base, cell.outer is None, bool(cell.direction), bool(cell.inner)), []).append(cell)
    apart: list[list[FoundCell]] = []
    for cells in together.values():
        places = Counter((cell.outer, cell.direction, cell.inner) for cell in cells)
        apart += [[cell] for cell in cells] if max(places.values()) > 1 else [cells]
    below = Counter(above for cells in apart for above in (*_above(cells[0].base), cells[0].base))
    groups = []
    for cells in apart:
        base = cells[0].base
        name = base if base and below[base] == 1 else _common([cell.scope for cell in cells])
        groups.append(_arrange(name, cells, wanted))
    return groups


def choose(path: str, variables: Mapping[str, Variable], scope: str | None) -> Group:
    """The one group at a scope, or of the checkpoint.

    Parameters
    ----------
    path : of the checkpoint, for messages
    scope : None where there is only one

    Raises
    ------
    TypeError, ValueError
        There is none, or there are several; the message lists them.
    """
    if scope is not None and not isinstance(scope, str):
        raise TypeError(f"scope is {scope!r}, wanted a str")
    groups = find_groups(variables, scope)
    if len(groups) == 1:
        return groups[0]
    where = f" under scope {scope!r}" if scope else ""
    if groups:
        found = f"has {len(groups)} recurrent layers{where}, wanted scope= to choose"
        raise ValueError(f"{path} {found}: {_list(groups, variables)}")
    if everything := find_groups(variables):
        raise ValueError(f"{path} has no recurrent cell{where}, but {_list(everything, variables)}")
    raise ValueError(f"{path} has no recurrent cell of TensorFlow 1: {_looks(variables)}")


def choose_cell(
    path: str, variables: Mapping[str, Variable], scope: str | None, kind: CellKind, resets_after: bool = False
) -> FoundCell:
    """The one cell of a kind at a scope, or of the checkpoint, whose variables have been checked.

    Raises
    ------
    ValueError
        There is none, there are several, or variables do not fit; the message lists them.
    """
    cells = [cell for cell in find_cells(variables, scope) if cell.kind in (kind, None)]
    where = f" under scope {scope!r}" if scope else ""
    if len(cells) != 1:
        shown = [Group(cell.scope, (cell,)) for cell in cells or find_cells(variables)]
        listed = f": {_list(shown, variables)}" if shown else f": {_looks(variables)}"
        raise ValueError(f"{path} has {len(cells) or 'no'} {kind.upper()} cells{where}, wanted one{listed}")
    (cell,) = cells
    faults = check_group(Group(cell.scope, (cell,)), variables, [kind], cell.scope)
    if cell.resets_after != resets_after:
        wanted, other = ("CudnnCompatibleGRUCell", "GRUCell")[:: 1 if cell.resets_after else -1]
        faults.append(f"{cell.scope} is a {wanted}, not a {other}: their resets differ")
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults)}")
    return cell


def check_group(
    group: Group, variables: Mapping[str, Variable], kinds: Sequence[CellKind | None], scope: str | None = None
) -> list[str]:
    """What of the cells' variables is missing, surplus or misshapen, of these kinds; nothing is read."""
    faults: list[str] = []
    for cell, kind in zip(group.cells, kinds, strict=True):
        component = _snake(cell.scope.rpartition("/")[2])
        if OTHERS.fullmatch(component):
            faults.append(f"{cell.scope} is a {component}, which is not read")
        elif kind is not None:
            faults += _cell_faults(cell, kind, variables)
    return faults + [f"{name} is surplus" for name in _surplus(group, variables, scope)][:MOST_LISTED]


class CellVariables(Mapping[str, NDArray[Any]]):
    """The arrays of a cell under TensorFlow 1.2's names, read when they are asked for and not kept."""

    def __init__(self, cell: FoundCell, read: Reader) -> None:
        self._names, self._read = cell.names, read

    def __getitem__(self, known: str) -> NDArray[Any]:
        array = self._read(self._names[known])
        return array.astype(np.float32) if array.dtype.name == "bfloat16" else array

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def spec_from_checkpoint(
    path: str,
    variables: Mapping[str, Variable],
    read: Reader,
    *,
    scope: str | None = None,
    nonlinearity: Literal["tanh", "relu"] | None = None,
    batch_first: bool | None = None,
    forget_bias: float | None = None,
) -> LayerSpec:
    """Build the layer that a checkpoint's cells are.

    Assumed, because a checkpoint does not say it: no cell_clip and no proj_clip, the activation tanh of an LSTM and a
    GRU, no ResidualWrapper, and cells of a MultiRNNCell that feed each other.

    Parameters
    ----------
    path : of the checkpoint, for messages
    variables : its table
    read : gives the array of a name
    scope : which cells: those at this scope and below; None where there is only one layer
    nonlinearity : of a BasicRNNCell, which needs it
    batch_first : whether x and y are (B, T, .) or (T, B, .); None is True
    forget_bias : what an LSTM's forget gate adds at run time; an LSTM needs it, cuDNN's has none

    Raises
    ------
    TypeError, ValueError
        There is no such layer, there are several, or it does not fit; the message has every reason.

    Examples
    --------
    >>> arrays = {"rnn/lstm_cell/kernel": np.zeros((5, 8), "f4"), "rnn/lstm_cell/bias": np.zeros(8, "f4")}
    >>> table = {name: Variable(array.shape, str(array.dtype)) for name, array in arrays.items()}
    >>> spec = spec_from_checkpoint("model.ckpt", table, arrays.get, forget_bias=1.0)
    >>> spec.kind, spec.input_size, spec.hidden_size
    ('lstm', 3, 2)
    """
    if forget_bias is not None and (
        isinstance(forget_bias, bool) or not isinstance(forget_bias, (int, float, np.number))
    ):
        raise TypeError(f"forget_bias is {forget_bias!r}, wanted a number, such as TensorFlow's default 1.0")
    if forget_bias is not None and not np.isfinite(forget_bias):
        raise ValueError(f"forget_bias is {forget_bias!r}, wanted a finite number")
    if nonlinearity not in (None, "tanh", "relu"):
        raise ValueError(f"nonlinearity is {nonlinearity!r}, wanted 'tanh' or 'relu'")
    if batch_first is not None and not isinstance(batch_first, (bool, np.bool_)):
        raise TypeError(f"batch_first is {batch_first!r}, wanted True or False")
    group = choose(path, variables, scope)
    told: CellKind | None = "lstm" if forget_bias is not None else "rnn" if nonlinearity is not None else None
    kinds = [cell.kind or told for cell in group.cells]
    faults = check_group(group, variables, kinds, scope) + group.faults
    if len({kind for kind in kinds if kind}) < 2:
        faults += _option_faults(group, kinds, nonlinearity, forget_bias)
    if not faults:
        faults += _chain_faults(group, kinds, variables)
    if faults:
        raise ValueError(f"{path}: {'; '.join(dict.fromkeys(faults))}")
    kind = kinds[0]
    assert kind is not None
    cells = [_cell_spec(cell, kind, variables, read, nonlinearity, forget_bias or 0.0) for cell in group.cells]
    first = _sizes(group.cells[0], kind, variables)
    assert first is not None
    return LayerSpec(
        kind,
        cells,
        first.inputs,
        first.units,
        group.num_layers,
        group.bidirectional,
        first.outputs if first.projects else 0,
        True if batch_first is None else bool(batch_first),
        group.reverse,
    ).validate()


def _list(groups: Sequence[Group], variables: Mapping[str, Variable]) -> str:
    """The scopes to choose from."""
    more = f"; and {len(groups) - MOST_LISTED} more" if len(groups) > MOST_LISTED else ""
    return "; ".join(f"scope={group.scope!r}: {group.describe(variables)}" for group in groups[:MOST_LISTED]) + more


def _describe(cell: FoundCell, variables: Mapping[str, Variable]) -> str:
    """Kind and sizes of one cell."""
    sizes = _sizes(cell, cell.kind, variables) if cell.kind else None
    if sizes is None:
        known, name = next(iter(cell.names.items()))
        return f"{_snake(cell.scope.rpartition('/')[2]) or 'a cell'} with {known} {variables[name].shape}"
    outputs = f", {sizes.outputs} outputs" if sizes.projects else ""
    return f"{(cell.kind or '').upper()} of {sizes.inputs} inputs, {sizes.units} units{outputs}"


def _above(name: str) -> list[str]:
    """The scopes that a name is under, from the outermost, which is empty, on."""
    return ["", *(name[: match.start()] for match in re.finditer("/", name))] if name else []


def _snake(component: str) -> str:
    """A part of a scope as TensorFlow 1 has it: 0.x has capitals."""
    return CAPITALS.sub("_", component).lower()


def _place(path: str, names: dict[str, str]) -> FoundCell:
    """Take a cell's scope apart."""
    original = path.split("/")
    *parts, own = map(_snake, original)
    end, direction = len(parts), ""
    inner: tuple[int, ...] = ()
    outer: int | None = None
    while end >= 2 and (entry := ENTRY.fullmatch(parts[end - 1])) and STACK.fullmatch(parts[end - 2]):
        inner, end = (int(entry[1]), *inner), end - 2
    if end and parts[end - 1] in ("fw", "bw"):
        direction, end = parts[end - 1], end - 1
        if end >= 2 and BOTH_WAYS.fullmatch(parts[end - 1]) and (entry := ENTRY.fullmatch(parts[end - 2])):
            outer, end = int(entry[1]), end - 2
    kind = KINDS.get(re.sub(r"_\d+$", "", own))
    if kind is None and not OTHERS.fullmatch(own):
        if "gates/kernel" in names:
            kind = "gru"
        elif names.keys() & {"projection/kernel", "w_i_diag", "w_f_diag", "w_o_diag"}:
            kind = "lstm"
    return FoundCell(path, kind, names, "/".join(original[:end]), outer, direction, inner)


def _is_cell(cell: FoundCell) -> bool:
    """Whether a scope with a kernel is a cell's: by its name, or by its place."""
    above, _, own = cell.scope.rpartition("/")
    parent = _snake(above.rpartition("/")[2])
    named = cell.kind is not None or OTHERS.fullmatch(_snake(own)) is not None
    placed = bool(cell.inner or cell.direction) or DRIVER.fullmatch(parent) is not None
    return named or not cell.scope or (placed and "bias" in cell.names)


def _common(scopes: Sequence[str]) -> str:
    """The longest scope that all of these are below."""
    split = [scope.split("/") for scope in scopes]
    common = []
    for parts in zip(*split, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    return "/".join(common)


def _arrange(name: str, cells: list[FoundCell], wanted: str | None) -> Group:
    """Put cells in the order in which they run."""
    inside = wanted is not None and len(wanted) > len(cells[0].base)  # the scope is a part of what was run together
    directions = sorted({cell.direction for cell in cells}, reverse=True)  # fw, bw
    if len(directions) == 1:
        ordered = sorted(cells, key=lambda cell: (cell.outer or 0, cell.inner))
        faults = [] if inside and len(cells) == 1 else _gaps(cells[0].base, [cell.inner for cell in ordered], inside)
        if len({cell.outer for cell in cells}) > 1 or (cells[0].outer and not inside):
            faults.append(f"{cells[0].base} has cells of one direction only")
        return Group(name, tuple(ordered), len(cells), reverse=directions == ["bw"], faults=faults)
    ordered = sorted(cells, key=lambda cell: (cell.outer or 0, cell.direction == "bw", cell.inner))
    count = len({cell.outer for cell in cells})
    faults = _gaps(cells[0].base, sorted({(cell.outer or 0,) for cell in cells}), inside)
    if len(cells) > 2 * count:
        scopes = [_common([cell.scope for cell in cells if cell.direction == way]) for way in ("fw", "bw")]
        reason = "has a stack of cells in each direction, which see their own direction alone and are two layers"
        faults.append(f"{name} {reason}: choose scope={scopes[0]!r}, and scope={scopes[1]!r} for the other")
    elif len(cells) < 2 * count:
        faults.append(f"{name} has {len(cells)} cells in {count} layers, wanted fw and bw in each")
    return Group(name, tuple(ordered), count, True, faults=faults)


def _gaps(base: str, places: Sequence[tuple[int, ...]], inside: bool) -> list[str]:
    """A fault for each cell that is missing among those at these places."""
    if inside:
        while places and places[0] and len({place[0] for place in places if place}) == 1 and all(places):
            places = [place[1:] for place in places]
    children: dict[tuple[int, ...], set[int]] = {}
    for place in places:
        for depth, index in enumerate(place):
            children.setdefault(place[:depth], set()).add(index)
    faults = []
    for above, indices in children.items():
        if indices != set(range(len(indices))):
            first = next(index for index in range(len(indices) + 1) if index not in indices)
            at = "/".join(f"cell_{index}" for index in (*above, first))
            faults.append(f"{base} has no cell that is read at {at}, but {len(indices)} others")
    return faults


def _sizes(cell: FoundCell, kind: CellKind, variables: Mapping[str, Variable]) -> Sizes | None:
    """Sizes as the kernels tell them; None if they are no matrices that fit each other."""

    def shape(known: str) -> tuple[int, ...]:
        return variables[cell.names[known]].shape if known in cell.names else ()

    if kind == "gru" and cell.resets_after:
        kernel, recurrent = shape("candidate/input_projection/kernel"), shape("candidate/hidden_projection/kernel")
        if len(kernel) != 2 or len(recurrent) != 2 or not recurrent[1]:
            return None
        return Sizes(kernel[0], recurrent[1], recurrent[1], False)
    kernel = shape("candidate/kernel" if kind == "gru" else "kernel")
    gates = 4 if kind == "lstm" else 1
    if len(kernel) != 2 or kernel[1] % gates or not kernel[1]:
        return None
    units = kernel[1] // gates
    projection = shape("projection/kernel")
    projects = kind == "lstm" and len(projection) == 2
    outputs = projection[1] if projects else units
    return Sizes(kernel[0] - outputs, units, outputs, projects) if kernel[0] >= outputs > 0 else None


def _wanted(cell: FoundCell, kind: CellKind, sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every variable that a cell should have."""
    peepholes = any(f"w_{gate}_diag" in cell.names for gate in "ifo")
    return shapes_of(kind, *sizes, peepholes, cell.resets_after)


def _cell_faults(cell: FoundCell, kind: CellKind, variables: Mapping[str, Variable]) -> list[str]:
    """What of a cell's own variables does not fit its kind."""
    faults = []
    for name in cell.names.values():
        if variables[name].dtype not in TYPES:
            faults.append(f"{name} is {variables[name].dtype}, wanted {', '.join(TYPES)}")
    if len(types := {variables[name].dtype for name in cell.names.values()} & {"float32", "float64"}) > 1:
        faults.append(f"{cell.scope} has variables of the types {' and '.join(sorted(types))}, wanted one")
    sizes = _sizes(cell, kind, variables)
    if sizes is None:
        text = {
            "lstm": "kernel (I + H, 4 * H), and projection/kernel (H, P) if it projects",
            "gru": "candidate/kernel (I + H, H)",
            "rnn": "kernel (I + H, H)",
        }[kind]
        shapes = ", ".join(f"{known} {variables[name].shape}" for known, name in cell.names.items())
        return [
            *faults,
            f"{cell.scope} has {shapes}, wanted {text} of {'an LSTM' if kind == 'lstm' else 'a ' + kind.upper()}",
        ]
    wanted = _wanted(cell, kind, sizes)
    for known, shape in wanted.items():
        if known not in cell.names:
            faults.append(f"{cell.scope}/{known} is missing, wanted shape {shape}")
        elif variables[cell.names[known]].shape != shape:
            faults.append(f"{cell.names[known]} has shape {variables[cell.names[known]].shape}, wanted {shape}")
    faults += [f"{name} is surplus" for known, name in cell.names.items() if known not in wanted]
    return faults


def _surplus(group: Group, variables: Mapping[str, Variable], scope: str | None) -> list[str]:
    """Variables among the group's cells that belong to none of them, but to a wrapper or a cell that is not read."""
    used = {name for cell in group.cells for name in cell.names.values()}
    base = group.cells[0].base
    start = f"{base}/" if base else ""
    roots = {cell.scope for cell in group.cells}
    roots |= {start + cell.scope.removeprefix(start).split("/")[0] for cell in group.cells}
    if DRIVER.fullmatch(_snake(base.rpartition("/")[2])):
        roots.add(base)
    inside = f"{scope.strip('/')}/" if scope and scope.strip("/") else ""
    cells = find_cells(variables)
    others = {cell.scope for cell in cells} - {cell.scope for cell in group.cells}
    others |= {cell.base for cell in cells if base in _above(cell.base)}
    highway = {f"{start}carry_w", f"{start}carry_b"}
    return [
        name
        for name in without_slots(variables)
        if name not in used
        and name.startswith(inside)
        and (name in highway or not roots.isdisjoint(_above(name)))
        and others.isdisjoint(_above(name))
    ]


def _option_faults(
    group: Group, kinds: Sequence[CellKind | None], nonlinearity: str | None, forget_bias: float | None
) -> list[str]:
    """What is wrong with the options, for these cells."""
    faults = []
    if any(OTHERS.fullmatch(_snake(cell.scope.rpartition("/")[2])) for cell in group.cells):
        return []
    by_kind = {kind: cell for cell, kind in zip(reversed(group.cells), reversed(kinds), strict=True)}
    if cell := by_kind.get(None):
        faults.append(
            f"{cell.scope} has a name that does not tell the cell's kind: pass forget_bias= if it is an LSTM (1.0 is "
            "TensorFlow's default), nonlinearity= if it is a BasicRNNCell ('tanh' is TensorFlow's default)"
        )
    elif forget_bias is None and any(
        kind == "lstm" and not cell.is_cudnn for cell, kind in zip(group.cells, kinds, strict=True)
    ):
        faults.append(
            "forget_bias is missing: a checkpoint does not hold what the cell was built with; TensorFlow's default is "
            "1.0: forget_bias=1.0"
        )
    if forget_bias is not None and "lstm" not in by_kind:
        faults.append(f"forget_bias is {forget_bias}, but only an LSTM has one: wanted None")
    elif forget_bias and any(cell.is_cudnn for cell in group.cells):
        faults.append(f"forget_bias is {forget_bias}, but {group.scope} is of cuDNN's kind, which has none: wanted 0.0")
    if None not in by_kind and nonlinearity is None and "rnn" in by_kind:
        faults.append(
            "nonlinearity is missing, wanted 'tanh' (TensorFlow's default) or 'relu': a checkpoint cannot tell"
        )
    if nonlinearity is not None and "rnn" not in by_kind:
        faults.append(f"nonlinearity is {nonlinearity!r}, but only an RNN has a choice: wanted None")
    return faults


def _chain_faults(group: Group, kinds: Sequence[CellKind | None], variables: Mapping[str, Variable]) -> list[str]:
    """Why cells that fit by themselves are not one layer."""
    cure = "run them by fastrnn.nn, or choose one of them by scope="
    if len(set(kinds)) > 1 or len({cell.resets_after for cell in group.cells}) > 1:
        names = ", ".join(cell.scope.rpartition("/")[2] for cell in group.cells[:MOST_LISTED])
        return [f"{group.scope} has cells of different kinds, {names}: {cure}"]
    sizes = [_sizes(cell, kind or "lstm", variables) for cell, kind in zip(group.cells, kinds, strict=True)]
    if len(units := {(size.units, size.outputs, size.projects) for size in sizes if size}) > 1:
        found = ", ".join(f"{size.units} units and {size.outputs} outputs" for size in sizes[:MOST_LISTED] if size)
        return [f"{group.scope} has cells of {len(units)} sizes, {found}: {cure}"]
    types = {variables[name].dtype for cell in group.cells for name in cell.names.values()}
    if {"float32", "float64"} <= types:
        return [f"{group.scope} has cells of the types {' and '.join(sorted(types))}, wanted one"]
    directions = 2 if group.bidirectional else 1
    faults = []
    for index, (cell, size) in enumerate(zip(group.cells, sizes, strict=True)):
        first = sizes[0] if index < directions else sizes[index - directions]
        assert size is not None and first is not None
        wanted = first.inputs if index < directions else directions * first.outputs
        if size.inputs != wanted:
            faults.append(f"{cell.scope} takes {size.inputs} inputs, but {wanted} come from what is before it: {cure}")
    return faults


def _cell_spec(
    cell: FoundCell,
    kind: CellKind,
    variables: Mapping[str, Variable],
    read: Reader,
    nonlinearity: str | None,
    forget_bias: float,
) -> CellSpec:
    """Read a cell's arrays into a CellSpec."""
    sizes = _sizes(cell, kind, variables)
    assert sizes is not None
    activation = Activation.of(nonlinearity or "tanh")
    spec = spec_from_variables(
        kind,
        CellVariables(cell, read),
        sizes.units,
        activation=activation,
        num_proj=sizes.outputs if sizes.projects else None,
        use_peepholes="w_i_diag" in cell.names,
        forget_bias=forget_bias,
        resets_after=cell.resets_after,
        copy=False,
    )
    return spec.cells[0]


def _looks(variables: Mapping[str, Variable]) -> str:
    """What a checkpoint without cells has instead."""
    names = without_slots(variables)
    keras = [name for name in names if name.endswith("recurrent_kernel")]
    if keras:
        return f"{keras[0]} looks like a layer of Keras: save it by model.save_weights to an .h5 file"
    averages = [name for name in variables if name.endswith("/ExponentialMovingAverage")]
    if averages and not names:
        return f"it has averages alone, such as {averages[0]}: save the averaged variables under their own names"
    some = ", ".join(names[:5]) or "no variable"
    return f"it has {some}{' and more' if len(names) > 5 else ''}, wanted names such as rnn/lstm_cell/kernel"
