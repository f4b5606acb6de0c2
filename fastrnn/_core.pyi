from collections.abc import Callable, Iterable, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import disjoint_base

from .arguments import Casting
from .schedule import Schedule

__version__: str
PAST_ENDS: dict[str, int]
KINDS: dict[str, int]
OP_KINDS: dict[str, int]
WEIGHT_DTYPES: dict[str, int]
NUM_GATES: dict[str, int]
ACTIVATIONS: dict[str, int]
WEIGHT_TYPES: dict[str, int]
PROBE_GATES: dict[str, int]
ACTIVATION_NAMES: dict[int, str]
ACTIVATION_DEFAULTS: dict[str, tuple[float | None, float | None]]

class IdError(ValueError): ...

def available_isas(weight_dtype: str = "float32") -> list[str]: ...
def isa_for(isa: str, weight_dtype: str) -> str: ...
def activate(
    isa: str, name: str, x: NDArray[Any] | Sequence[float], alpha: float = 0.0, beta: float = 0.0
) -> NDArray[np.float32]: ...
def probe_fma(isa: str, rounds: int) -> tuple[int, float]: ...
def probe_read(isa: str, values: NDArray[np.float32], times: int) -> float: ...
def probe_gate(isa: str, gate: str, values: NDArray[np.float32], times: int) -> float: ...
def load_blas() -> None: ...
def set_num_threads(num_threads: int, threshold: float = 1.0) -> None: ...
def get_num_threads() -> int: ...

@disjoint_base
class Pool:
    def __new__(cls, num_threads: int, threshold: float) -> Self: ...
    num_threads: int

@disjoint_base
class Layer:
    def __new__(
        cls,
        kind: str,
        dtype: DTypeLike,
        input_size: int,
        hidden_size: int,
        proj_size: int,
        num_layers: int,
        bidirectional: bool,
        reverse: bool,
        weight_dtype: str | None,
        cells: list[Any],
        isa: str | None,
        use_blas: bool,
    ) -> Self: ...
    dtype: np.dtype[Any]
    input_size: int
    hidden_size: int
    h_size: int
    num_layers: int
    num_directions: int
    is_lstm: bool
    isa: str
    nbytes: int
    fingerprint: int
    def unpack(self) -> list[Any]: ...
    def run(
        self,
        x: NDArray[Any] | list[NDArray[Any]],
        y: NDArray[Any] | list[NDArray[Any]],
        schedule: Schedule | None,
        h0: NDArray[Any] | None,
        c0: NDArray[Any] | None,
        hn: NDArray[Any] | None,
        cn: NDArray[Any] | None,
        unrolled: Unrolled | None = None,
        past_end: str | None = None,
        num_threads: int = 0,
    ) -> None: ...

def check_model_file(data: bytes | memoryview) -> None: ...

@disjoint_base
class Model:
    def __new__(cls, ops: list[tuple[str, dict[str, Any]]], isa: str | None) -> Self: ...
    x_dtype: np.dtype[Any]
    dtype: np.dtype[Any]
    num_ids: int
    input_size: int
    output_size: int
    pools: bool
    stride: int
    first_not_streamed: int
    state_size: int
    def unpack(self, index: int) -> Any: ...
    isa: str
    nbytes: int
    fingerprint: int
    def run(
        self,
        x: NDArray[Any] | list[NDArray[Any]],
        y: NDArray[Any] | list[NDArray[Any]],
        schedule: Schedule | None,
        past_end: str | None = None,
    ) -> None: ...

@disjoint_base
class Unrolled:
    def __new__(cls, layer: Layer, num_steps: int) -> Self: ...
    num_steps: int

@disjoint_base
class BaseStream:
    batch_size: int
    state_bytes: int
    def reset(self, rows: ArrayLike | None = None) -> None: ...
    def check_rows(self, rows: ArrayLike | None) -> NDArray[np.int64]: ...
    def step(self, x: ArrayLike, rows: ArrayLike | None = None, *, casting: Casting = "safe") -> NDArray[Any]: ...
    def run(self, x: ArrayLike, rows: ArrayLike | None = None, *, casting: Casting = "safe") -> NDArray[Any]: ...
    def snapshot(self) -> bytes: ...
    def restore(self, snapshot: bytes) -> None: ...

@disjoint_base
class Stream(BaseStream):
    def __new__(cls, layer: Layer, batch_size: int) -> Self: ...
    def set_state(self, h: NDArray[Any] | None, c: NDArray[Any] | None) -> None: ...
    def get_state(self, h: NDArray[Any], c: NDArray[Any] | None) -> None: ...

@disjoint_base
class ModelStream(BaseStream):
    def __new__(cls, model: Model, batch_size: int) -> Self: ...

@disjoint_base
class BaseSession:
    def __new__(cls, pool: Any, stream: BaseStream, slot: int) -> Self: ...
    pool: Any
    @property
    def closed(self) -> bool: ...
    def take_slot(self) -> int: ...
    def reset(self) -> None: ...
    def snapshot(self) -> bytes: ...
    def restore(self, snapshot: bytes) -> None: ...
    def get_state(self, op: int, h: NDArray[Any], c: NDArray[Any] | None) -> None: ...

def run_sessions(
    stream: BaseStream, pool: Any, lock: Any, pairs: Iterable[Any], casting: Casting
) -> list[NDArray[Any]]: ...

@disjoint_base
class Workspace: ...

def use_dlpack(capsule: Any) -> None: ...

@disjoint_base
class TensorVersions:
    def __new__(cls, tensors: list[Any], weak: bool = False) -> Self: ...
    def __len__(self) -> int: ...
    def source(self, i: int) -> Any: ...
    def match(self, tensors: list[Any]) -> bool: ...

@disjoint_base
class TensorCall:
    def __new__(
        cls, layer: Layer, num_rows: int, num_steps: int, batch_first: bool, has_state: bool, pool: Pool
    ) -> Self: ...

@disjoint_base
class TensorPlan(TensorCall): ...

@disjoint_base
class TensorStep(TensorCall): ...

@disjoint_base
class TensorRunner:
    def __new__(
        cls,
        layer: Layer,
        versions: TensorVersions,
        tensor_type: type[Any],
        dtype: Any,
        empty_like: Callable[[Any], Any],
        get_num_threads: Callable[[], int],
    ) -> Self: ...
    def run_cell(self, weights: dict[str, Any], names: Sequence[str], x: Any, hx: Any, num_threads: int) -> Any: ...
    def run_sequence(
        self, weights: dict[str, Any], names: Sequence[str], x: Any, hx: Any, batch_first: bool, num_threads: int
    ) -> Any: ...

@disjoint_base
class Workspaces: ...

@disjoint_base
class RowPointers: ...

@disjoint_base
class Cells: ...
