"""Write tests/golden/keras.npz: Keras's answers to the cases of keras_cases.GOLDEN.

Run with Keras 3 and one of its backends installed: python tests/oracle/make_keras_golden.py
"""

import sys
import zlib
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import keras  # noqa: E402
import keras_cases  # noqa: E402
import numpy as np  # noqa: E402


def build(name, go_backwards=False, **run):
    kind, options = keras_cases.VARIANTS[name]
    return getattr(keras.layers, kind)(
        keras_cases.UNITS, **options, **run, go_backwards=go_backwards, return_state=True
    )


def main():
    arrays = {}
    for case, (names, mode, mask, run) in keras_cases.GOLDEN.items():
        rng = np.random.default_rng(zlib.crc32(case.encode()))
        layers = [build(name, **run) for name in names]
        layer = keras.layers.Bidirectional(layers[0], merge_mode=mode) if len(layers) == 2 else layers[0]
        x, states = keras_cases.random_inputs(rng, sum(map(keras_cases.num_states, names)))
        weights = [array for name in names for array in keras_cases.random_weights(rng, name)]
        layer(x)
        layer.set_weights(weights)
        results = layer(x, mask=keras_cases.MASKS[mask], initial_state=states)
        parts = [x, *weights, *states, *map(keras.ops.convert_to_numpy, results)]
        arrays[case] = np.concatenate([part.ravel() for part in parts])
    np.savez_compressed(TESTS / "golden" / "keras.npz", **arrays)


if __name__ == "__main__":
    main()
