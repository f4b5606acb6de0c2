"""A live PyTorch module's weights as it computes with them, and tensors as arrays. PyTorch itself is never imported."""

from __future__ import annotations

import copy
import re
from typing import Any

import numpy as np
from numpy.typing import NDArray


def weights_of(module: Any) -> dict[str, Any]:
    """A module's state dict, with the weights that its forward pass would compute in place of what they come from.

    That is for ``weight_norm`` and ``spectral_norm``, old and new, parametrisations, and pruning. The module is left
    as it was.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dict
        Names to tensors.
    """
    weights = dict(module.state_dict())
    parametrized = list(getattr(module, "parametrizations", ()))
    if parametrized and module.training:
        module = copy.deepcopy(module).eval()  # in training, looking at a weight of spectral_norm changes its vectors
    computed = {name: getattr(module, name) for name in parametrized}
    for hook in getattr(module, "_forward_pre_hooks", {}).values():
        bases = {base.__name__ for base in type(hook).__mro__}
        if "WeightNorm" in bases:
            computed[hook.name] = hook.compute_weight(module)
        elif "SpectralNorm" in bases:
            computed[hook.name] = hook.compute_weight(module, do_power_iteration=False)
        elif "BasePruningMethod" in bases:
            computed[hook._tensor_name] = hook.apply_mask(module)
    for name in computed:
        source = re.compile(rf"{re.escape(name)}_(?:g|v|u|orig|mask)|parametrizations\.{re.escape(name)}\..*")
        weights = {key: value for key, value in weights.items() if not source.fullmatch(key)}
    return weights | computed


def as_floating(value: Any, copy: bool) -> NDArray[Any]:
    """An array or a tensor, on any device, as float32 or float64.

    copy : False takes an array that needs no widening as it is

    Raises
    ------
    TypeError
        It is neither; the message says only what was found.
    """
    if callable(getattr(value, "detach", None)):
        found = str(getattr(value, "dtype", type(value).__name__))
        if getattr(value, "is_meta", False):
            raise TypeError("a tensor without data, on the meta device")
        try:
            value = value.detach().cpu()
            value = (value.float() if found == "torch.bfloat16" else value).numpy()
        except (TypeError, RuntimeError):  # types that NumPy does not have, sparse or quantized tensors
            layout = str(getattr(value, "layout", "torch.strided"))
            raise TypeError(found if layout == "torch.strided" else f"{found} of layout {layout}") from None
    if not hasattr(value, "__array__"):
        raise TypeError(type(value).__name__)
    array = np.asarray(value)
    if array.dtype.name == "bfloat16":  # of ml_dtypes
        array = array.astype(np.float32)
    if array.dtype.kind != "f" or array.dtype.itemsize > 8:
        raise TypeError(str(array.dtype))
    dtype = np.float64 if array.dtype.itemsize == 8 else np.float32
    return np.array(array, dtype, order="C") if copy else np.asarray(array, dtype)
