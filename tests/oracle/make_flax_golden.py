"""Write tests/golden/flax.npz: parameters of Flax's cells, linen's and nnx's, and what they computed.

    python tests/oracle/make_flax_golden.py

Run with Flax 0.12.8 and JAX 0.10.2. x (B, T, 3) is ragged; of each cell there are its parameters, under
``NAME/params/...`` with the path of each, and y (B, T, 4), zeros past each row's end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen, nnx

PATH = Path(__file__).parents[1] / "golden" / "flax.npz"
LENGTHS = np.array([3, 7, 1, 7])
SIZE = 4


def flatten(tree: Any, path: str) -> dict[str, np.ndarray]:
    if isinstance(tree, dict):
        return {key: leaf for name, value in tree.items() for key, leaf in flatten(value, f"{path}/{name}").items()}
    return {path: np.asarray(tree)}


def randomized(tree: Any, rng: np.random.Generator) -> Any:
    """The same tree of random numbers, biases too, which Flax starts at zero."""
    if isinstance(tree, dict):
        return {name: randomized(value, rng) for name, value in tree.items()}
    return rng.uniform(-0.7, 0.7, tree.shape).astype(np.float32)


def main() -> None:
    rng = np.random.default_rng(5)
    x = rng.standard_normal((len(LENGTHS), 7, 3)).astype(np.float32)
    past = np.arange(7) >= LENGTHS[:, None]
    answers: dict[str, np.ndarray] = {"x": x, "lengths": LENGTHS}
    for name in ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"):
        model = linen.RNN(getattr(linen, name)(SIZE))
        params = randomized(dict(model.init(jax.random.key(0), x)), rng)
        y = np.array(model.apply(params, x, seq_lengths=LENGTHS))
        y[past] = 0
        answers |= flatten(params, f"linen.{name}/params") | {f"linen.{name}/y": y}
    for name in ("LSTMCell", "OptimizedLSTMCell", "GRUCell", "SimpleCell"):
        model = nnx.RNN(getattr(nnx, name)(3, SIZE, rngs=nnx.Rngs(0)), rngs=nnx.Rngs(1))
        graph, state, rest = nnx.split(model, nnx.Param, ...)
        pure = randomized(nnx.to_pure_dict(state), rng)
        nnx.replace_by_pure_dict(state, pure)
        y = np.array(nnx.merge(graph, state, rest)(x, seq_lengths=LENGTHS))
        y[past] = 0
        answers |= flatten(pure, f"nnx.{name}/params") | {f"nnx.{name}/y": y}
    np.savez_compressed(PATH, **answers)


if __name__ == "__main__":
    main()
