"""A live PyTorch module's weights as it computes with them. PyTorch itself is never imported."""

from __future__ import annotations

import copy
import re
from typing import Any


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
