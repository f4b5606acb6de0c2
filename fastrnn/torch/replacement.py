"""Replacement of a model's recurrent modules."""

from __future__ import annotations

import copy
import warnings
from typing import TypeVar

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ..arguments import as_boolean, as_integer
from .modules import MIXINS, Accelerated, accelerated_class
from .run import MOST_THREADS

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def accelerate(model: ModuleT, *, inplace: bool = False, num_threads: int | None = None) -> ModuleT:
    """Make every ``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` and their cells in a model run on the engine.

    Examples
    --------
    >>> import torch, fastrnn
    >>> model = torch.nn.LSTM(4, 3)
    >>> fast = fastrnn.torch.accelerate(model)
    >>> with torch.no_grad():
    ...     y, (h, c) = fast(torch.ones(5, 2, 4))
    >>> y.shape
    torch.Size([5, 2, 3])
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}, wanted a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(f"model is {type(model).__name__}, a TorchScript module, wanted the module that was scripted")
    threads = 0 if num_threads is None else as_integer(num_threads, "num_threads", 1)
    if threads > MOST_THREADS:
        raise ValueError(f"num_threads is {threads}, wanted 1 to {MOST_THREADS}")
    if not as_boolean(inplace, "inplace"):
        with torch.inference_mode(False):  # whose copies would have no version counters
            model = copy.deepcopy(model)
    found = False
    for path, module in model.named_modules():
        kind = next((kind for kind in MIXINS if isinstance(module, kind)), None)
        if kind is None:
            continue
        found = True
        if not isinstance(module, Accelerated):
            if type(module).forward is not kind.forward or "forward" in vars(module):
                name = f"{path} is" if path else "the model is"
                warnings.warn(
                    f"{name} a {type(module).__name__} with a forward of its own: it is left as it is", stacklevel=2
                )
                continue
            _replace(module)
        module._num_threads = threads
    if not found:
        warnings.warn("the model has no LSTM, GRU or RNN of PyTorch: nothing is accelerated", stacklevel=2)
    return model


def _replace(module: nn.Module) -> None:
    """Change the module's class. It stays the same object, in every place that has it."""
    cls = type(module)
    if is_parametrized(module):
        # parametrize has made a class for this module, a subclass of its former one, which it restores later.
        names = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
        module.__class__ = type(cls.__name__, (accelerated_class(cls.__bases__[0]),), names)
    else:
        module.__class__ = accelerated_class(cls)
