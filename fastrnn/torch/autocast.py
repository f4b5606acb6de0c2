"""What torch.autocast does to the inputs and results of PyTorch's recurrent modules."""

from __future__ import annotations

import torch
from torch import Tensor

#: The dtypes of tensors that it converts.
CONVERTED = (torch.float32, torch.float16, torch.bfloat16)


def autocast_inputs(
    mode: str, inputs: list[Tensor], dtype: torch.dtype, is_cell: bool
) -> tuple[torch.dtype | None, list[Tensor]]:
    """The inputs in the dtype of the weights, if autocast is on and converts both.

    PyTorch computes with autocast's dtype then; here all is computed as without autocast, and only the results are
    converted.

    Parameters
    ----------
    mode : PyTorch's name of the recurrence
    inputs : x and the initial states
    dtype : of the weights
    is_cell : whether the module is a cell

    Returns
    -------
    dtype : that PyTorch's results have; None if autocast changes nothing
    inputs
    """
    if not torch.is_autocast_enabled("cpu") or dtype not in CONVERTED:
        return None, inputs
    wanted = torch.get_autocast_dtype("cpu")
    if (mode == "LSTM" and is_cell) or mode == "GRU":  # which PyTorch adds to the state in the state's own dtype
        wanted = torch.promote_types(wanted, inputs[-1].dtype)
    return wanted, [tensor.to(dtype) if tensor.dtype in CONVERTED else tensor for tensor in inputs]


def autocast_results(results: list[Tensor], dtype: torch.dtype | None) -> list[Tensor]:
    return results if dtype is None else [tensor.to(dtype) for tensor in results]
