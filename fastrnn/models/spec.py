"""The description of a model, whatever framework or file it comes from: a chain of operations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from ..arguments import as_boolean
from ..spec import ACTIVATIONS, Activation, LayerSpec
from .ops import Conv1d, Embedding, Final, Op, Pool, Reverse, StepsT

#: What a chain is made of: recurrent layers, activations of every element, and the operations of models/ops.py.
AnyOp = LayerSpec | Activation | Op


@dataclass(frozen=True)
class ModelSpec:
    """A chain of operations: each takes the vectors of the one before it.

    After a Pool each row has one vector; the operations that follow take it as a row of one step. Build it, then call
    :meth:`validate`, which names everything that does not fit.

    Attributes
    ----------
    ops : tuple of LayerSpec, Activation and Op
        Any iterable; kept as a tuple.
    batch_first : bool
        Whether x and y are (B, T, .) or (T, B, .). That of the recurrent layers in the chain is not used.
    """

    ops: tuple[AnyOp, ...]
    batch_first: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.ops, Iterable) and not isinstance(self.ops, str):
            object.__setattr__(self, "ops", tuple(self.ops))

    @property
    def takes_ids(self) -> bool:
        """Whether x holds integers, one for each step, rather than vectors."""
        return isinstance(self.ops[0], Embedding)

    @property
    def pools(self) -> bool:
        """Whether y has one vector for each row rather than for each step."""
        return any(isinstance(op, Pool) for op in self.ops)

    @property
    def widths(self) -> tuple[int, ...]:
        """Width of a step's vector before the first operation (0 for ids) and after each; of a valid spec."""
        known = [size for op in self.ops if (size := input_size(op)) is not None]
        widths = [0 if self.takes_ids else known[0]]
        for op in self.ops:
            size = output_size(op)
            widths.append(widths[-1] if size is None else size)
        return tuple(widths)

    @property
    def keeps_steps(self) -> bool:
        """Whether y has as many steps as x, before any pooling."""
        return all(op.keeps_steps for op in self.ops if isinstance(op, Conv1d))

    def output_steps(self, steps: StepsT) -> StepsT:
        """How many steps y has for rows of so many steps, before any pooling: a number, or an array of int64."""
        for op in self.ops:
            if isinstance(op, Conv1d):
                steps = op.output_steps(steps)
        return steps

    def validate(self) -> ModelSpec:
        """Check every operation, and that each fits the one before it; return self.

        Raises
        ------
        ValueError, TypeError
            One message that lists every fault found. TypeError if something in the chain is no operation.
        """
        if not isinstance(self.ops, tuple):
            raise TypeError(f"ops is {type(self.ops).__name__}, wanted a list of operations")
        as_boolean(self.batch_first, "batch_first")
        types = [
            f"ops[{index}] is {type(op).__name__}, wanted a LayerSpec, an Activation or an operation such as Linear"
            for index, op in enumerate(self.ops)
            if not isinstance(op, AnyOp)
        ]
        if types:
            raise TypeError("; ".join(types))
        if not self.ops:
            raise ValueError("ops is empty, wanted at least one operation")
        faults = []
        for index, op in enumerate(self.ops):
            faults += [f"{self.name(index)}: {fault}" for fault in _faults(op) + self._place_faults(index)]
        if not faults:
            faults = self._width_faults()
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def name(self, index: int) -> str:
        """How messages call an operation, such as ``ops[2] (Linear)``."""
        return f"ops[{index}] ({op_name(self.ops[index])})"

    def why_not_streamed(self, index: int) -> str:
        """Why an operation cannot run in a stream; it must be one that cannot."""
        op = self.ops[index]
        if isinstance(op, Conv1d):
            reason = f"its padding is ({op.left}, {op.right}), wanted ({op.reach}, 0), which is 'causal'"
        elif isinstance(op, LayerSpec):
            reason = "it has the reverse direction, which starts at the last step, and a stream has none"
        else:
            reason = "it needs all steps of a row, and a stream has no last one"
        return f"{self.name(index)} cannot run in a stream: {reason}"

    def _place_faults(self, index: int) -> list[str]:
        """What is wrong with the place of an operation in the chain."""
        op, before = self.ops[index], self.ops[:index]
        if isinstance(op, Embedding):
            return ["takes ids, wanted as the first operation"] if before else []
        if any(isinstance(earlier, Pool) for earlier in before) and isinstance(op, LayerSpec | Conv1d | Reverse | Pool):
            return ["needs steps, but after pooling each row has one vector"]
        if isinstance(op, Final) and not (before and isinstance(before[-1], LayerSpec)):
            return ["wanted directly after a recurrent layer"]
        return []

    def _width_faults(self) -> list[str]:
        if not self.takes_ids and not [op for op in self.ops if input_size(op) is not None]:
            return ["no operation gives the width of x, wanted at least one with weights"]
        width, faults = None, []
        for index, op in enumerate(self.ops):
            if width is not None and input_size(op) not in (None, width):
                faults.append(f"{self.name(index)} takes vectors of width {input_size(op)}, but gets {width}")
            size = output_size(op)
            width = (width if input_size(op) is None else input_size(op)) if size is None else size
        return faults


