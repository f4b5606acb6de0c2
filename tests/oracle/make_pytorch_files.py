"""Write tests/golden/pytorch/: files of torch.save, and what PyTorch computed with the modules that they came from.

    python tests/oracle/make_pytorch_files.py

Run with PyTorch 2.13. answers.npz holds the ragged input x (B, T, 3), the lengths, and for each file its y and h.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

FOLDER = Path(__file__).parents[1] / "golden" / "pytorch"

#: file -> (module, its arguments); what else is in the file is by its name.
MODULES: dict[str, tuple[str, dict[str, Any]]] = {
    "lstm": ("LSTM", {"num_layers": 2, "bidirectional": True}),
    "lstm-no-bias": ("LSTM", {"bias": False}),
    "lstm-projection": ("LSTM", {"proj_size": 2, "bidirectional": True}),
    "gru": ("GRU", {"num_layers": 2, "bidirectional": True}),
    "rnn-tanh": ("RNN", {"num_layers": 2}),
    "rnn-relu": ("RNN", {"nonlinearity": "relu", "bidirectional": True}),
    "lstm-cell": ("LSTMCell", {}),
    "gru-cell": ("GRUCell", {}),
    "rnn-cell": ("RNNCell", {"nonlinearity": "relu"}),
    "float16": ("GRU", {}),
    "bfloat16": ("LSTM", {}),
    "float64": ("GRU", {"bidirectional": True}),
    "checkpoint": ("LSTM", {}),
    "wrapped": ("GRU", {}),
}

LENGTHS = np.array([3, 7, 1, 7, 2])


def run(module: Any, x: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
    """y (B, T, D*P), zeros past each row's end, and h after each row's last step."""
    if isinstance(module, torch.nn.RNNCellBase):
        ys, h = [], None
        for row, length in zip(x, LENGTHS, strict=True):
            state, y = None, torch.zeros(x.shape[1], module.hidden_size, dtype=x.dtype)
            for step in range(length):
                state = module(row[step : step + 1], state)
                y[step] = (state[0] if isinstance(state, tuple) else state)[0]
            ys.append(y)
            h = y[length - 1 : length] if h is None else torch.cat([h, y[length - 1 : length]])
        return torch.stack(ys).numpy(), h[None].numpy()
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.from_numpy(LENGTHS), True, enforce_sorted=False)
    packed, state = module(packed)
    y, _ = torch.nn.utils.rnn.pad_packed_sequence(packed, True)
    return y.numpy(), (state[0] if isinstance(state, tuple) else state).numpy()


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    torch.manual_seed(3)
    x = torch.randn(len(LENGTHS), 7, 3)
    answers = {"x": x.numpy(), "lengths": LENGTHS}
    for name, (kind, options) in MODULES.items():
        cell = {} if kind.endswith("Cell") else {"batch_first": True}
        module = getattr(torch.nn, kind)(3, 4, **options, **cell).eval()
        if name.endswith(("16", "64")):
            module.to(getattr(torch, name))
        content: Any = module.state_dict()
        if name == "checkpoint":
            model = torch.nn.ModuleDict({"encoder": module, "head": torch.nn.Linear(4, 2)})
            optimizer = torch.optim.Adam(model.parameters())
            sum(parameter.sum() for parameter in model.parameters()).backward()
            optimizer.step()
            content = {
                "epoch": 3,
                "pytorch-lightning_version": "2.5.0",
                "state_dict": model.state_dict(),
                "optimizer_states": [optimizer.state_dict()],
                "hyper_parameters": {"lr": 1e-3, "names": ["a", "b"]},
            }
        if name == "wrapped":
            content = torch.nn.DataParallel(torch.nn.ModuleDict({"encoder": module})).state_dict()
        torch.save(content, FOLDER / f"{name}.pt")
        with torch.no_grad():
            wide = module.to(torch.float64 if name == "float64" else torch.float32)
            answers[f"{name}.y"], answers[f"{name}.h"] = run(wide, x.to(next(wide.parameters()).dtype))
    np.savez_compressed(FOLDER / "answers.npz", **answers)


if __name__ == "__main__":
    main()
