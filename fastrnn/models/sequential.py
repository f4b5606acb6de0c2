"""Sequential: a chain of operations around recurrent layers, prepared to run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, Self, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .. import runtime
from ..arguments import Casting, as_integer, check_casting
from ..files import native
from ..immutable import Immutable
from ..importers.pytorch_operations import Operation, operations_from_sequential
from ..layers import Layer
from ..layers.calls import is_list_of_sequences
from ..layers.layer import NestedRows, PackedT, SequenceT
from ..packed import Packed, is_torch_packed
from ..spec import Activation, LayerSpec, WeightDtype
from ..streams import open_stream
from . import ops
from .calls import run_array, run_list, run_packed, run_torch
from .engine import build_engine, choose_weight_dtypes, with_weights, without_weights
from .folding import fold
from .ops import StepsT
from .spec import ModelSpec, describe
from .streams import ModelStream


class Sequential(Immutable):
    """A model: operations that each take the results of the one before.

    It computes in float32, with the fused kernels. Weights are copied at construction and never change, so a model may
    be shared by threads, and its copies, shallow or deep, are the model itself. A pickle holds the weights, and ``isa``
    as it was given.

    Parameters
    ----------
    *operations : LSTM, GRU, RNN, an operation such as Linear, Activation or its name such as "relu", or LayerSpec
        An Embedding can only be the first one; x then holds ids. After Last, First, Mean, Max or Final each row has
        one vector, and only operations on single vectors may follow. A Sequential stands for its operations.
    batch_first : bool or None
        Whether x and y are (B, T, .) or (T, B, .). None: as the recurrent layers; True if there are none.
    isa : str or None
        The instruction set, one of ``fastrnn.info()["isas"]``; None takes FASTRNN_ISA from the environment, or else the
        best.
    weight_dtype : {"float32", "float16", "int8"} or None
        The type in which all recurrent layers keep their weights, see :class:`fastrnn.LSTM`; None keeps the type of
        each. The weights of other operations are float32.

    Attributes
    ----------
    num_ids : int
        Number of the embedding's rows; 0 if x holds vectors.
    input_size, output_size : int
        Widths of a step's vector of x (1 for ids) and of y.
    pools : bool
        Whether y has one vector for each row, (B, O).

    Raises
    ------
    TypeError, ValueError
        The operations do not fit; the message names everything that does not.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> rng = np.random.default_rng(0)
    >>> def random(*shape):
    ...     return rng.standard_normal(shape, np.float32)
    >>> gru = fastrnn.GRU.from_state_dict({"weight_ih_l0": random(12, 8), "weight_hh_l0": random(12, 4)})
    >>> tagger = fastrnn.Sequential(fastrnn.Embedding(random(100, 8)), gru, fastrnn.Linear(random(5, 4)))
    >>> y = tagger(np.array([[3, 7, 99], [5, 0, 0]]), lengths=[3, 1])
    >>> y.shape, float(abs(y[1, 1:]).max())
    ((2, 3, 5), 0.0)
    """

    def __init__(
        self,
        *operations: Any,
        batch_first: bool | None = None,
        isa: str | None = None,
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        spec = _spec_of(operations, batch_first).validate()
        folded = choose_weight_dtypes(fold(spec), weight_dtype)
        self._shape = without_weights(folded)
        self.dtype = np.dtype(np.float32)
        self.batch_first, self.pools = bool(spec.batch_first), spec.pools
        first = folded.ops[0]
        self.mask_zero = isinstance(first, ops.Embedding) and bool(first.mask_zero)
        self.keeps_steps = spec.keeps_steps
        self._asked_isa = isa
        self._engine = build_engine(folded, runtime.chosen_isa(isa))
        self.isa = self._engine.isa
        self.num_ids, self.input_size = self._engine.num_ids, self._engine.input_size
        self.output_size = self._engine.output_size
        self._frozen = True

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self.spec, self._asked_isa)

    @classmethod
    def from_spec(cls, spec: ModelSpec, *, isa: str | None = None, weight_dtype: WeightDtype | None = None) -> Self:
        """Make a model from its description; isa and weight_dtype are as for the class.

        Raises
        ------
        TypeError, ValueError
            The operations do not fit; the message names everything that does not.
        """
        return cls(*spec.ops, batch_first=spec.batch_first, isa=isa, weight_dtype=weight_dtype)

    @classmethod
    def from_torch(cls, module: Any, *, isa: str | None = None, weight_dtype: WeightDtype | None = None) -> Self:
        """Make a model from an ``nn.Sequential``, also nested, as it computes in ``eval()``.

        Recurrent modules, Embedding, Linear, Conv1d, LayerNorm, BatchNorm1d, Softmax and LogSoftmax of the last axis,
        activations, and modules that do nothing in ``eval()``, such as Dropout. A step's vector is always the last
        axis: PyTorch's Conv1d and BatchNorm1d take (B, C, T), this model (B, T, C). Of a recurrent module the
        next one takes y alone. Weights are copied, from any device; float16 and bfloat16 are widened to float32.
        isa, weight_dtype: as for the class.

        Raises
        ------
        TypeError, ValueError
            A module or one of its options has no counterpart here; the message lists every one of them.
        """
        found = operations_from_sequential(module)
        made = (ops.OPS[op.name](**op.arguments) if isinstance(op, Operation) else op for op in found)
        return cls(*made, isa=isa, weight_dtype=weight_dtype)

    def with_weight_dtype(self, weight_dtype: WeightDtype) -> Self:
        """Make the same model whose recurrent layers keep their weights in another type, with the same isa.

        Raises
        ------
        ValueError
            Weights of a recurrent layer are smaller than float32 already, one does not fit, or there is no recurrent
            layer; the message names the operations.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> weights = {"weight_ih_l0": np.eye(256, 64, dtype="f4"), "weight_hh_l0": np.eye(256, 64, dtype="f4")}
        >>> model = fastrnn.Sequential(fastrnn.LSTM.from_state_dict(weights), "relu", isa="scalar")
        >>> model.with_weight_dtype("int8")
        Sequential(LSTM(64, 64, weight_dtype='int8'), relu(), batch_first=True, isa='scalar')
        """
        spec = self.spec
        faults = [
            f"{spec.name(index)} has weights of {op.weight_dtype}, wanted float32: other types are made from it"
            for index, op in enumerate(spec.ops)
            if isinstance(op, LayerSpec) and op.weight_dtype not in (None, "float32")
        ]
        if faults:
            raise ValueError("; ".join(faults))
        return type(self).from_spec(spec, isa=self._asked_isa, weight_dtype=weight_dtype)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model to a file that ``fastrnn.load`` reads: the same outputs, bit for bit.

        A standard safetensors file, with arrays under the names of an ``nn.Sequential`` such as ``0.weight``, and the
        operations' options in its metadata; not isa, which belongs to the machine. A file that is there is replaced.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        native.write_model(self.spec, path)

    @property
    def spec(self) -> ModelSpec:
        """What it computes, with new arrays of float32, also of weights that are kept in a smaller type.

        BatchNorm is folded into the operation beside it or a Scale.
        """
        return with_weights(self._shape, self._engine)

    @property
    def nbytes(self) -> int:
        """Bytes of the prepared weights."""
        return self._engine.nbytes

    @property
    def streams(self) -> bool:
        """Whether :meth:`stream` is possible."""
        return self._engine.first_not_streamed < 0

    @property
    def stride(self) -> int:
        """Product of the convolutions' strides: every call of a stream takes a multiple of so many steps."""
        return self._engine.stride

    def output_steps(self, steps: StepsT) -> StepsT:
        """How many steps y has for rows of so many steps of x: fewer or more only after a Conv1d.

        Parameters
        ----------
        steps : a number, or an array of int64

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> model = fastrnn.Sequential(fastrnn.Conv1d(np.ones((4, 2, 3), "f4"), stride=2, padding="causal"))
        >>> model.output_steps(np.array([0, 1, 2, 5]))
        array([0, 1, 1, 3])
        """
        return self._shape.output_steps(steps)

    def __repr__(self) -> str:
        return (
            f"Sequential({', '.join(map(describe, self._shape.ops))}, batch_first={self.batch_first}, isa={self.isa!r})"
        )

    @overload
    def __call__(self, x: PackedT, *, casting: Casting = "safe") -> PackedT | NDArray[Any]: ...
    @overload
    def __call__(self, x: list[SequenceT], *, casting: Casting = "safe") -> list[NDArray[Any]] | NDArray[Any]: ...
    @overload  # an array, or a list for nested lists of unequal lengths
    def __call__(
        self,
        x: NestedRows | Sequence[Sequence[int]],
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        out: NDArray[Any] | None = None,
        casting: Casting = "safe",
    ) -> Any: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        out: NDArray[Any] | None = None,
        casting: Casting = "safe",
    ) -> NDArray[Any]: ...
    def __call__(
        self,
        x: Any,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        out: NDArray[Any] | None = None,
        casting: Casting = "safe",
    ) -> Any:
        """Run sequences.

        Parameters
        ----------
        x : (B, T, I) array, (T, B, I) if not batch_first; (T, I) for one sequence; a list of (T_i, I); Packed
            Of ids, which have any integer type: (B, T), (T, B), (T,), a list of (T_i,). Everything else as of the
            layers. Padding may hold anything, also as ids.
        lengths : (B,) integers from 0 to T, in any order; None: all T. Array input only.
        mask : booleans, one for each step of x; None: every step counts. Array input only.
            Any pattern. A row runs as if its masked steps were removed. So does it for the steps with id 0 after an
            Embedding with mask_zero, in every form of x.
        out : array to write y into
            C-contiguous, of y's shape and dtype, not overlapping x. Array input only.
        casting : {"no", "equiv", "safe", "same_kind", "unsafe"}
            Which conversions of x to float32 are allowed; see the layers. Not for ids.

        Returns
        -------
        y : of the same form as x, with S = output_steps(T) steps: (B, S, O), (S, B, O), (S, O), list, Packed or
            PackedSequence; if the model pools (B, O), or (O,) for one sequence, in the order of the rows
            Zero past a row's end, and at steps that are left out. Where a model with a mask changes the number of
            steps, a row's results begin at its first step. A row without steps pools to zeros, or with Linear or
            other operations after the pooling to what these make of zeros.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit; the message says which, what was found and what was wanted, for an id its place.
        """
        check_casting(casting)
        is_list = is_list_of_sequences(x)
        if not (is_list or isinstance(x, Packed) or (isinstance(x, tuple) and is_torch_packed(x))):
            return run_array(self, x, lengths, mask, out, casting)
        for name, value in (("lengths", lengths), ("mask", mask), ("out", out)):
            if value is not None:
                raise TypeError(f"{name} is given, but x is a {type(x).__name__}: wanted None")
        if isinstance(x, Packed):
            return run_packed(self, x, casting)
        return run_list(self, x, casting) if is_list else run_torch(self, x, casting)

    def stream(self, batch_size: int = 1) -> ModelStream:
        """Open a live stream of batch_size rows, its state zero.

        Raises
        ------
        ValueError
            An operation needs later steps; the message names it: the reverse direction, Reverse, pooling, and a
            Conv1d other than a causal one.
        """
        if not self.streams:
            raise ValueError(self._shape.why_not_streamed(self._engine.first_not_streamed))
        return open_stream(self, as_integer(batch_size, "batch_size", 0), ModelStream)


