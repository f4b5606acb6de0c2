"""The operations of a model, beside its recurrent layers and activations: arrays and options, in PyTorch's layout.

An operation is a description: :class:`fastrnn.Sequential` runs a chain of them. A step's vector is always the last
axis, so a convolution's channels are last, as in Keras, and not second, as in PyTorch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..arguments import as_boolean, as_integer, as_real
from ..importers import pytorch_operations

StepsT = TypeVar("StepsT", int, NDArray[np.int64])
Padding = tuple[int, int] | int | Literal["valid", "same", "causal"]


MOST_STRIDE, MOST_PADDING = 1 << 22, 1 << 31  # of a convolution, so that sums of steps stay within 64 bits


class Op:
    """What every operation tells of itself. O, C, E: widths of vectors."""

    #: Names of the arrays, each with a letter for each axis; the same letter is the same size, and "?" at the end
    #: means that the array may be None.
    ARRAYS: ClassVar[tuple[tuple[str, str], ...]] = ()

    @property
    def input_size(self) -> int | None:
        """Width of a step's vector before the operation; None: any. For valid operations only."""
        return None

    @property
    def output_size(self) -> int | None:
        """Width of a step's vector after it; None: the same as before it. For valid operations only."""
        return None

    def faults(self) -> list[str]:
        """Everything that does not fit in the operation alone."""
        faults: list[str] = []
        sizes: dict[str, int] = {}
        for name, letters in self.ARRAYS:
            array, axes = getattr(self, name), letters.removesuffix("?")
            if array is None and axes != letters:
                continue
            wanted = f"({', '.join(str(sizes.get(axis, axis)) for axis in axes)}{',' * (len(axes) == 1)})"
            if not isinstance(array, np.ndarray) or array.dtype not in (np.float32, np.float64):
                found = array.dtype if isinstance(array, np.ndarray) else type(array).__name__
                faults.append(f"{name} is {found}, wanted a float32 or float64 array of shape {wanted}")
            elif array.ndim != len(axes) or any(
                size != sizes.get(axis, size) for axis, size in zip(axes, array.shape, strict=True)
            ):
                faults.append(f"{name} has shape {array.shape}, wanted {wanted}")
            elif 0 in array.shape:
                faults.append(f"{name} has shape {array.shape}, wanted no axis of size 0")
            else:
                sizes |= zip(axes, array.shape, strict=True)
        return faults


class TorchOp(Op):
    """An operation that PyTorch has as a module."""

    @classmethod
    def from_torch(cls, module: Any) -> Self:
        """Take over a module of the same name (``BatchNorm1d`` for BatchNorm), as it computes in ``eval()``.

        Weights are copied, from any device; float16 and bfloat16 are widened to float32, exactly.

        Raises
        ------
        TypeError, ValueError
            It is another module, or one of its options has no counterpart here; the message says which.
        """
        operation = pytorch_operations.operation_from_module(module)
        if not isinstance(operation, pytorch_operations.Operation) or operation.name != cls.__name__:
            raise TypeError(f"module is {type(module).__name__}, wanted a torch.nn module for {cls.__name__}")
        return cls(**operation.arguments)


def _fault(take: Callable[..., Any], *arguments: Any) -> list[str]:
    """The message of the error that a check of an option raises, if it raises one."""
    try:
        take(*arguments)
    except (TypeError, ValueError) as error:
        return [str(error)]
    return []


@dataclass(frozen=True, eq=False)
class Embedding(TorchOp):
    """Row ``weight[id]`` for each id; a model's first operation. PyTorch's ``Embedding``.

    With `mask_zero`, steps with id 0 do not count, as with ``mask=`` (Keras's meaning): the model runs as if these
    steps were removed.

    Parameters
    ----------
    weight : (V, E)
    mask_zero : bool
    """

    ARRAYS = (("weight", "VE"),)

    weight: NDArray[Any]
    mask_zero: bool = False

    @classmethod
    def from_torch(cls, module: Any, mask_zero: bool = False) -> Self:
        """Take over an ``nn.Embedding``, as :meth:`Linear.from_torch` does. PyTorch has no mask_zero."""
        return replace(super().from_torch(module), mask_zero=mask_zero)

    @property
    def output_size(self) -> int:
        return int(self.weight.shape[1])

    def faults(self) -> list[str]:
        return super().faults() + _fault(as_boolean, self.mask_zero, "mask_zero")


