"""The examples in documents and docstrings run, and documents agree with the code."""

import argparse
import doctest
import importlib
import importlib.util
import json
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest
import serving
import torch

import fastrnn
from fastrnn.serve.options import add_arguments
from fastrnn.spec import ACTIVATIONS

ROOT = Path(__file__).parents[1]
MODULES = [m.name for m in pkgutil.walk_packages(fastrnn.__path__, "fastrnn.") if m.name != "fastrnn.__main__"]
if importlib.util.find_spec("ray") is None:  # of another environment than most tests
    MODULES = [name for name in MODULES if not name.startswith("fastrnn.ray.")]


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


def test_the_keras_example_stands_alone():
    """It builds its own inputs and imports what it uses."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    (block,) = [block for block in blocks if "fastrnn.keras" in block]
    names = {}
    exec(block, names)
    assert names["output"].shape == (2, 4, 3)


def test_every_picture_has_a_caption():
    """The caption below a picture explains its axes."""
    pictures = [
        picture
        for document in ("README.md", "docs/scaling.md")
        for picture in re.findall(
            r"^!\[[^]]+\]\((?:docs/)?(pictures/\w+\.png)\)\n\n\*(.+?)\*\n\n", (ROOT / document).read_text(), re.M | re.S
        )
    ]
    assert {ROOT / "docs" / path for path, _ in pictures} == set((ROOT / "docs/pictures").glob("*.png"))
    assert all("axis" in caption for _, caption in pictures)


def test_links_between_documents_exist():
    documents = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "bench/README.md", *(ROOT / "docs").glob("*.md")]
    for document in documents:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), (document.name, target)


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


def test_models_examples():
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/models.md").read_text(), re.S):
        exec(block, names)
    y, rows = names["y"], names["rows"]
    assert y.shape == (3, 7, 5) and not y[1].any() and not y[2, 4:].any()
    np.testing.assert_array_equal(rows[1], y[2, :4])
    whole = names["detector"](names["frames"])
    np.testing.assert_array_equal(names["first"], whole[:, :5])
    np.testing.assert_array_equal(names["step"], whole[:, 5])


def test_pytorch_examples(capsys):
    names, threads = {}, torch.get_num_threads()
    torch.set_num_threads(1)
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/pytorch.md").read_text(), re.S):
        exec(block, names)
    torch.set_num_threads(threads)
    assert 0 < names["difference"] < 1e-5 and isinstance(names["fast"].lstm, torch.nn.LSTM)
    assert capsys.readouterr().out.split()[::2] == ["PyTorch", "fastrnn"] * 3
    with torch.no_grad():
        torch.testing.assert_close(names["y"], names["encoder"](names["x"])[0])


def test_the_version_has_one_source():
    header = re.search(r'#define FASTRNN_VERSION "(.+)"', (ROOT / "include/fastrnn.h").read_text())
    assert fastrnn.__version__ == header[1]
    assert 'dynamic = ["version"]' in (ROOT / "pyproject.toml").read_text()


def rules():
    """docs/rules.md as a mapping of a rule's number to its text."""
    text = (ROOT / "docs/rules.md").read_text()
    entries = re.findall(r"^(\d+)\. (\*\*.*?)(?=^\d+\. |^## |\Z)", text, re.MULTILINE | re.DOTALL)
    numbers = [int(number) for number, _ in entries]
    assert numbers == list(range(1, len(numbers) + 1))
    return dict(zip(numbers, (entry for _, entry in entries), strict=True))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_documents_list_every_activation(name):
    assert f"``{name}``" in fastrnn.Activation.__doc__
    assert f'"{name}"' in (ROOT / "include/fastrnn.h").read_text()


def names_of_tests(path):
    return re.findall(r"^def (test_\w+)", path.read_text(), re.MULTILINE)


