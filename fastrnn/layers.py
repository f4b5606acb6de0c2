"""LSTM, GRU and RNN: immutable recurrent layers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, NamedTuple, Protocol, Self, TypeVar, overload

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from . import _core, runtime
from .arguments import Casting, as_array, as_floats, as_integer, check_casting
from .files import native
from .importers import flax, pytorch
from .masks import check_mask, fill_masked, is_right_padded, packed_steps
from .packed import Packed, PackedLike, as_packed, is_torch_packed, with_torch_data
from .schedule import Schedule, are_full, check_lengths, schedule
from .spec import Activation, CellKind, CellSpec, LayerSpec, activations_of
from .streams import Stream, open_stream

Backend = Literal["auto", "fused", "blas"]
PastEnd = Literal["zero", "carry"]

#: A cell's arrays, in the order in which the engine takes and returns them.
PARTS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr", "peephole")

MOST_UNROLLED = 1 << 24  # steps; a plan of them takes hundreds of megabytes a layer


class State(NamedTuple):
    """The LSTM's state: h (L*D, B, P) and c (L*D, B, H)."""

    h: NDArray[Any]
    c: NDArray[Any]


StateLike = ArrayLike | State | tuple[ArrayLike, ArrayLike] | None

if TYPE_CHECKING:
    import typing_extensions

    #: What a layer returns as its state. By default Any, so that annotations may say Layer (typing's from Python 3.13).
    StateT = typing_extensions.TypeVar("StateT", default=Any)
else:
    StateT = TypeVar("StateT")


class SequenceLike(Protocol):
    """Arrays and tensors, to type checkers."""

    @property
    def shape(self) -> Any: ...
    def __array__(self) -> NDArray[Any]: ...


PackedT = TypeVar("PackedT", bound=PackedLike)
SequenceT = TypeVar("SequenceT", bound=SequenceLike)
NestedRows = Sequence[Sequence[Sequence[float]]]