def _spec_of(operations: tuple[Any, ...], batch_first: bool | None) -> ModelSpec:
    """The spec of what Sequential takes, not yet validated."""
    chain: list[Any] = []
    orders: dict[bool, str] = {}  # batch_first of the layers -> one that has it
    faults: list[str] = []
    for index, op in enumerate(operations):
        name = f"ops[{index}]"
        if isinstance(op, Sequential):
            chain += op.spec.ops
            orders.setdefault(op.batch_first, name)
        elif isinstance(op, Layer):
            if op.dtype != np.float32:
                faults.append(f"{name} is an {op.kind.upper()} of {op.dtype}, wanted float32")
            chain.append(op._unpack())
            orders.setdefault(op.batch_first, name)
        elif isinstance(op, str):
            chain.append(Activation.of(op))
        else:
            chain.append(op)
            if isinstance(op, LayerSpec):
                orders.setdefault(op.batch_first, name)
    if faults:
        raise ValueError("; ".join(faults))
    if batch_first is None and len(orders) > 1:
        raise ValueError(
            f"batch_first is True of {orders[True]} and False of {orders[False]}, wanted it as an argument"
        )
    return ModelSpec(tuple(chain), next(iter(orders), True) if batch_first is None else batch_first)


def _reopen(kind: type[Sequential], spec: ModelSpec, isa: str | None) -> Sequential:
    return kind.from_spec(spec, isa=isa)
