"""Arrays of a file under PyTorch's names -> the one recurrent layer that is meant."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..importers.pytorch import MOST_SUGGESTED, NAME, PREFIXED_NAME, Nonlinearity, spec_from_state_dict
from ..spec import NUM_GATES, CellKind, LayerSpec
from .tensors import WIDENED, Tensor

#: What wrappers put before every name: DataParallel, torch.compile.
WRAPPERS = re.compile(r"^(?:(?:module|_orig_mod)\.)+")

#: Names of what weight_norm, spectral_norm, pruning and parametrisations keep instead of a weight.
COMPUTED = re.compile(rf"(.*?)(?:{NAME.pattern}_(?:g|v|u|orig|mask)|parametrizations\.{NAME.pattern}\..*)", re.DOTALL)

#: What the names of other frameworks' weights look like.
FOREIGN = {
    "Keras": re.compile(r"(.*/)?recurrent_kernel(:0)?"),
    "TensorFlow 1": re.compile(r".*(_cell|gates|candidate)/(kernel|weights)(:0)?"),
    "Flax": re.compile(r"(.*[./])?(hi|hn|hf|dense_h)[./]kernel"),
    "ONNX": re.compile(r"(.*[./])?[WR]"),
}


#: Mappings in mappings of a checkpoint that are looked into.
MOST_NESTING = 4


def tensors_of_checkpoint(
    path: str, content: Any, arrays_of: Callable[[Mapping[Any, Any]], dict[str, Tensor]]
) -> dict[str, Tensor]:
    """The arrays of a state dict, or of the state dicts in a checkpoint, under their keys.

    Those without a recurrent layer are left out, unless all are without.

    Parameters
    ----------
    path : of the file, for messages
    content : what it holds
    arrays_of : gives the arrays of one mapping by their names, without those of mappings in it

    Raises
    ------
    ValueError
        The content is no mapping.
    """
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds a {type(content).__name__}, wanted a state dict or a checkpoint with one")
    found = {keys: arrays_of(mapping) for keys, mapping in mappings(content)}
    recurrent = {keys: arrays for keys, arrays in found.items() if any(map(PREFIXED_NAME.fullmatch, arrays))}
    if "" in recurrent:
        return recurrent[""]
    chosen = recurrent or {keys: arrays for keys, arrays in found.items() if arrays}
    if len(chosen) == 1:
        return next(iter(chosen.values()))
    return {
        f"{keys}.{name}" if keys else name: each for keys, arrays in chosen.items() for name, each in arrays.items()
    }


def mappings(content: Mapping[Any, Any]) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """A checkpoint and the mappings in it, each once, with the keys that lead to it, joined by dots."""
    seen, waiting = {id(content)}, [("", content)]
    for _ in range(1 + MOST_NESTING):
        inner = []
        for keys, mapping in waiting:
            yield keys, mapping
            for key, value in mapping.items():
                if key and isinstance(key, str) and isinstance(value, Mapping) and id(value) not in seen:
                    seen.add(id(value))
                    inner.append((f"{keys}.{key}" if keys else key, value))
        waiting = inner


@dataclass(frozen=True)
class Group:
    """The weights under one prefix: names without it, and what they seem to be."""

    prefix: str
    tensors: dict[str, Tensor]
    kind: CellKind | None
    text: str


def groups_of(tensors: Mapping[str, Tensor]) -> dict[str, Group]:
    """Every recurrent layer or cell of a file, by its prefix.

    Examples
    --------
    >>> def read(): return np.zeros((8, 2), np.float32)
    >>> for group in groups_of({"rnn.weight_hh_l0": Tensor((8, 2), "float32", read)}).values():
    ...     print(repr(group.prefix), group.text)
    'rnn.' LSTM of 2 units
    """
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if match := PREFIXED_NAME.fullmatch(name):
            found.setdefault(match[1], {})[name.removeprefix(match[1])] = tensor
        elif match := COMPUTED.fullmatch(name):
            found.setdefault(match[1], {})
    return {prefix: _describe(prefix, group) for prefix, group in found.items()}


def _describe(prefix: str, tensors: dict[str, Tensor]) -> Group:
    is_cell = "weight_hh" in tensors
    end = "" if is_cell else "_l0"
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    recurrent, first = shapes.get(f"weight_hh{end}", ()), shapes.get(f"weight_ih{end}", ())
    projects = f"weight_hr{end}" in tensors
    kind: CellKind | None = None
    if projects:
        kind = "lstm"
    elif len(recurrent) == 2 and recurrent[1]:
        kinds: dict[float, CellKind] = {gates: kind for kind, gates in NUM_GATES.items()}  # type: ignore[misc]
        kind = kinds.get(recurrent[0] / recurrent[1])
    if kind is None:
        return Group(prefix, tensors, None, "weights of no known cell")
    sizes = [f"{first[1]} inputs"] if len(first) == 2 else []
    hidden = shapes[f"weight_hr{end}"][-1:] if projects else recurrent[1:]
    sizes += [f"{hidden[0]} units"] if hidden else []
    sizes += [f"{recurrent[1]} outputs"] if projects and len(recurrent) == 2 else []
    layers = sum(name.startswith("weight_hh") and not name.endswith("_reverse") for name in tensors)
    sizes += [f"{layers} layers"] if layers > 1 else []
    sizes += ["both directions"] if any(name.endswith("_reverse") for name in tensors) else []
    return Group(prefix, tensors, kind, f"{kind.upper()}{'Cell' if is_cell else ''} of {', '.join(sizes)}")


def spec_from_tensors(
    path: str,
    tensors: Mapping[str, Tensor],
    *,
    prefix: str | None = None,
    nonlinearity: Nonlinearity | None = None,
    batch_first: bool | None = None,
) -> LayerSpec:
    """Choose a layer, check its shapes and types, then read its arrays and no others.

    Parameters
    ----------
    path : the file, for messages
    tensors : its arrays by their names
    prefix : what the layer's names begin with; None: the file has one
    nonlinearity, batch_first : as of ``from_state_dict``

    Raises
    ------
    ValueError, TypeError
        There is no such layer or there are several, or it does not fit. The message has every reason.
    """
    if prefix is not None and not isinstance(prefix, str):
        raise TypeError(f"prefix is {prefix!r}, wanted a str")
    group = choose(path, tensors, prefix)
    faults = [] if group.kind else _causes(group)
    of_types = {name: tensor for name, tensor in group.tensors.items() if tensor.dtype not in WIDENED}
    for name, tensor in of_types.items():
        faults.append(f"{group.prefix}{name} is {tensor.dtype}, wanted {', '.join(WIDENED)}")
    inner = {name.removeprefix(group.prefix): name for name in tensors if name.startswith(group.prefix)}
    for rest, name in inner.items():
        if COMPUTED.fullmatch(rest):
            faults.append(
                f"{name} belongs to weight_norm, a parametrisation or pruning, whose weights only the live module "
                "computes: pass it to from_torch, or remove that before saving"
            )
        elif rest not in group.tensors and "." not in rest and group.prefix:
            faults.append(f"{name} is surplus, wanted names such as {group.prefix}weight_ih_l0")
    first = True if batch_first is None else batch_first

    def build(arrays: dict[str, np.ndarray]) -> LayerSpec:
        kind = group.kind or "lstm"
        return spec_from_state_dict(kind, arrays, nonlinearity=nonlinearity, batch_first=first, copy=False)

    if group.kind:
        try:  # arrays of these shapes that take no memory: every shape is checked before any array is read
            build(
                {
                    name: np.broadcast_to(np.zeros((), WIDENED.get(tensor.dtype, np.float32)), tensor.shape)
                    for name, tensor in group.tensors.items()
                }
            )
        except TypeError as error:
            raise TypeError(f"{path}: {'; '.join([*faults, str(error)])}") from None
        except ValueError as error:
            under = f"under {group.prefix!r}: " if group.prefix else ""
            faults.append(f"{under}{error}")
            faults += _causes(group)
    if faults:
        raise ValueError(f"{path}: {'; '.join(faults)}")
    try:
        return build({name: tensor.read() for name, tensor in group.tensors.items()})
    except ValueError as error:
        raise ValueError(str(error) if path in str(error) else f"{path}: {error}") from None


def choose(path: str, tensors: Mapping[str, Tensor], prefix: str | None) -> Group:
    """The one layer under a prefix, or of the file.

    Raises
    ------
    ValueError
        There is none, or there are several; the message lists them.
    """
    groups = groups_of(tensors)
    if not groups:
        some = ", ".join(list(tensors)[:MOST_SUGGESTED]) or "nothing"
        looks = [f"; looks like {who}'s names" for who, name in FOREIGN.items() if any(map(name.fullmatch, tensors))]
        raise ValueError(
            f"{path} has no recurrent layer under PyTorch's names, such as weight_ih_l0: it has {some}"
            f"{' and more' if len(tensors) > MOST_SUGGESTED else ''}{''.join(looks)}"
        )
    if prefix is None and len(groups) == 1:
        return next(iter(groups.values()))
    if prefix is not None:
        for wanted in (prefix, f"{prefix}."):
            if wanted in groups:
                return groups[wanted]
        bare = _bare(prefix)
        if len(same := [name for name in groups if _bare(name) == bare]) == 1:
            return groups[same[0]]
    choices = [f"prefix={group.prefix!r}: {group.text}" for group in groups.values()]
    more = f"; and {len(choices) - 4 * MOST_SUGGESTED} more" if len(choices) > 4 * MOST_SUGGESTED else ""
    found = (
        f"{len(groups)} recurrent layers, wanted prefix= to choose" if prefix is None else f"none under {prefix!r}, but"
    )
    raise ValueError(f"{path} has {found}: {'; '.join(choices[: 4 * MOST_SUGGESTED])}{more}")


def _bare(prefix: str) -> str:
    """A prefix without what wrappers add, and without its dot."""
    return WRAPPERS.sub("", f"{prefix.rstrip('.')}.").rstrip(".")


def _causes(group: Group) -> list[str]:
    """What a layer that does not fit looks like."""
    causes = []
    shapes = {name: tensor.shape for name, tensor in group.tensors.items()}
    end = "_l0" if "weight_hh" not in shapes else ""
    recurrent, first = shapes.get(f"weight_hh{end}", ()), shapes.get(f"weight_ih{end}", ())
    if not group.kind:
        causes.append(
            f"{group.prefix}weight_hh{end} has shape {recurrent}, wanted (4 * H, H) of an LSTM, (3 * H, H) of a GRU or "
            "(H, H) of an RNN"
            if recurrent
            else f"{group.prefix}weight_hh{end} is missing"
        )
    widths = {columns / rows for rows, columns in (recurrent,) if rows} if len(recurrent) == 2 else set()
    if widths & {3.0, 4.0} or (
        len(first) == 2 and len(recurrent) == 2 and widths == {1.0} and first[1] == recurrent[1]
    ):
        causes.append("looks like Keras's layout, (in, out): transpose the kernels and mind the order of the gates")
    for name, shape in shapes.items():
        if name.startswith("bias") and len(shape) == 2 and shape[0] == 2:
            causes.append(f"{group.prefix}{name} of shape {shape} looks like Keras's reset_after=True")
    return causes