class Layer(Generic[StateT]):
    """What LSTM, GRU and RNN share. L layers, D directions, I inputs, H hidden units, P outputs.

    Weights are copied at construction and never change, so a layer may be shared by threads, and its copies,
    shallow or deep, are the layer itself. A pickle holds the weights in PyTorch's layout, and ``backend`` and ``isa``
    as they were given: where ``isa`` was None, the layer that is loaded runs on the best instruction set that there
    is; where one was named, on that one, and loading fails with ValueError on a machine without it. Results have
    the same bits where the instruction set is the same.

    Parameters
    ----------
    spec : LayerSpec
        The weights and options; ``from_torch`` and ``from_state_dict`` make one.
    backend : {"auto", "fused", "blas"}
        "fused": products and gates together on prepacked weights; float32. "blas": products through
        SciPy's BLAS. "auto": fused for float32 wherever there is a vector kernel, or where an
        instruction set is named. With "fused" the bits are the same on any number of threads, with
        "blas" as long as BLAS keeps its number of threads (``OPENBLAS_NUM_THREADS``, threadpoolctl).
    dtype : float32, float64 or None
        What to compute in; None takes the weights'. float64 runs through BLAS: its bits are the same
        as long as BLAS keeps its number of threads.
    isa : str or None
        The instruction set, one of ``fastrnn.info()["isas"]``; None takes FASTRNN_ISA from the
        environment, else the best.

    Raises
    ------
    TypeError, ValueError
        A weight or option does not fit; the message names everything that does not.
    """

    kind: ClassVar[CellKind]

    def __init__(
        self, spec: LayerSpec, *, backend: Backend = "auto", dtype: DTypeLike | None = None, isa: str | None = None
    ) -> None:
        if not isinstance(spec, LayerSpec):
            raise TypeError(
                f"spec is {type(spec).__name__}, wanted a LayerSpec; from_torch and from_state_dict make one"
            )
        if spec.kind != self.kind:
            raise ValueError(f"spec is of a {spec.kind}, wanted {self.kind}")
        spec.validate()
        self.input_size, self.hidden_size = int(spec.input_size), int(spec.hidden_size)
        self.proj_size, self.num_layers = int(spec.proj_size), int(spec.num_layers)
        self.bidirectional, self.batch_first = bool(spec.bidirectional), bool(spec.batch_first)
        self.reverse = bool(spec.reverse)
        self.dtype = _choose_dtype(spec, dtype)
        self._asked = {"backend": backend, "isa": isa}
        self.isa = runtime.forced_isa() if isa is None else runtime.check_isa(isa, "isa")
        self.backend = _choose_backend(backend, self.dtype, self.isa)
        cells = [
            (
                tuple(
                    None if array is None else np.ascontiguousarray(array, self.dtype)
                    for array in (getattr(c, part) for part in PARTS)
                ),
                [(a.name, a.alpha, a.beta) for a in activations_of(spec.kind, c)],
                tuple(clip or 0.0 for clip in (c.cell_clip, c.gate_clip, c.proj_clip)),
                c.coupled,
                c.linear_before_reset,
            )
            for c in spec.cells
        ]
        self._engine = _core.Layer(
            spec.kind,
            self.dtype,
            self.input_size,
            self.hidden_size,
            self.proj_size,
            self.num_layers,
            self.bidirectional,
            self.reverse,
            cells,
            self.isa,
            self.backend == "blas",
        )
        self.isa = self._engine.isa if self.backend == "fused" else None
        self._frozen = True

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute, during construction only: outputs are laid out by what the engine was built with."""
        if getattr(self, "_frozen", False):
            raise AttributeError(f"{name} cannot be set: a layer is immutable")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} cannot be deleted: a layer is immutable")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    def __getstate__(self) -> dict[str, Any]:
        state = vars(self).copy()
        del state["_engine"], state["_frozen"]
        return state | {"_spec": self._unpack()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            if name != "_spec":
                setattr(self, name, value)
        Layer.__init__(self, state["_spec"], dtype=state["dtype"], **state["_asked"])

    def _unpack(self) -> LayerSpec:
        """What the layer was made of, in the layer's dtype; biases added up where the cell adds them."""
        cells = []
        for arrays, activations, clips, coupled, linear_before_reset in self._engine.unpack():
            cell = CellSpec(
                **dict(zip(PARTS, arrays, strict=True)),
                activations=tuple(Activation(*activation) for activation in activations),
                cell_clip=clips[0] or None,
                gate_clip=clips[1] or None,
                proj_clip=clips[2] or None,
                coupled=coupled,
                linear_before_reset=linear_before_reset,
            )
            cells.append(cell)
        sizes = self.input_size, self.hidden_size, self.num_layers, self.bidirectional, self.proj_size
        return LayerSpec(self.kind, cells, *sizes, self.batch_first, self.reverse)

    @classmethod
    def from_torch(
        cls, module: Any, *, backend: Backend = "auto", dtype: DTypeLike | None = None, isa: str | None = None
    ) -> Self:
        """Take over a PyTorch module of the same name, with its ``batch_first``, or a cell, such as ``nn.LSTMCell``.

        Weights are copied, from any device; float16 and bfloat16 are widened to float32, exactly. A cell makes a
        layer of its own, with ``batch_first``. The module may be scripted; weights that weight_norm, a parametrisation
        or pruning computes are taken as computed. backend, dtype, isa: as of the class.

        Raises
        ------
        TypeError, ValueError
            The module is of another kind, or its weights have no data or do not fit.
        """
        return cls(pytorch.spec_from_module(module), backend=backend, dtype=dtype, isa=isa)

    @classmethod
    def from_state_dict(
        cls,
        mapping: Mapping[str, Any],
        prefix: str = "",
        *,
        nonlinearity: pytorch.Nonlinearity | None = None,
        batch_first: bool = True,
        backend: Backend = "auto",
        dtype: DTypeLike | None = None,
        isa: str | None = None,
    ) -> Self:
        """Build from arrays under PyTorch's names, such as ``weight_ih_l0_reverse``, or a cell's ``weight_ih``.

        Parameters
        ----------
        mapping : names to arrays or tensors of PyTorch's shapes
            float32 or float64; float16 and bfloat16 are widened to float32, exactly. Tensors may be on any device.
        prefix : only names that start with it count, and it is cut off them; its last dot may be left out
        nonlinearity : "tanh" or "relu" of an RNN, which needs it: a state dict cannot tell; None for the others
        batch_first : whether x and y are (B, T, .) or (T, B, .)
        backend, dtype, isa : as of the class

        Raises
        ------
        TypeError, ValueError
            Weights are missing, surplus or misshapen; the message lists all of them. No weights are under the
            prefix; the message lists the prefixes that have some.
        """
        spec = pytorch.spec_from_state_dict(
            cls.kind, mapping, prefix, nonlinearity=nonlinearity, batch_first=batch_first
        )
        return cls(spec, backend=backend, dtype=dtype, isa=isa)

    @classmethod
    def from_flax(
        cls,
        params: Mapping[str, Any],
        prefix: str = "",
        *,
        nonlinearity: pytorch.Nonlinearity | None = None,
        batch_first: bool = True,
        backend: Backend = "auto",
        dtype: DTypeLike | None = None,
        isa: str | None = None,
    ) -> Self:
        """Take over one cell of Flax, linen's or nnx's, from its parameters.

        Its activations have to be Flax's defaults, and a SimpleCell's ``residual`` False: parameters do not tell.

        Parameters
        ----------
        params : nested mapping of names to arrays, such as ``model.init(...)`` or ``nnx.to_pure_dict(state)``
            ``LSTMCell``, ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell``, at any depth.
        prefix : where the cell stands, such as ``"params.encoder.cell"``, if there are several
        nonlinearity : "tanh" or "relu" of an RNN, which needs it; None for the others
        batch_first, backend, dtype, isa : as of ``from_state_dict``

        Raises
        ------
        TypeError, ValueError
            There is no such cell or there are several, or its arrays do not fit; the message lists every reason.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> inputs = {f"i{gate}": {"kernel": np.ones((3, 2), "f4"), "bias": np.zeros(2, "f4")} for gate in "rzn"}
        >>> recurrent = {f"h{gate}": {"kernel": np.ones((2, 2), "f4")} for gate in "rzn"}
        >>> fastrnn.GRU.from_flax({"params": {"cell": inputs | recurrent}}).hidden_size
        2
        """
        spec = flax.spec_from_params(cls.kind, params, prefix, nonlinearity=nonlinearity, batch_first=batch_first)
        return cls(spec, backend=backend, dtype=dtype, isa=isa)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the layer to a file that ``fastrnn.load`` reads: the same outputs, bit for bit.

        A standard safetensors file with PyTorch's names, and the layer's options in its metadata; not backend and isa,
        which belong to the machine. A file that is there is replaced.

        Raises
        ------
        OSError
            The file cannot be written.
        """
        native.write(self._unpack(), path)

    @property
    def nbytes(self) -> int:
        """Bytes of the prepared weights."""
        return self._engine.nbytes

    @property
    def num_directions(self) -> int:
        return 2 if self.bidirectional else 1

    @property
    def output_size(self) -> int:
        """Width D*P of y."""
        return self.num_directions * (self.proj_size or self.hidden_size)

    def __repr__(self) -> str:
        options = "".join(
            f", {name}={getattr(self, name)!r}"
            for name in ("num_layers", "bidirectional", "reverse", "proj_size", "batch_first", "backend", "isa")
        )
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}{options}, dtype={self.dtype})"

    @overload
    def __call__(
        self, x: PackedT, state: StateLike = None, *, past_end: PastEnd = "zero", casting: Casting = "safe"
    ) -> tuple[PackedT, StateT]: ...
    @overload
    def __call__(
        self, x: list[SequenceT], state: StateLike = None, *, past_end: PastEnd = "zero", casting: Casting = "safe"
    ) -> tuple[list[NDArray[Any]], StateT]: ...
    @overload  # an array if all rows have the same length, else a list
    def __call__(  # type: ignore[overload-overlap]
        self,
        x: NestedRows,
        state: StateLike = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        past_end: PastEnd = "zero",
        out: NDArray[Any] | None = None,
        casting: Casting = "safe",
    ) -> tuple[NDArray[Any] | list[NDArray[Any]], StateT]: ...
    @overload
    def __call__(
        self,
        x: ArrayLike,
        state: StateLike = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        past_end: PastEnd = "zero",
        out: NDArray[Any] | None = None,
        casting: Casting = "safe",
    ) -> tuple[NDArray[Any], StateT]: ...
    def __call__(
        self,
        x: Any,
        state: StateLike = None,
        *,
        lengths: ArrayLike | None = None,
        mask: ArrayLike | None = None,
        past_end: PastEnd = "zero",
        out: NDArray[Any] | None = None,
        casting: Casting = "safe",
    ) -> tuple[Any, Any]:
        """Run sequences.

        Parameters
        ----------
        x : (B, T, I) array, (T, B, I) if not batch_first; (T, I) for one sequence; a list of (T_i, I); Packed
            Any strides (a last axis that is not adjacent costs a copy); padding changes nothing. PyTorch's
            PackedSequence is taken as Packed is. Nested lists of Python numbers are converted
            to an array of the layer's dtype, or, if their lengths differ, to a list of sequences.
        state : initial state, None for zeros
            h (L*D, B, P), and for an LSTM the pair (h, c) with c (L*D, B, H); without B for one sequence.
        lengths : (B,) integers from 0 to T, in any order; None: all T. Array input only.
        mask : booleans, x's shape without the last axis; None: every step counts. Array input only.
            A step that is False leaves the state as it was and may hold anything, in any pattern: a row runs
            as if its masked steps were taken out, in both directions and in every layer. With lengths, a step
            counts where both say so.
        past_end : {"zero", "carry"}
            What stands in y past a row's end: zeros, or each direction's final h. With a mask, what stands at
            every step that does not count: zeros, or the output before it (in a reverse direction: after it),
            which is zeros where there is none.
        out : array to write y into
            C-contiguous, of y's shape and dtype, overlapping neither x nor state. Array input only.
        casting : {"no", "equiv", "safe", "same_kind", "unsafe"}
            Which conversions of x and state to the layer's dtype are allowed, in NumPy's words. By default those
            that lose nothing: float16, bool and integers of up to 16 bits into float32, those of up to 32 bits
            and float32 into float64. "same_kind": of all real numbers, rounded, such as float64 into float32.
            Python's own numbers have no dtype and take the layer's.

        Returns
        -------
        y : what x is: (B, T, D*P), (T, D*P), list, Packed or PackedSequence (of a tensor with memory of its own)
        state : h after each row's last step, or State(h, c); a row of length zero keeps its initial state
            NumPy arrays, whatever x is.

        Raises
        ------
        TypeError, ValueError
            An argument does not fit; the message says which, what was found and what was wanted.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> weights = {"weight_ih_l0": np.eye(3, 2, dtype="f4"), "weight_hh_l0": np.eye(3, 1, dtype="f4")}
        >>> gru = fastrnn.GRU.from_state_dict(weights)
        >>> y, h = gru(np.ones((2, 5, 2), np.float32), lengths=[3, 5])
        >>> y.shape, h.shape
        ((2, 5, 1), (1, 2, 1))
        """
        if not isinstance(past_end, str) or past_end not in ("zero", "carry"):
            raise ValueError(f"past_end is {past_end!r}, wanted 'zero' or 'carry'")
        check_casting(casting)
        is_list = isinstance(x, list) and _is_list_of_sequences(x)
        if not (is_list or isinstance(x, Packed) or (isinstance(x, tuple) and is_torch_packed(x))):
            return self._run_array(x, state, lengths, mask, past_end, out, casting)
        for name, value in (("lengths", lengths), ("mask", mask), ("out", out)):
            if value is not None:
                raise TypeError(f"{name} is given, but x is a {type(x).__name__}: wanted None")
        if isinstance(x, Packed):
            return self._run_packed(x, state, casting)
        return self._run_list(x, state, casting) if is_list else self._run_torch(x, state, casting)

    def stream(self, batch_size: int = 1) -> Stream[StateT]:
        """Open a live stream of batch_size rows, its state zero.

        Raises
        ------
        ValueError
            The layer has the reverse direction, which starts at an end that a stream does not have.
        """
        if self.bidirectional:
            raise ValueError(
                "the layer is bidirectional, wanted one direction: a stream has no last step to start from"
            )
        if self.reverse:
            raise ValueError(
                "the layer runs in reverse, wanted the forward direction: a stream has no last step to start from"
            )
        return open_stream(self, self._engine, as_integer(batch_size, "batch_size", 0))

    def unroll(self, num_steps: int) -> Unrolled[StateT]:
        """Lay out the fixed-length path for exactly num_steps steps, for comparison with the packed one."""
        steps = as_integer(num_steps, "num_steps", 0)
        if steps > MOST_UNROLLED:
            raise ValueError(
                f"num_steps is {steps}, wanted at most {MOST_UNROLLED}: every step takes memory of its own"
            )
        return Unrolled(self, self._engine, steps)

    def _run_array(
        self,
        x: ArrayLike,
        state: StateLike,
        lengths: ArrayLike | None,
        mask: ArrayLike | None,
        past_end: PastEnd,
        out: NDArray[Any] | None,
        casting: Casting,
        plan: _core.Unrolled | None = None,
    ) -> tuple[Any, Any]:
        array = as_floats(x, "x", self.dtype, casting)
        if array.ndim not in (2, 3):
            raise ValueError(f"x has shape {array.shape}, wanted (B, T, I), or (T, I) for one sequence")
        self._check_width(array, "x")
        unbatched = array.ndim == 2
        time_major = not unbatched and not self.batch_first
        rows_first = array[None] if unbatched else array.swapaxes(0, 1) if time_major else array
        B, T = rows_first.shape[:2]
        result = self._new_output(out, array, (*array.shape[:-1], self.output_size))
        y = result if out is None else np.asarray(result)  # a subclass may index otherwise
        y_rows = y[None] if unbatched else y.swapaxes(0, 1) if time_major else y
        h0, c0 = self._check_state(state, B, unbatched, casting)
        for part in (h0, c0):
            if out is not None and part is not None and np.may_share_memory(y, part):
                raise ValueError("out overlaps state, wanted memory of its own")
        checked = None
        if lengths is not None and not are_full(lengths, B, T):
            checked = check_lengths(lengths, B, T)
        hn, cn = self._new_state(B)
        if mask is not None:
            counted = check_mask(mask, array.shape[:-1])
            counted = counted[None] if unbatched else counted.swapaxes(0, 1) if time_major else counted
            if checked is not None:
                counted &= np.arange(T) < checked[:, None]
            self._run_masked(rows_first, y_rows, counted, past_end, (h0, c0, hn, cn))
        else:
            order = None if checked is None else self._order(checked)
            fill = None if order is None else past_end
            self._engine.run(_vectors_adjacent(rows_first), y_rows, order, h0, c0, hn, cn, plan, fill)
        if unbatched:
            hn, cn = hn[:, 0], None if cn is None else cn[:, 0]
        return result, self._join_state(hn, cn)

    def _run_masked(
        self, x: NDArray[Any], y: NDArray[Any], mask: NDArray[np.bool_], past_end: PastEnd, states: tuple[Any, ...]
    ) -> None:
        """Run the steps of x (B, T, I) where mask (B, T) is True into y (B, T, D*P); states are h0, c0, hn, cn."""
        counts = mask.sum(axis=1, dtype=np.int64)
        if is_right_padded(mask):
            self._engine.run(_vectors_adjacent(x), y, self._order(counts), *states)
        else:
            order = schedule(counts)
            rows, steps = packed_steps(mask, order)
            y[rows, steps] = self._run_steps(x[rows, steps], order, states)
        fill_masked(y, mask, past_end, (False, True) if self.bidirectional else (self.reverse,))

    @staticmethod
    def _order(lengths: NDArray[np.int64]) -> tuple[Any, ...]:
        """The engine's schedule; rows that stand in order already need no indices."""
        order = schedule(lengths)
        identity = bool((lengths[1:] <= lengths[:-1]).all())
        return order.lengths, order.batch_sizes, None if identity else order.sorted_indices, None

    def _run_list(self, x: Any, state: StateLike, casting: Casting) -> tuple[list[NDArray[Any]], Any]:
        rows = []
        for i, sequence in enumerate(x):
            array = as_floats(sequence, f"x[{i}]", self.dtype, casting)
            if array.ndim != 2:
                raise ValueError(f"x[{i}] has shape {array.shape}, wanted (T, {self.input_size})")
            self._check_width(array, f"x[{i}]")
            rows.append(np.ascontiguousarray(array))
        h0, c0 = self._check_state(state, len(rows), False, casting)
        hn, cn = self._new_state(len(rows))
        y = [np.empty((len(row), self.output_size), self.dtype) for row in rows]
        order = schedule(np.array([len(row) for row in rows], np.int64))
        self._engine.run(rows, y, (order.lengths, order.batch_sizes, order.sorted_indices, None), h0, c0, hn, cn)
        return y, self._join_state(hn, cn)

    def _run_packed(self, x: Packed, state: StateLike, casting: Casting) -> tuple[Packed, Any]:
        data = np.ascontiguousarray(as_floats(x.data, "x.data", self.dtype, casting))
        if data.ndim != 2:
            raise ValueError(f"x.data has shape {data.shape}, wanted (sum of lengths, {self.input_size})")
        self._check_width(data, "x.data")
        order = x.schedule
        if len(data) != order.batch_sizes.sum():
            raise ValueError(f"x.data has {len(data)} steps, but x.batch_sizes adds up to {order.batch_sizes.sum()}")
        B = len(order.lengths)
        h0, c0 = self._check_state(state, B, False, casting)
        hn, cn = self._new_state(B)
        y = self._run_steps(data, order, (h0, c0, hn, cn))
        return Packed(y, x.batch_sizes, x.sorted_indices, x.unsorted_indices), self._join_state(hn, cn)

    def _run_torch(self, x: Any, state: StateLike, casting: Casting) -> tuple[Any, Any]:
        y, last = self._run_packed(as_packed(x, "x"), state, casting)
        return with_torch_data(x, y.data), last

    def _run_steps(self, data: NDArray[Any], order: Schedule, states: tuple[Any, ...]) -> NDArray[Any]:
        """Run packed steps (N, I) to packed outputs (N, D*P); states are h0, c0, hn, cn."""
        y = np.empty((len(data), self.output_size), self.dtype)
        offsets = np.cumsum(order.batch_sizes) - order.batch_sizes
        self._engine.run(data, y, (order.lengths, order.batch_sizes, order.sorted_indices, offsets), *states)
        return y

    def _check_width(self, array: NDArray[Any], name: str) -> None:
        if array.shape[-1] != self.input_size:
            found = f"has shape {array.shape}: its last axis is {array.shape[-1]} wide"
            raise ValueError(f"{name} {found}, wanted {self.input_size}")

    def _new_output(self, out: Any, x: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        if out is None:
            return np.empty(shape, self.dtype)
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out is {type(out).__name__}, wanted a NumPy array")
        array = np.asarray(out)  # a subclass may say otherwise
        if array.dtype != self.dtype or not array.dtype.isnative:
            raise TypeError(f"out is {array.dtype.str}, wanted {self.dtype.str}")
        if array.shape != shape:
            raise ValueError(f"out has shape {array.shape}, wanted {shape}")
        if not array.flags.carray:
            raise ValueError("out is not C-contiguous, aligned and writeable, wanted an array that is")
        if np.may_share_memory(array, x):
            raise ValueError("out overlaps x, wanted memory of its own")
        return out

    def _new_state(self, B: int) -> tuple[NDArray[Any], NDArray[Any] | None]:
        count = self.num_layers * self.num_directions
        h = np.empty((count, B, self.proj_size or self.hidden_size), self.dtype)
        return h, np.empty((count, B, self.hidden_size), self.dtype) if self.kind == "lstm" else None

    def _join_state(self, h: NDArray[Any], c: NDArray[Any] | None) -> Any:
        return h if c is None else State(h, c)

    def _check_state(
        self, state: StateLike, B: int, unbatched: bool, casting: Casting = "safe"
    ) -> tuple[NDArray[Any] | None, NDArray[Any] | None]:
        if state is None:
            return None, None
        if self.kind != "lstm":
            width = self.proj_size or self.hidden_size
            return self._check_state_part(state, "state", width, B, unbatched, casting), None
        if not isinstance(state, (tuple, list)) or len(state) != 2:
            found = f"{len(state)} entries" if isinstance(state, (tuple, list)) else type(state).__name__
            raise TypeError(f"state is {found}, wanted the pair (h, c)")
        h = self._check_state_part(state[0], "state h", self.proj_size or self.hidden_size, B, unbatched, casting)
        return h, self._check_state_part(state[1], "state c", self.hidden_size, B, unbatched, casting)

    def _check_state_part(
        self, part: Any, name: str, width: int, B: int, unbatched: bool, casting: Casting
    ) -> NDArray[Any]:
        array = as_floats(part, name, self.dtype, casting)
        count = self.num_layers * self.num_directions
        shape = (count, width) if unbatched else (count, B, width)
        if array.shape != shape:
            raise ValueError(f"{name} has shape {array.shape}, wanted {shape}")
        return np.ascontiguousarray(array)


class LSTM(Layer[State]):
    """Long short-term memory (Hochreiter and Schmidhuber 1997), shapes and meaning as ``torch.nn.LSTM``.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> weights = {"weight_ih_l0": np.eye(4, 2, dtype="f4"), "weight_hh_l0": np.eye(4, 1, dtype="f4")}
    >>> y, (h, c) = fastrnn.LSTM.from_state_dict(weights)(np.ones((3, 7, 2), np.float32))
    >>> y.shape
    (3, 7, 1)
    """

    kind = "lstm"


class GRU(Layer[NDArray[Any]]):
    """Gated recurrent unit (Cho et al. 2014), shapes and meaning as ``torch.nn.GRU``: reset after the matmul."""

    kind = "gru"


class RNN(Layer[NDArray[Any]]):
    """Elman's network (1990), shapes and meaning as ``torch.nn.RNN``.

    Examples
    --------
    >>> import numpy as np, fastrnn
    >>> weights = {"weight_ih_l0": -np.eye(2, dtype="f4"), "weight_hh_l0": np.eye(2, dtype="f4")}
    >>> y, h = fastrnn.RNN.from_state_dict(weights, nonlinearity="relu")(np.ones((1, 3, 2), np.float32))
    >>> float(y.max())
    0.0
    """

    kind = "rnn"


#: The layers by the kind of their cells.
LAYERS: dict[str, type[Layer]] = {layer.kind: layer for layer in (LSTM, GRU, RNN)}


class Unrolled(Generic[StateT]):
    """The fixed-length path: every row runs all T steps. Made by ``layer.unroll(T)``."""

    def __init__(self, layer: Layer[StateT], engine: _core.Layer, num_steps: int) -> None:
        self._layer, self._plan = layer, _core.Unrolled(engine, num_steps)
        self.num_steps = num_steps

    def __reduce__(self) -> tuple[Any, ...]:
        return Layer.unroll, (self._layer, self.num_steps)

    def __call__(
        self, x: ArrayLike, state: StateLike = None, *, out: NDArray[Any] | None = None, casting: Casting = "safe"
    ) -> tuple[NDArray[Any], StateT]:
        """Run sequences of exactly T steps; arguments and results as the layer's.

        Raises
        ------
        ValueError
            x has another number of steps: a static graph is built for one.
        """
        shape = as_array(x, "x").shape
        axis = 1 if len(shape) == 3 and self._layer.batch_first else 0
        if len(shape) in (2, 3) and shape[axis] != self.num_steps:
            raise ValueError(f"x has {shape[axis]} steps, but the layer was unrolled for {self.num_steps}")
        return self._layer._run_array(x, state, None, None, "zero", out, check_casting(casting), self._plan)


def _choose_dtype(spec: LayerSpec, dtype: DTypeLike | None) -> np.dtype[Any]:
    chosen = np.dtype(spec.cells[0].weight_ih.dtype if dtype is None else dtype)
    if chosen not in (np.float32, np.float64):
        raise TypeError(f"dtype is {chosen}, wanted float32 or float64")
    return chosen


def _choose_backend(backend: Backend, dtype: np.dtype[Any], isa: str | None) -> Literal["fused", "blas"]:
    if not isinstance(backend, str) or backend not in ("auto", "fused", "blas"):
        raise ValueError(f"backend is {backend!r}, wanted 'auto', 'fused' or 'blas'")
    if backend == "fused" and dtype == np.float64:
        raise ValueError("backend is 'fused' and dtype float64, wanted float32, or backend 'blas'")
    if backend != "auto":
        return backend
    has_vectors = isa is not None or _core.available_isas()[0] != "scalar"
    return "fused" if dtype == np.float32 and has_vectors else "blas"


def _is_list_of_sequences(x: list[Any]) -> bool:
    """Whether a list holds sequences, and does not spell out an array in Python's numbers."""
    if not x:
        return True
    for row in x:  # any() would leave a generator, and where memory ends Python prints that it cannot close it
        if hasattr(row, "__array__") or hasattr(row, "shape"):
            return True
    return len({len(row) for row in x if isinstance(row, list | tuple)}) > 1


def _vectors_adjacent(x: NDArray[Any]) -> NDArray[Any]:
    """x with each step's vector in one piece; the outer strides stay as they are."""
    width_ok = x.shape[-1] <= 1 or x.strides[-1] == x.itemsize
    steps_ok = all(stride % x.itemsize == 0 for stride in x.strides[:-1])
    return x if width_ok and steps_ok else np.ascontiguousarray(x)
