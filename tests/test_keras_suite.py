"""Keras 3's own tests of its recurrent layers, from its wheel, run on fastrnn."""

import importlib.util
import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

import fastrnn

HERE = Path(__file__).parent

#: Tests of Keras with numbers in them; a later Keras may have more.
NUMERIC = {
    "lstm": {"correctness0", "correctness1", "statefulness", "pass_initial_state", "masking"},
    "gru": {"correctness0", "correctness1", "statefulness", "pass_initial_state", "pass_return_state", "masking"},
    "simple_rnn": {"correctness", "statefulness", "pass_initial_state", "masking"},
    "bidirectional": {"correctness", "statefulness", "pass_initial_state", "masking", "return_state"},
}


def test_keras_own_tests_pass(tmp_path):
    """All pass, and those with numbers call fastrnn, which the plugin counts."""
    for package in ("keras", "tensorflow"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    folder = Path(importlib.util.find_spec("keras").origin).parent / "src" / "layers" / "rnn"
    report = tmp_path / "report.xml"
    own = [str(HERE / "oracle"), str(Path(fastrnn.__file__).parents[1])]
    environment = {"KERAS_BACKEND": "tensorflow", "TF_CPP_MIN_LOG_LEVEL": "3"} | os.environ
    environment["PYTHONPATH"] = os.pathsep.join([*own, os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "pytest", "-q", "-p", "keras_plugin", "-p", "no:cacheprovider"]
    files = [str(folder / f"{name}_test.py") for name in NUMERIC]
    run = subprocess.run(
        [*command, f"--junitxml={report}", *files], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    answered = {name: set() for name in NUMERIC}
    for case in ElementTree.parse(report).iter("testcase"):
        calls = case.find("properties/property[@name='answered']")
        if calls is not None and int(calls.get("value")):
            file = case.get("classname").split(".")[-2].removesuffix("_test")
            answered[file].add(case.get("name").removeprefix("test_"))
    for name, wanted in NUMERIC.items():
        assert wanted <= answered[name], name
    assert sum(map(len, answered.values())) >= 21