def op_name(op: AnyOp) -> str:
    """The name of an operation's class, ``LSTM``, ``GRU`` or ``RNN`` for a recurrent layer, or the activation's."""
    if isinstance(op, LayerSpec):
        return op.kind.upper()
    return op.name if isinstance(op, Activation) else type(op).__name__


def describe(op: AnyOp) -> str:
    """An operation with its sizes and options, such as ``Linear(256, 50)``."""
    options: dict[str, Any] = {}
    sizes = [size for size in (input_size(op), output_size(op)) if size is not None]
    match op:
        case LayerSpec():
            sizes = [op.input_size, op.hidden_size]
            options = {"num_layers": op.num_layers, "proj_size": op.proj_size}
            options |= {"bidirectional": op.bidirectional, "reverse": op.reverse}
            options["weight_dtype"] = None if op.weight_dtype == "float32" else op.weight_dtype
        case Activation():
            defaults = ACTIVATIONS[op.name]
            options = {"alpha": op.alpha, "beta": op.beta} if (op.alpha, op.beta) != defaults else {}
        case Embedding():
            sizes = list(op.weight.shape)
            options = {"mask_zero": op.mask_zero}
        case Conv1d():
            options = {"kernel_size": op.weight.shape[2], "stride": op.stride, "dilation": op.dilation}
            if op.left or op.right:
                options["padding"] = "causal" if op.is_causal else (op.left, op.right)
    usual = {"num_layers": 1, "stride": 1, "dilation": 1}
    texts = [f"{name}={value!r}" for name, value in options.items() if value and usual.get(name) != value]
    return f"{op_name(op)}({', '.join([*map(str, sizes), *texts])})"


def input_size(op: AnyOp) -> int | None:
    """Width of the vectors that a valid operation takes; None: any, or ids."""
    return None if isinstance(op, Activation) else op.input_size


def output_size(op: AnyOp) -> int | None:
    """Width of the vectors that a valid operation gives; None: as wide as those that it takes."""
    if isinstance(op, LayerSpec):
        return op.num_directions * op.h_size
    return None if isinstance(op, Activation) else op.output_size


def _faults(op: AnyOp) -> list[str]:
    """What does not fit in an operation alone."""
    if isinstance(op, Activation):
        known = op.name in ACTIVATIONS
        return [] if known else [f"{op.name!r} is unknown, wanted one of {', '.join(sorted(ACTIVATIONS))}"]
    if isinstance(op, LayerSpec):
        try:
            op.validate()
        except (TypeError, ValueError) as error:
            return [str(error)]
        return []
    return op.faults()
