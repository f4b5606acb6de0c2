"""PyTorch, live: the modules, and one way to run them on ragged batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

MODULES = {"lstm": torch.nn.LSTM, "gru": torch.nn.GRU, "rnn": torch.nn.RNN}


def module(kind: str, *sizes: int, dtype: torch.dtype = torch.float32, **options: Any) -> torch.nn.Module:
    torch.manual_seed(sum(sizes))
    return MODULES[kind](*sizes, **options).to(dtype).eval()


def run(module: Any, x: np.ndarray, state: Any = None, lengths: Any = None) -> tuple[Any, Any, Any]:
    """Run on x in the module's own layout; lengths of at least one. Returns y, h, c or None."""
    tensor = torch.from_numpy(x)
    if state is not None:
        state = tuple(map(torch.from_numpy, state)) if isinstance(state, tuple) else torch.from_numpy(state)
    with torch.no_grad():
        if lengths is None:
            y, last = module(tensor, state)
        else:
            first = module.batch_first
            packed = torch.nn.utils.rnn.pack_padded_sequence(tensor, torch.tensor(lengths), first, enforce_sorted=False)
            packed, last = module(packed, state)
            y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, first)
    last = tuple(part.numpy() for part in last) if isinstance(last, tuple) else (last.numpy(), None)
    return (y.numpy(), *last)
