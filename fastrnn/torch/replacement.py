"""Replacement of a model's recurrent modules."""

from __future__ import annotations

import copy
import warnings
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from ..arguments import as_boolean, as_integer
from ..runtime import MOST_THREADS
from ..spec import WeightDtype, check_weight_dtype
from .modules import MIXINS, Accelerated, accelerated_class

ModuleT = TypeVar("ModuleT", bound=nn.Module)

#: The names of the classes that are replaced.
NAMES = {kind.__name__ for kind in MIXINS}


def accelerate(
    model: ModuleT,
    *,
    inplace: bool = False,
    num_threads: int | None = None,
    weight_dtype: WeightDtype | None = None,
) -> ModuleT:
    """Make every ``nn.LSTM``, ``nn.GRU``, ``nn.RNN`` and every cell of these in a model run on fastrnn's engine.

    The modules stay what and where they are: objects of the same names and parameters, with the same ``state_dict``,
    hooks and attributes, and instances of PyTorch's classes. Only their ``forward`` changes. It takes and returns what
    PyTorch's does, and raises where PyTorch's raises. A subclass with a ``forward`` of its own is left as it is, and a
    warning names it; so is a TorchScript module.

    A module prepares its weights at its first call, and keeps the prepared copies beside them.

    For inference: calls need ``torch.no_grad()`` or ``torch.inference_mode()``, or inputs and weights that do not
    require grad. If weights change, the next call prepares them again. It notices what PyTorch's version counters
    count, other tensors and other memory; it does not notice writes through ``weight.data``, ``weight.numpy()`` or
    memory shared with other processes. Weights that were made in inference mode have no such counters, so each call
    compares them with copies.

    Parameters
    ----------
    model : torch.nn.Module
        Any module, also one of those itself. Its parameters are on the CPU when it is called.
    inplace : whether to change the model itself instead of a deep copy
    num_threads : of a call, the caller's included; None: as many as ``torch.get_num_threads()`` says at each call
    weight_dtype : {"float32", "float16", "int8"} or None; as of ``fastrnn.LSTM``
        The dtype of what is prepared from the weights; the module's own and its results keep theirs.

    Returns
    -------
    torch.nn.Module
        The copy, or the model. Deep copies and pickles of it are accelerated, too.

    Raises
    ------
    TypeError
        The model is no module, or a TorchScript module, which PyTorch runs without Python.
    ValueError
        num_threads is out of range, or weight_dtype is none of these.

    Warns
    -----
    UserWarning
        A module is left as it is, or there is nothing to accelerate.

    Notes
    -----
    A call raises RuntimeError if gradients would be needed, if the module is in training mode and has dropout between
    its layers, or if a tensor is not on the CPU; and ValueError (a cell RuntimeError) if the input has another dtype
    than the weights. Weights of float16 and bfloat16 are widened to float32, and a warning says so. Under
    ``torch.autocast`` inputs of these dtypes are widened, and results have the dtype that PyTorch's have.

    ``torch.compile`` and ``torch.export`` see each module as one operator, ``torch.ops.fastrnn.run``. Around instances
    of a subclass of ``nn.LSTM``, ``nn.GRU`` or ``nn.RNN`` the compiler breaks the graph, as around PyTorch's own.

    Examples
    --------
    >>> import torch, fastrnn
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.LSTM(4, 3, batch_first=True))
    >>> fast = fastrnn.torch.accelerate(model)
    >>> with torch.no_grad():
    ...     y, (h, c) = fast(torch.ones(2, 5, 8))
    >>> y.shape, h.shape
    (torch.Size([2, 5, 3]), torch.Size([1, 2, 3]))
    >>> isinstance(fast[1], torch.nn.LSTM), fast[1].hidden_size
    (True, 3)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is {type(model).__name__}, wanted a torch.nn.Module")
    if isinstance(model, torch.jit.ScriptModule):
        raise TypeError(
            f"model is a TorchScript module ({type(model).__name__}), wanted the module that was scripted or traced: "
            "PyTorch runs TorchScript without Python"
        )
    threads = 0 if num_threads is None else as_integer(num_threads, "num_threads", 1)
    if threads > MOST_THREADS:
        raise ValueError(f"num_threads is {threads}, wanted 1 to {MOST_THREADS}")
    check_weight_dtype(weight_dtype)
    if not as_boolean(inplace, "inplace"):
        with torch.inference_mode(False):  # in which copies have version counters
            model = copy.deepcopy(model, _copies_of_computed(model))
    replaced, left = [], []
    for path, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule):
            if module.original_name in NAMES:
                left.append(f"{path}, a TorchScript module")
            continue
        kind = next((kind for kind in MIXINS if isinstance(module, kind)), None)
        if kind is None:
            continue
        if not isinstance(module, Accelerated) and _has_own_forward(module, kind):
            left.append(f"{path or 'the model'}, a {type(module).__name__} with a forward of its own")
        else:
            replaced.append(module)
    for module in replaced:
        _replace(module, threads, weight_dtype)
    if left:
        warnings.warn(f"left as they are: {'; '.join(left)}", stacklevel=2)
    elif not replaced:
        warnings.warn("there is nothing to accelerate: no LSTM, GRU or RNN of torch.nn in the model", stacklevel=2)
    return model


def _copies_of_computed(model: nn.Module) -> dict[int, Tensor]:
    """Tensors that copy.deepcopy refuses, because they are part of a graph, by their ids to copies that are not.

    torch.nn.utils.weight_norm and torch.nn.utils.prune leave such weights in a module, and compute them again before
    each call.
    """
    tensors = [
        value
        for module in model.modules()
        for value in (*vars(module).values(), *module._buffers.values(), *getattr(module, "_flat_weights", ()))
        if isinstance(value, Tensor) and not value.is_leaf
    ]
    return {id(tensor): tensor.detach().clone() for tensor in tensors}


def _has_own_forward(module: nn.Module, kind: type[nn.Module]) -> bool:
    return type(module).forward is not kind.forward or "forward" in vars(module)


def _replace(module: nn.Module, num_threads: int, weight_dtype: WeightDtype | None) -> None:
    """Change the module's class. It stays the same object, in every place that has it."""
    cls: Any = type(module)
    if isinstance(module, Accelerated):
        pass
    elif is_parametrized(module):
        # parametrize has made a class for this module, a subclass of the former one, which it restores later.
        names = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
        module.__class__ = type(cls.__name__, (accelerated_class(cls.__bases__[0]),), names)
    else:
        module.__class__ = accelerated_class(cls)
    module._num_threads, module._weight_dtype = num_threads, weight_dtype
