"""examples/padding.py prints what TensorFlow 1 and Keras gave for the same batch."""

import runpy
from pathlib import Path

import numpy as np

EXAMPLE = Path(__file__).parents[1] / "examples" / "padding.py"

#: The published figures, in the order of the example.
WANTED = [
    [[-6, -50, -156, -272.7276, -475.83362], [-1.2876, -9.862801, -69.314, -213.94202, -373.54672]],
    [[-6, -50, -156, -156, -156], [0, -6, -50, -156, -156]],
    [[-6, -50, -156, 0, 0], [0, -6, -50, -156, 0]],
    [[-6, -50, -156, 0, 0], [0, -6, -50, -156, 0]],
]


def test_the_figures():
    found = [y for _, _, y in runpy.run_path(str(EXAMPLE))["results"]()]
    np.testing.assert_allclose(found[0], WANTED[0], rtol=2e-7)
    np.testing.assert_array_equal(found[1:], WANTED[1:])


def test_it_prints_them(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    text = capsys.readouterr().out
    assert "1 2 1 0 0  ->  -6  -50  -156  -272.7276  -475.83362" in text
    assert text.count("0 1 2 1 0  ->  0  -6  -50  -156  0\n") == 2
