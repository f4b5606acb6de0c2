"""Recurrent networks that train in a second: random cells that are not trained, and a readout by least squares.

Echo state networks (Jaeger 2001): the cell's state depends on the whole sequence, and only the linear map from the
state to the answer is learnt, in closed form.
"""

import numpy as np

from fastrnn import nn


def random_cell(num_units, input_size, rng, radius=0.95, input_scale=0.5):
    """A BasicRNNCell whose state fades slowly: the recurrent kernel has this spectral radius."""
    recurrent = rng.standard_normal((num_units, num_units))
    recurrent *= radius / abs(np.linalg.eigvals(recurrent)).max()
    kernel = np.concatenate([rng.uniform(-input_scale, input_scale, (input_size, num_units)), recurrent])
    weights = {"kernel": kernel.astype("f4"), "bias": rng.uniform(-0.2, 0.2, num_units).astype("f4")}
    return nn.rnn_cell.BasicRNNCell(num_units, weights=weights)


def least_squares(features, targets, penalty=1e-3):
    """The map (F, V) from features (N, F) to targets (N, V) of least squared error, plus penalty times its own size."""
    x = features.astype("f8")
    return np.linalg.solve(x.T @ x + penalty * np.eye(x.shape[1]), x.T @ targets).astype("f4")
