from collections.abc import Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray
from typing_extensions import disjoint_base

from .arguments import Casting
from .schedule import Schedule

__version__: str
PAST_ENDS: dict[str, int]
KINDS: dict[str, int]
WEIGHT_DTYPES: dict[str, int]
NUM_GATES: dict[str, int]
ACTIVATIONS: dict[str, int]
PROBE_GATES: dict[str, int]
ACTIVATION_NAMES: dict[int, str]
ACTIVATION_DEFAULTS: dict[str, tuple[float | None, float | None]]

def available_isas() -> list[str]: ...
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
    ) -> None: ...

@disjoint_base
class Unrolled:
    def __new__(cls, layer: Layer, num_steps: int) -> Self: ...
    num_steps: int

@disjoint_base
class Stream:
    def __new__(cls, layer: Layer, batch_size: int) -> Self: ...
    batch_size: int
    def set_state(self, h: NDArray[Any] | None, c: NDArray[Any] | None) -> None: ...
    def get_state(self, h: NDArray[Any], c: NDArray[Any] | None) -> None: ...
    def reset_rows(self, rows: ArrayLike) -> None: ...
    def step(self, x: ArrayLike, rows: ArrayLike | None = None, *, casting: Casting = "safe") -> NDArray[Any]: ...
    def run(self, x: ArrayLike, rows: ArrayLike | None = None, *, casting: Casting = "safe") -> NDArray[Any]: ...
    def snapshot(self) -> bytes: ...
    def restore(self, snapshot: bytes) -> None: ...

@disjoint_base
class Workspace: ...