def test_every_rule_that_a_test_cites_is_in_the_document_and_the_reverse():
    cited = {
        int(number)
        for path in ROOT.glob("tests/test_*.py")
        for number in re.findall(r"def test_rule_(\d+)_", path.read_text())
    }
    entries = rules()
    without_test = {number for number, entry in entries.items() if entry.rstrip().endswith("No test.")}
    assert cited == entries.keys() - without_test
    for number, entry in entries.items():
        named = [name for _, name in re.findall(r"`(?:(test_\w+)\.py::)?(test_\w+)`", entry)]
        assert bool(named) != (number in without_test), number
        assert all(name.startswith(f"test_rule_{number:02}_") for name in named if name.startswith("test_rule_"))


def test_tests_that_the_rules_name_exist():
    for number, entry in rules().items():
        for file, name in re.findall(r"`(?:(test_\w+)\.py::)?(test_\w+)`", entry):
            assert name in names_of_tests(ROOT / "tests" / f"{file or 'test_rules'}.py"), (number, name)


def test_every_rule_of_the_file_of_rules_is_named():
    text = (ROOT / "docs/rules.md").read_text()
    for name in names_of_tests(ROOT / "tests" / "test_rules.py"):
        assert f"`{name}`" in text or not name.startswith("test_rule_"), name


def test_files_examples(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", (ROOT / "docs/files.md").read_text(), re.S):
        exec(block, names)
    assert repr(names["again"]) == repr(names["layer"]) and names["again"].hidden_size == 2


def test_weights_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/weights.md").read_text(), re.S)
    exec(block, names)
    assert repr(names["fastrnn"].load("half.safetensors")) == repr(names["half"])


def test_serving_examples(tmp_path):
    """The documented clients against a server of the documented model; the application, the pool; every flag."""
    text = (ROOT / "docs/serving.md").read_text()
    making = re.search(r'python -c "\n(.*?)"\n', text, re.S)[1]
    exec(making.replace("tones.safetensors", f"{tmp_path}/tones.safetensors"), {})
    layer = fastrnn.load(tmp_path / "tones.safetensors")
    blocks = re.findall(r"```python\n(.*?)```", text, re.S)
    names = {}
    with serving.Server(f"tones={tmp_path}/tones.safetensors") as server:
        body = re.search(r"infer -d '(.*?)'", text, re.S)[1]
        status, _, content = server.request("/v2/models/tones/infer", body.encode())
        assert status == 200
        np.testing.assert_array_equal(
            serving.output(json.loads(content)), layer(np.arange(1, 7, dtype="f4").reshape(1, 3, 2))[0]
        )
        for block in blocks:
            exec(block.replace("127.0.0.1:8000", server.http), names)
    np.testing.assert_array_equal(names["y"], layer(names["steps"])[0])
    np.testing.assert_array_equal(names["answer"], layer(np.ones((1, 4, 2), "f4"))[0][0])
    assert [y.shape for y in names["ys"]] == [(3, 1), (1, 1)] and names["app"].service.options.max_sessions == 100
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    table = text[text.index("## Flags") : text.index("## Access")]
    rows = {
        flag: row
        for row in table.splitlines()
        for flag in re.findall(r"`(--[\w-]+)`", row.split("|")[1] if "|" in row else "")
    }
    actions = {action.option_strings[0]: action for action in parser._actions if action.option_strings}
    assert set(rows) == set(actions) - {"-h"}
    for flag, action in actions.items():
        if isinstance(action.default, int | float) and not isinstance(action.default, bool) and "port" not in flag:
            assert f"| {action.default:g} |" in rows[flag] or f"| {action.default} |" in rows[flag], flag


def test_onnx_example(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    names = {}
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/onnx.md").read_text(), re.S)
    exec(block, names)
    assert names["y"].shape == (7, 1, 3, 2) and names["h"].shape == (1, 3, 3)
    np.testing.assert_array_equal(names["y"], names["same"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ["fastrnn", "onnxruntime"]
    assert not names["y"][2:, :, 1].any() and not names["h"][:, 2].any() and names["layer"].hidden_size == 3
