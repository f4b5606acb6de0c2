"""The base class of LSTM, GRU and RNN: construction, copies and pickles, and the arguments of a call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar, overload

from numpy.typing import ArrayLike, DTypeLike, NDArray

from .. import runtime
from ..arguments import Casting, as_integer, check_casting
from ..files import native
from ..immutable import Immutable
from ..importers import flax, pytorch
from ..masks import PastEnd
from ..packed import Packed, PackedLike, is_torch_packed
from ..spec import CellKind, LayerSpec, WeightDtype
from ..states import StateLike, StateT
from ..streams import Stream, open_stream
from .calls import is_list_of_sequences, run_array, run_list, run_packed, run_torch
from .engine import Backend, build_engine, choose_backend, choose_dtype, choose_weight_dtype, unpack_cells
from .unrolled import Unrolled

MOST_UNROLLED = 1 << 24  # steps; such a layout takes hundreds of megabytes for each layer


class SequenceLike(Protocol):
    """Arrays and tensors, for type checkers."""

    @property
    def shape(self) -> Any: ...
    def __array__(self) -> NDArray[Any]: ...


PackedT = TypeVar("PackedT", bound=PackedLike)
SequenceT = TypeVar("SequenceT", bound=SequenceLike)
NestedRows = Sequence[Sequence[Sequence[float]]]


class Layer(Immutable, Generic[StateT]):
    """What LSTM, GRU and RNN share. L layers, D directions, I inputs, H hidden units, P outputs.

    Weights are copied at construction and never change, so a layer may be shared by threads, and its copies,
    shallow or deep, are the layer itself. A pickle holds the weights in PyTorch's layout, and ``backend`` and ``isa``
    as they were given. If ``isa`` was None, the loaded layer uses the best instruction set of the machine; if one was
    named, it uses that one, and loading raises ValueError on a machine without it. Results have the same bits if the
    instruction set is the same.

    Parameters
    ----------
    spec : LayerSpec
        The weights and options; ``from_torch`` and ``from_state_dict`` make one.
    backend : {"auto", "fused", "blas"}
        "fused": kernels that compute products and gates together on prepacked weights, for float32. "blas":
        products by SciPy's BLAS. "auto": "fused" for float32 if the machine has a vector kernel or an instruction
        set is named, else "blas". With "fused" the bits are the same on any number of threads, with "blas" as long
        as BLAS keeps its number of threads (``OPENBLAS_NUM_THREADS``, threadpoolctl).
    dtype : float32, float64 or None
        The type to compute in; None takes the weights' type. float64 uses BLAS: its bits are the same
        as long as BLAS keeps its number of threads.
    isa : str or None
        The instruction set, one of ``fastrnn.info()["isas"]``, or of ``["int8_isas"]`` for weights of int8; None takes
        FASTRNN_ISA from the environment, or else the best.
    weight_dtype : {"float32", "float16", "int8"} or None
        The type in which weight_ih, weight_hh and weight_hr are kept; None is the spec's, or else `dtype`. Inputs,
        states, biases and outputs are float32. "float16" (IEEE half precision, rounded once to nearest even) takes
        half the memory, and the layer computes the bits of the float32 layer of the rounded weights. "int8" takes a
        quarter: a weight is an integer from -127 to 127 times a scale of its row, and products round x and h to such
        integers, too, with a scale for each row and step. Only the fused kernels and float32 have smaller weights.

    Raises
    ------
    TypeError, ValueError
        A weight or option does not fit; the message names everything that does not.
    """

    kind: ClassVar[CellKind]

    def __init__(
        self,
        spec: LayerSpec,
        *,
        backend: Backend = "auto",
        dtype: DTypeLike | None = None,
        isa: str | None = None,
        weight_dtype: WeightDtype | None = None,
    ) -> None:
        if not isinstance(spec, LayerSpec):
            raise TypeError(
                f"spec is {type(spec).__name__}, wanted a LayerSpec; from_torch and from_state_dict make one"
            )
        if spec.kind != self.kind:
            raise ValueError(f"spec is of a {spec.kind}, wanted {self.kind}")
        spec = choose_weight_dtype(spec, weight_dtype).validate()
        self.input_size, self.hidden_size = int(spec.input_size), int(spec.hidden_size)
        self.proj_size, self.num_layers = int(spec.proj_size), int(spec.num_layers)
        self.bidirectional, self.batch_first = bool(spec.bidirectional), bool(spec.batch_first)
        self.reverse = bool(spec.reverse)
        self.dtype = choose_dtype(spec, dtype)
        self._asked: dict[str, Any] = {"backend": backend, "isa": isa}
        self.isa = runtime.chosen_isa(isa)
        self.backend = choose_backend(backend, self.dtype, self.isa, spec.weight_dtype)
        self.weight_dtype: str = spec.weight_dtype or self.dtype.name
        self._engine = build_engine(spec, self.dtype, self.isa, self.backend == "blas")
        self.isa = self._engine.isa if self.backend == "fused" else None
        self._frozen = True

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
        """The spec of the layer, in its dtype; if a cell adds its two biases, bias_ih is their sum."""
        sizes = self.input_size, self.hidden_size, self.num_layers, self.bidirectional, self.proj_size
        weights: Any = None if self.weight_dtype == self.dtype.name else self.weight_dtype
        return LayerSpec(
            self.kind, unpack_cells(self._engine.unpack()), *sizes, self.batch_first, self.reverse, weights
        )

    def with_weight_dtype(self, weight_dtype: WeightDtype) -> Self:
        """Make the same layer with weights of another type, with the same backend and isa.

        Raises
        ------
        ValueError
            The layer's weights are smaller than float32 already, or it is one of float64 or of backend "blas"; a weight
            is out of range, or not finite for int8.

        Examples
        --------
        >>> import numpy as np, fastrnn
        >>> weights = {"weight_ih_l0": np.eye(256, 64, dtype="f4"), "weight_hh_l0": np.eye(256, 64, dtype="f4")}
        >>> lstm = fastrnn.LSTM.from_state_dict(weights)
        >>> for small in (lstm.with_weight_dtype("float16"), lstm.with_weight_dtype("int8")):
        ...     print(small.weight_dtype, round(small.nbytes / lstm.nbytes, 2))
        float16 0.5
        int8 0.27
        """
        if self.weight_dtype != "float32":
            raise ValueError(
                f"the layer's weights are {self.weight_dtype}, wanted float32: other types of weights are made from it"
            )
        return type(self)(self._unpack(), dtype=self.dtype, weight_dtype=weight_dtype, **self._asked)

    @classmethod
    def from_torch(
        cls,
        module: Any,
        *,
        backend: Backend = "auto",
        dtype: DTypeLike | None = None,
        isa: str | None = None,
        weight_dtype: WeightDtype | None = None,
    ) -> Self:
        """Make a layer from a PyTorch module of the same name, or from its cell, such as ``nn.LSTMCell``.

        Weights are copied, from any device; float16 and bfloat16 are widened to float32, exactly. ``batch_first``
        is the module's, and True for a cell. backend, dtype, isa, weight_dtype: as for the class.

        Raises
        ------
        TypeError, ValueError
            The module is of another kind, or its weights have no data or do not fit.
        """
        spec = pytorch.spec_from_module(module)
        return cls(spec, backend=backend, dtype=dtype, isa=isa, weight_dtype=weight_dtype)

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
        weight_dtype: WeightDtype | None = None,
    ) -> Self:
        """Build from arrays under PyTorch's names, such as ``weight_ih_l0_reverse``, or a cell's ``weight_ih``.

        Parameters
        ----------
        mapping : names to arrays or tensors of PyTorch's shapes
            float32 or float64; float16 and bfloat16 are widened to float32, exactly. Tensors may be on any device.
        prefix : only names that start with it are read, without it; its last dot may be left out
        nonlinearity : "tanh" or "relu" of an RNN, which needs it: a state dict cannot tell; None for the others
        batch_first : whether x and y are (B, T, .) or (T, B, .)
        backend, dtype, isa, weight_dtype : as for the class

        Raises
        ------
        TypeError, ValueError
            Weights are missing, surplus or misshapen; the message lists all of them. No weights are under the
            prefix; the message lists the prefixes that have some.
        """
        spec = pytorch.spec_from_state_dict(
            cls.kind, mapping, prefix, nonlinearity=nonlinearity, batch_first=batch_first
        )
        return cls(spec, backend=backend, dtype=dtype, isa=isa, weight_dtype=weight_dtype)

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
        weight_dtype: WeightDtype | None = None,
    ) -> Self:
        """Take over one cell of Flax, linen's or nnx's, from its parameters.

        Its activations have to be Flax's defaults, and a SimpleCell's ``residual`` False: parameters do not tell.

        Parameters
        ----------
        params : nested mapping of names to arrays, such as ``model.init(...)`` or ``nnx.to_pure_dict(state)``
            ``LSTMCell``, ``OptimizedLSTMCell``, ``GRUCell`` or ``SimpleCell``, at any depth.
        prefix : the names above the cell, such as ``"params.encoder.cell"``, if there are several
        nonlinearity : "tanh" or "relu" of an RNN, which needs it; None for the others
        batch_first, backend, dtype, isa, weight_dtype : as of ``from_state_dict``

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
        return cls(spec, backend=backend, dtype=dtype, isa=isa, weight_dtype=weight_dtype)

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
        weights = "" if self.weight_dtype == self.dtype.name else f", weight_dtype={self.weight_dtype!r}"
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}{options}, dtype={self.dtype}{weights})"

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
            Any strides (x is copied if elements of its last axis are not adjacent); padding may hold anything.
            PyTorch's PackedSequence is accepted like Packed. Nested lists of Python numbers are converted
            to an array of the layer's dtype, or, if their lengths differ, to a list of sequences.
        state : initial state, None for zeros
            h (L*D, B, P), and for an LSTM the pair (h, c) with c (L*D, B, H); without B for one sequence.
        lengths : (B,) integers from 0 to T, in any order; None: all T. Array input only.
        mask : booleans, x's shape without the last axis; None: every step counts. Array input only.
            Any pattern. A step that is False leaves the state unchanged and may hold anything: a row runs as if
            its masked steps were removed, in both directions and in every layer. If lengths are given as well, a
            step counts if both include it.
        past_end : {"zero", "carry"}
            What y holds past a row's end: zeros, or each direction's final h. With a mask, what y holds at
            every step that does not count: zeros, or the output before it (in a reverse direction: after it),
            which is zeros where there is none.
        out : array to write y into
            C-contiguous, of y's shape and dtype, overlapping neither x nor state. Array input only.
        casting : {"no", "equiv", "safe", "same_kind", "unsafe"}
            Which conversions of x and state to the layer's dtype are allowed, by NumPy's names. By default those
            that lose nothing: float16, bool and integers of up to 16 bits into float32, those of up to 32 bits
            and float32 into float64. "same_kind": of all real numbers, rounded, such as float64 into float32.
            Python's own numbers have no dtype and take the layer's.

        Returns
        -------
        y : of the same form as x: (B, T, D*P), (T, D*P), list, Packed or PackedSequence (of a new tensor)
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
        is_list = is_list_of_sequences(x)
        if not (is_list or isinstance(x, Packed) or (isinstance(x, tuple) and is_torch_packed(x))):
            return run_array(self, x, state, lengths, mask, past_end, out, casting)
        for name, value in (("lengths", lengths), ("mask", mask), ("out", out)):
            if value is not None:
                raise TypeError(f"{name} is given, but x is a {type(x).__name__}: wanted None")
        if isinstance(x, Packed):
            return run_packed(self, x, state, casting)
        return run_list(self, x, state, casting) if is_list else run_torch(self, x, state, casting)

    def stream(self, batch_size: int = 1) -> Stream[StateT]:
        """Open a live stream of batch_size rows, its state zero.

        Raises
        ------
        ValueError
            The layer has the reverse direction, which starts at the last step, and a stream has no last step.
        """
        if self.bidirectional:
            raise ValueError(
                "the layer is bidirectional, wanted one direction: a stream has no last step to start from"
            )
        if self.reverse:
            raise ValueError(
                "the layer runs in reverse, wanted the forward direction: a stream has no last step to start from"
            )
        return open_stream(self, as_integer(batch_size, "batch_size", 0), Stream[StateT])

    def unroll(self, num_steps: int) -> Unrolled[StateT]:
        """Prepare the fixed-length path for exactly num_steps steps, for comparison with the packed path."""
        steps = as_integer(num_steps, "num_steps", 0)
        if steps > MOST_UNROLLED:
            raise ValueError(
                f"num_steps is {steps}, wanted at most {MOST_UNROLLED}: every step takes memory of its own"
            )
        return Unrolled(self, self._engine, steps)
