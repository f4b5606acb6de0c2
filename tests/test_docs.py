"""What the documents show, runs: docstring examples, and the README's Python blocks in their order."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import fastrnn

ROOT = Path(__file__).parents[1]
MODULES = [m.name for m in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.") if m.name != "fastrnn.__main__"]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(name)
    failed, _ = doctest.testmod(module, extraglobs={"np": np}, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert failed == 0


def test_readme_examples():
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) >= 3
    names = {"module": torch.nn.LSTM(5, 4, batch_first=True)}
    for block in blocks:
        exec(block, names)
    assert names["y"].data.shape == (77, 4) and names["rest"].shape == (1, 49, 4)
    np.testing.assert_array_equal(names["first"], names["lstm"](names["x"])[0][:1, 0])


def test_tensorflow_examples():
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/tensorflow.md").read_text(), re.S)
    names = {}
    exec(block, names)
    assert names["outputs"].shape == (3, 10, 16) and names["state"].c.shape == (3, 16) and len(names["steps"]) == 10
    assert not names["outputs"][1].any() and not names["bw"][2, 4:].any()


def test_packed_examples():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/packed.md").read_text(), re.S):
        exec(block, names)
    np.testing.assert_array_equal(names["same"].data, np.ones((8, 2), np.float32))
    assert names["padded"].shape == (3, 5, 4) and names["lengths"].tolist() == [5, 3, 1]
    assert names["y"].shape == (1, 2, 4) and [len(row) for row in names["rows"]] == [2, 1]


def test_the_version_has_one_source():
    header = re.search(r'#define FASTRNN_VERSION "(.+)"', (ROOT / "include/fastrnn.h").read_text())
    assert fastrnn.__version__ == header[1]
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()