@dataclass(frozen=True, eq=False)
class Linear(TorchOp):
    """``weight @ x + bias`` at each step. PyTorch's ``Linear``, Keras's ``Dense`` with the kernel transposed.

    Parameters
    ----------
    weight : (O, I)
    bias : (O,) or None
    """

    ARRAYS = (("weight", "OI"), ("bias", "O?"))

    weight: NDArray[Any]
    bias: NDArray[Any] | None = None

    @property
    def input_size(self) -> int:
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        return int(self.weight.shape[0])


@dataclass(frozen=True, eq=False)
class Conv1d(TorchOp):
    """Convolution over a row's steps (a correlation, as in every framework), with zeros around its real steps.

    Output step t is ``bias + sum over k of weight[:, :, k] @ x[t * stride + k * dilation - left]``. A row of n steps
    has ``(n + left + right - dilation * (K - 1) - 1) // stride + 1`` output steps, or none if that is less or n is 0.

    Parameters
    ----------
    weight : (O, I, K)
    bias : (O,) or None
    stride : int
    padding : (left, right), a number for both, or a str
        Zeros before a row's first and after its last real step. "valid": none. "same": as many output steps as
        input steps, the odd zero at the right; needs stride 1. "causal": all at the left, so that no output step
        reads a later input.
    dilation : int
    """

    ARRAYS = (("weight", "OIK"), ("bias", "O?"))

    weight: NDArray[Any]
    bias: NDArray[Any] | None = None
    stride: int = 1
    padding: Padding = (0, 0)
    dilation: int = 1

    @property
    def input_size(self) -> int:
        return int(self.weight.shape[1])

    @property
    def output_size(self) -> int:
        return int(self.weight.shape[0])

    @property
    def reach(self) -> int:
        """Steps from the first input that an output step reads to the last."""
        return int(self.dilation * (self.weight.shape[2] - 1))

    @property
    def left(self) -> int:
        """Zeros before a row's first step."""
        return self._zeros()[0]

    @property
    def right(self) -> int:
        """Zeros after a row's last step."""
        return self._zeros()[1]

    def _zeros(self) -> tuple[int, int]:
        if isinstance(self.padding, str):
            left = {"valid": 0, "same": self.reach // 2, "causal": self.reach}[self.padding]
            return left, self.reach - left if self.padding == "same" else 0
        left, right = self.padding if isinstance(self.padding, tuple) else (self.padding, self.padding)
        return int(left), int(right)

    @property
    def is_causal(self) -> bool:
        """Whether an output step needs no input after its own, and the first one exists from the first input on."""
        return (self.left, self.right) == (self.reach, 0)

    @property
    def keeps_steps(self) -> bool:
        """Whether every row has as many output steps as input steps."""
        return self.stride == 1 and self.left + self.right == self.reach

    def output_steps(self, steps: StepsT) -> StepsT:
        """How many steps rows of so many steps have after it; steps : a number, or an array of int64."""
        after = (np.asarray(steps) + (self.left + self.right - self.reach - 1)) // self.stride + 1
        after = np.maximum(after, 0) * (np.asarray(steps) > 0)
        return after if isinstance(steps, np.ndarray) else int(after)

    def faults(self) -> list[str]:
        faults = super().faults()
        for name in ("stride", "dilation"):
            faults += _fault(as_integer, getattr(self, name), name, 1)
        padding: Any = self.padding
        if isinstance(padding, str):
            if padding not in ("valid", "same", "causal"):
                faults.append(f"padding is {padding!r}, wanted 'valid', 'same' or 'causal'")
            elif padding == "same" and self.stride != 1:
                faults.append(f"padding is 'same' with stride {self.stride}, wanted stride 1, or (left, right)")
        elif isinstance(padding, tuple):
            if len(padding) != 2:
                faults.append(f"padding is {padding!r}, wanted (left, right)")
            faults += [fault for zeros in padding for fault in _fault(as_integer, zeros, "padding", 0)]
        else:
            faults += _fault(as_integer, padding, "padding", 0)
        if not faults and max(self.stride, self.dilation) > MOST_STRIDE:
            faults.append(f"stride is {self.stride} and dilation {self.dilation}, wanted at most {MOST_STRIDE}")
        elif not faults and max(self.left, self.right) > MOST_PADDING:
            faults.append(f"padding is {self.padding!r}, wanted at most {MOST_PADDING}")
        return faults


@dataclass(frozen=True, eq=False)
class LayerNorm(TorchOp):
    """``(x - mean) / sqrt(variance + eps) * weight + bias`` over each step's vector (Ba et al. 2016).

    Parameters
    ----------
    weight, bias : (C,) or None
    eps : float
    """

    ARRAYS = (("weight", "C?"), ("bias", "C?"))

    weight: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    eps: float = 1e-5

    @property
    def input_size(self) -> int | None:
        array = self.bias if self.weight is None else self.weight
        return None if array is None else len(array)

    def faults(self) -> list[str]:
        return super().faults() + _eps_faults(self.eps)


@dataclass(frozen=True, eq=False)
class BatchNorm(TorchOp):
    """``(x - running_mean) / sqrt(running_var + eps) * weight + bias``, element by element (Ioffe and Szegedy 2015).

    The model folds it into the operation before it or after it where their product is the same, see models/folding.py.

    Parameters
    ----------
    running_mean, running_var : (C,)
    weight, bias : (C,) or None
    eps : float
    """

    ARRAYS = (("running_mean", "C"), ("running_var", "C"), ("weight", "C?"), ("bias", "C?"))

    running_mean: NDArray[Any]
    running_var: NDArray[Any]
    weight: NDArray[Any] | None = None
    bias: NDArray[Any] | None = None
    eps: float = 1e-5

    @property
    def input_size(self) -> int:
        return len(self.running_mean)

    def faults(self) -> list[str]:
        faults = super().faults() + _eps_faults(self.eps)
        if not faults and not (self.running_var + self.eps > 0).all():
            faults.append(f"running_var holds {self.running_var.min()}, wanted variances")
        return faults


@dataclass(frozen=True, eq=False)
class Scale(Op):
    """``scale * x + shift``, element by element: what remains of a BatchNorm. Folded like it.

    Parameters
    ----------
    scale, shift : (C,)
    """

    ARRAYS = (("scale", "C"), ("shift", "C"))

    scale: NDArray[Any]
    shift: NDArray[Any]

    @property
    def input_size(self) -> int:
        return len(self.scale)


@dataclass(frozen=True)
class Softmax(TorchOp):
    """``exp(x) / sum(exp(x))`` over each step's vector."""


@dataclass(frozen=True)
class LogSoftmax(TorchOp):
    """``x - log(sum(exp(x)))`` over each step's vector."""


@dataclass(frozen=True)
class Reverse(Op):
    """Each row's real steps in reverse order."""


class Pool(Op):
    """One vector for each row from its real steps; zeros for a row without steps."""


@dataclass(frozen=True)
class Last(Pool):
    """The vector of each row's last real step."""


@dataclass(frozen=True)
class First(Pool):
    """The vector of each row's first real step."""


@dataclass(frozen=True)
class Mean(Pool):
    """The mean over each row's real steps."""


@dataclass(frozen=True)
class Max(Pool):
    """The maximum over each row's real steps, element by element."""


@dataclass(frozen=True)
class Final(Pool):
    """Each direction's final output: the forward half at the last step, the reverse half at the first.

    This is what Keras's ``Bidirectional`` without ``return_sequences`` and the last layer of PyTorch's ``h_n`` hold. It
    needs a recurrent layer directly before it.
    """


def _eps_faults(eps: Any) -> list[str]:
    faults = _fault(as_real, eps, "eps")
    return faults if faults or eps >= 0 else [f"eps is {eps}, wanted a number of at least 0"]


#: The operations by name, each a class of this module.
OPS: dict[str, type[Op]] = {
    op.__name__: op
    for op in (
        Embedding,
        Linear,
        Conv1d,
        LayerNorm,
        BatchNorm,
        Scale,
        Softmax,
        LogSoftmax,
        Last,
        First,
        Mean,
        Max,
        Final,
        Reverse,
    )
}
