"""Calls by the graph's own names: inputs checked, the steps that some outputs need, results in order."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..arguments import as_array
from .graph import Graph, shape_of, type_of


@dataclass(frozen=True)
class Port:
    """An input or an output of a graph.

    Attributes
    ----------
    name : the graph's
    dtype : of its elements; None where the file does not say, or NumPy has none
    shape : sizes, or names of those that are free; None where the file does not say
    """

    name: str
    dtype: np.dtype[Any] | None
    shape: tuple[int | str, ...] | None


class Step(Protocol):
    """What computes some names from others."""

    reads: tuple[str, ...]
    gives: tuple[str, ...]

    def __call__(self, values: dict[str, Any], gives: Sequence[str]) -> None:
        """Take what is read out of `values`, and put there at least the names in `gives`."""


@dataclass(frozen=True)
class _Wanted:
    """What an array for an input must have.

    Attributes
    ----------
    dtype, ndim : as of the port; None where the file does not say
    sizes : axes that must have a size. Of an initial state they are those of the layers. Of other inputs none are: what
        runs here is computed for any number of rows and steps, and onnxruntime checks by itself.
    """

    dtype: np.dtype[Any] | None
    ndim: int | None
    sizes: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, port: Port, is_state: bool) -> _Wanted:
        if port.shape is None:
            return cls(port.dtype, None, ())
        sizes = [(axis, size) for axis, size in enumerate(port.shape) if is_state and isinstance(size, int)]
        return cls(port.dtype, len(port.shape), tuple(sizes))


@dataclass(frozen=True)
class _Plan:
    """What a call runs for some outputs.

    Attributes
    ----------
    names : of the outputs
    steps : with those of their results that are used
    needs : the inputs that have to be given
    """

    names: tuple[str, ...]
    steps: list[tuple[Step, list[str]]]
    needs: frozenset[str]


#: How many combinations of outputs have their plans kept.
MOST_PLANS = 32


class Runner:
    """Runs steps on inputs and outputs that have the graph's names.

    Parameters
    ----------
    graph : for its inputs and outputs
    steps : each behind those whose results it reads
    fixed : constants that steps read, or that are outputs
    optional : inputs that may be left out
    """

    def __init__(
        self, graph: Graph, steps: Sequence[Step], fixed: Mapping[str, NDArray[Any]], optional: Iterable[str]
    ) -> None:
        self.inputs = tuple(_port(info) for info in graph.inputs.values())
        self.outputs = tuple(_port(info) for info in graph.outputs.values())
        self.path, self.optional = graph.path, frozenset(optional)
        self.dtypes = {port.name: port.dtype for port in self.inputs}
        self._wanted = {port.name: _Wanted.of(port, port.name in self.optional) for port in self.inputs}
        self._steps, self._fixed = tuple(steps), dict(fixed)
        self._plans: dict[tuple[str, ...] | None, _Plan] = {}

    def with_steps(self, steps: Sequence[Step]) -> Runner:
        """The same inputs and outputs, computed by other steps."""
        other = copy.copy(self)
        other._steps, other._plans = tuple(steps), {}
        return other

    def run(self, output_names: Sequence[str] | None, feed: Mapping[str, ArrayLike]) -> list[Any]:
        """As Model.run."""
        if not self.fits(feed):
            feed = {name: self._checked(name, value) for name, value in feed.items()}
        return self.compute(None if output_names is None else tuple(output_names), feed)

    def fits(self, feed: Mapping[str, Any]) -> bool:
        """Whether all are inputs, and arrays of their types, numbers of axes, and sizes where these must be kept."""
        for name, array in feed.items():
            wanted = self._wanted.get(name)
            if wanted is None or type(array) is not np.ndarray or array.dtype != wanted.dtype:
                return False
            if wanted.ndim is not None and array.ndim != wanted.ndim:
                return False
            for axis, size in wanted.sizes:
                if array.shape[axis] != size:
                    return False
        return True

    def compute(self, output_names: tuple[str, ...] | None, feed: Mapping[str, Any]) -> list[Any]:
        """As `run`, of inputs that have been checked."""
        plan = self._plans.get(output_names) or self._plan(output_names)
        values: dict[str, Any] = {**self._fixed, **feed}
        if not plan.needs <= values.keys():
            missing = ", ".join(map(repr, sorted(plan.needs - values.keys())))
            raise ValueError(f"feed lacks {missing}")
        for step, gives in plan.steps:
            step(values, gives)
        return [values[name] for name in plan.names]

    def _plan(self, output_names: tuple[str, ...] | None) -> _Plan:
        known = [port.name for port in self.outputs]
        names = tuple(known) if output_names is None else output_names
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"output_names has {unknown[0]!r}, wanted some of {', '.join(map(repr, known))}")
        wanted = set(names)
        steps: list[tuple[Step, list[str]]] = []
        for step in reversed(self._steps):
            if gives := [name for name in step.gives if name in wanted]:
                steps.append((step, gives))
                wanted.update(step.reads)
        needs = frozenset(port.name for port in self.inputs if port.name in wanted) - self.optional
        plan = _Plan(names, steps[::-1], needs)
        if len(self._plans) < MOST_PLANS:
            self._plans[output_names] = plan
        return plan

    def _checked(self, name: str, value: Any) -> Any:
        """An input of the graph's type; what is no tensor of numbers is left to onnxruntime."""
        if name not in self.dtypes:
            raise ValueError(f"feed has {name!r}, wanted {self.listed()} alone")
        dtype = self.dtypes[name]
        if dtype is None:
            return value
        array = as_array(value, name)
        if array.dtype != dtype:
            raise TypeError(f"feed has {name!r} of type {array.dtype}, wanted {dtype}")
        array, port = np.asarray(array), next(port for port in self.inputs if port.name == name)
        if not self.fits({name: array}):
            wanted = ", ".join(str(size or "?") for size in port.shape or ())
            raise ValueError(f"feed has {name!r} of shape {array.shape}, wanted ({wanted})")
        return array

    def listed(self) -> str:
        """The names of the inputs, for messages."""
        return ", ".join(repr(port.name) for port in self.inputs) or "nothing"


def _port(info: Any) -> Port:
    return Port(info.name, type_of(info), shape_of(info))
