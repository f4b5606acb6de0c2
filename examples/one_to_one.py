"""One to one: a cell as a layer without time, one output for one input. The weights are set by hand to compute XOR."""

import numpy as np

from fastrnn import nn

# Two relu units on two inputs: h0 = a + b, h1 = relu(a + b - 1). The last two rows are recurrent weights.
weights = {
    "kernel": np.array([[1, 1], [1, 1], [0, 0], [0, 0]], "f4"),
    "bias": np.array([0, -1], "f4"),
}
cell = nn.rnn_cell.BasicRNNCell(2, activation="relu", weights=weights)

x = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], "f4")
h, _ = cell(x, cell.zero_state(len(x), "f4"))
y = h @ np.array([1, -2], "f4")  # a XOR b = (a + b) - 2 relu(a + b - 1)

for (a, b), xor in zip(x, y, strict=True):
    print(f"{a:.0f} xor {b:.0f} = {xor:.0f}")
