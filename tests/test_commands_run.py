"""``fastrnn run``: sequences of any lengths through a layer of a file."""

import io
import json
import os
import re
import subprocess
import sys
import types

import cases
import files
import keras_file_cases
import numpy as np
import pytest

import fastrnn
from fastrnn import cli
from fastrnn.commands import sequences as reading
from fastrnn.layers import LAYERS

#: Unsorted, with ties, ones, zeros, and two that are longer than a small bound.
LENGTHS = (3, 0, 7, 1, 3, 25, 0, 1, 40, 5)
INPUT_SIZE = 3

LAYERS_OF_FILES = {
    "lstm": ("lstm", INPUT_SIZE, 4, 2),
    "gru": ("gru", INPUT_SIZE, 5, 1, True),
    "projection": ("lstm", INPUT_SIZE, 4, 1, False, 2),
    "rnn": ("rnn", INPUT_SIZE, 1),
}


@pytest.fixture(params=sorted(LAYERS_OF_FILES))
def model(request, tmp_path, rng):
    """A path of a layer's file."""
    path = tmp_path / "model"
    spec = cases.random_spec(rng, *LAYERS_OF_FILES[request.param])
    LAYERS[spec.kind](spec).save(path)
    return path


@pytest.fixture
def small(tmp_path):
    path = tmp_path / "small"
    spec = cases.random_spec(np.random.default_rng(1), "gru", 2, 2)
    LAYERS["gru"](spec).save(path)
    return str(path)


def draw(rng, lengths=LENGTHS, dtype="f4"):
    return [rng.standard_normal((length, INPUT_SIZE)).astype(dtype) for length in lengths]


def lines(sequences):
    return "".join(json.dumps(x.tolist()) + "\n" for x in sequences).encode()


def alone(path, sequences, **options):
    """The outputs of each sequence by itself."""
    layer = fastrnn.load(path, **options)
    return [layer([x])[0][0] for x in sequences]


def command(path, *arguments):
    assert cli.main(["run", str(path), *map(str, arguments)]) == 0


def assert_same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype) and a.tobytes() == b.tobytes()


def read_lines(path, dtype="f4", width=None):
    arrays = [np.array(json.loads(line), dtype) for line in path.read_text().splitlines()]
    return [array if array.size else array.reshape(0, width) for array in arrays]


@pytest.mark.parametrize("batch_steps", [1, 6, 8192])
@pytest.mark.parametrize("form", ["jsonl", "arrays", "compressed", "rows"])
@pytest.mark.parametrize("ending", ["jsonl", "npz"])
def test_the_same_bits_as_each_sequence_alone(model, tmp_path, rng, form, ending, batch_steps):
    sequences = draw(rng)
    wanted = alone(model, sequences)
    source, target = tmp_path / "x", tmp_path / f"y.{ending}"
    names = [f"arr_{i}" for i in range(len(sequences))]
    if form == "jsonl":
        source.write_bytes(lines(sequences))
    elif form == "rows":
        x = np.full((len(sequences), max(LENGTHS) + 2, INPUT_SIZE), np.nan, "f4")
        for row, sequence in enumerate(sequences):
            x[row, : len(sequence)] = sequence
        source.write_bytes(files.npz({"x": x, "lengths": np.array(LENGTHS)}))
    else:
        names = [f"part/{i}" for i in range(len(sequences))]
        source.write_bytes(files.npz(dict(zip(names, sequences, strict=True)), form == "compressed"))
    command(model, "--input", source, "--output", target, "--batch-steps", batch_steps)
    assert sorted(os.listdir(tmp_path)) == sorted(["model", "x", target.name])  # no temporary file is left
    if ending == "jsonl":
        assert_same(read_lines(target, width=wanted[0].shape[1]), wanted)
        return
    with np.load(target) as found:
        if form != "rows":
            assert found.files == names
            assert_same([found[name] for name in names], wanted)
            return
        y = found["y"]
        np.testing.assert_array_equal(found["lengths"], LENGTHS)
    assert_same([y[row, :length] for row, length in enumerate(LENGTHS)], wanted)
    assert not any(y[row, length:].any() for row, length in enumerate(LENGTHS)) and y.shape[1] == max(LENGTHS) + 2


def test_the_output_of_npz_is_an_input(model, tmp_path, rng):
    """The order and the names stay, also where one file has more sequences than a chunk."""
    sequences = draw(rng, [2] * 50 + [9])
    names = [f"{i}" for i in reversed(range(len(sequences)))]
    (tmp_path / "x.npz").write_bytes(files.npz(dict(zip(names, sequences, strict=True))))
    command(model, "--input", tmp_path / "x.npz", "--output", tmp_path / "x.npz", "--batch-steps", 8)
    with np.load(tmp_path / "x.npz") as found:
        assert found.files == names
        assert_same([found[name] for name in names], alone(model, sequences))


def test_a_row_array_without_lengths_has_full_rows(model, tmp_path, rng):
    x = rng.standard_normal((3, 5, INPUT_SIZE)).astype("f4")
    (tmp_path / "x.npz").write_bytes(files.npz({"anything": x}))
    command(model, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        assert found.files == ["y"]
        assert_same(list(found["y"]), alone(model, list(x)))


@pytest.mark.parametrize("count", [0, 3])
def test_no_rows_and_no_steps(model, tmp_path, count):
    (tmp_path / "x.npz").write_bytes(files.npz({"x": np.empty((count, 0, INPUT_SIZE), "f4")}))
    command(model, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        assert found["y"].shape == (count, 0, fastrnn.load(model).output_size)


def test_empty_input_gives_empty_output(small, tmp_path):
    (tmp_path / "x").write_bytes(b"")
    command(small, "--input", tmp_path / "x", "--output", tmp_path / "y.jsonl")
    assert (tmp_path / "y.jsonl").read_bytes() == b""


def test_keys_choose_arrays(model, tmp_path, rng):
    sequences = draw(rng, (4, 2))
    arrays = {"a": sequences[0], "labels": np.arange(5), "b": sequences[1], "lengths": np.arange(9)}
    (tmp_path / "x.npz").write_bytes(files.npz(arrays))
    arguments = ["--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz"]
    command(model, *arguments, "--key", "a", "--key", "b")
    with np.load(tmp_path / "y.npz") as found:
        assert_same([found["a"], found["b"]], alone(model, sequences))


def test_types_of_npz(model, tmp_path, rng, capsys):
    """By default those that lose nothing, as in a call."""
    small_integers = rng.integers(-3, 3, (6, INPUT_SIZE)).astype("i2")
    (tmp_path / "x.npz").write_bytes(files.npz({"x": small_integers}))
    command(model, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        assert_same([found["x"]], alone(model, [small_integers]))
    doubles = rng.standard_normal((6, INPUT_SIZE))
    (tmp_path / "x.npz").write_bytes(files.npz({"x": doubles}))
    arguments = ["--input", str(tmp_path / "x.npz"), "--output", str(tmp_path / "y.npz")]
    assert cli.main(["run", str(model), *arguments]) == 2
    assert "x is float64, wanted float32; --casting same_kind converts it" in capsys.readouterr().err
    command(model, *arguments, "--casting", "same_kind")
    with np.load(tmp_path / "y.npz") as found:
        assert_same([found["x"]], alone(model, [doubles.astype("f4")]))


def test_float64_and_options_of_load(model, tmp_path, rng):
    sequences = draw(rng, dtype="f8")
    (tmp_path / "x").write_bytes(lines(sequences))
    command(model, "--input", tmp_path / "x", "--output", tmp_path / "y.npz", "--dtype", "float64", "--batch-steps", 9)
    with np.load(tmp_path / "y.npz") as found:
        assert_same([found[name] for name in found.files], alone(model, sequences, dtype="float64"))


def test_a_reverse_layer_runs_long_sequences_whole(tmp_path, rng):
    from dataclasses import replace

    spec = replace(cases.random_spec(rng, "gru", INPUT_SIZE, 4), reverse=True, batch_first=False)
    LAYERS["gru"](spec).save(tmp_path / "model")
    sequences = draw(rng)
    (tmp_path / "x").write_bytes(lines(sequences))
    command(tmp_path / "model", "--input", tmp_path / "x", "--output", tmp_path / "y.npz", "--batch-steps", 5)
    with np.load(tmp_path / "y.npz") as found:
        assert_same([found[name] for name in found.files], alone(tmp_path / "model", sequences))


def test_a_long_line_is_read_in_parts(small, tmp_path, rng):
    """Its text is longer than what is parsed at a time; blanks may be anywhere."""
    x = rng.standard_normal((60_000, 2)).astype("f4")
    text = json.dumps(x.tolist(), separators=(" ,  ", ":")).encode()
    assert len(text) > 2 << 20
    (tmp_path / "x").write_bytes(b"[[1,2]]\n  " + text + b" \n[[3,4]]")
    command(small, "--input", tmp_path / "x", "--output", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        sequences = [np.array([[1, 2]], "f4"), x, np.array([[3, 4]], "f4")]
        assert_same([found[name] for name in found.files], alone(small, sequences))


@pytest.mark.parametrize("case", ["lstm-last", "both-sum", "backwards", "masking", "stateful", "cells-unlike"])
def test_layers_of_keras(tmp_path, case, capsys):
    """A layer of fastrnn.keras, on each sequence alone: sequences, or the last output."""
    model = tmp_path / "model.keras"
    model.write_bytes(keras_file_cases.Golden().read(f"keras3/{case}.keras"))
    layer = fastrnn.load(model)
    rng = np.random.default_rng(5)
    sequences = [rng.standard_normal((length, 3)).astype("f4") for length in (3, 1, 9, 3, 0, 1)]
    (tmp_path / "x").write_bytes(lines(sequences))
    command(model, "--input", tmp_path / "x", "--output", tmp_path / "y.npz", "--batch-steps", 7)
    with np.load(tmp_path / "y.npz") as found:
        results = [found[name] for name in found.files]
    for x, y in zip(sequences, results, strict=True):
        # a layer of its own for each, because a stateful one keeps its state
        wanted = layer([x])[0][0] if isinstance(layer, fastrnn.LSTM) else fastrnn.load(model)(x[None])[0]
        np.testing.assert_array_equal(y, wanted)
    x = np.zeros((2, 4, 3), "f4")
    (tmp_path / "x.npz").write_bytes(files.npz({"x": x, "lengths": np.array([4, 2])}))
    command(model, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz")
    with np.load(tmp_path / "y.npz") as found:
        assert found["y"].shape[:-1] == ((2, 4) if results[2].ndim == 2 else (2,))


def test_two_outputs_are_refused(tmp_path, capsys):
    model = tmp_path / "model.keras"
    model.write_bytes(keras_file_cases.Golden().read("keras3/functional-both-none.keras"))
    assert cli.main(["run", str(model), "--input", str(model)]) == 2
    assert "merge_mode None, which gives two outputs" in capsys.readouterr().err


# ---- Malformed input -------------------------------------------------------------------------------------------------

LINES = {
    b"[[1,2]]\n[[1,2],[3]]\n": "line 2: step 1 has 1 numbers, wanted a list of 2 numbers",
    b"[[1,2,3]]": "line 1: step 0 has 3 numbers, wanted a list of 2 numbers",
    b"[1,2]": "line 1: step 0 is a number, wanted a list of 2 numbers",
    b"[[[1,2]]]": "line 1: step 0 has lists inside, wanted a list of 2 numbers",
    b"[[1,[2]]]": "line 1: step 0 has lists inside",
    b"7": "line 1 is a number, wanted an array of T steps of 2 numbers",
    b"[[1,2]]\n\n": "line 2 is empty, wanted an array of T steps of 2 numbers",
    b"[[1,2]": "line 1 is no JSON: Expecting ',' delimiter, wanted an array",
    b"[[1,2]]x": "line 1 has 'x', wanted an array",
    b"[[1,2]] [[3,4]]": "line 1 is no JSON: Extra data, wanted an array",
    b"[[1,true]]": "line 1 has 'true]]', wanted an array",
    b'[["1",2]]': "line 1 has '\"1\",2]]', wanted an array",
    b"[[NaN,2]]": "line 1 has 'NaN,2]]', wanted an array",
    b"[[1,null]]": "line 1 has 'null]]', wanted an array",
    b"{}": "line 1 has '{}', wanted an array",
    b"\xff\xfe": "line 1 has '\ufffd\ufffd', wanted an array",
    b"[[1,2],[1e39,2]]": "line 1: step 1 has a number beyond float32, wanted numbers within",
    b"[[1,2],[1e999,2]]": "line 1: step 1 has a number beyond float32, wanted numbers within",
    b"[[1," + b"9" * 400 + b"]]": "line 1: a number is too large, wanted a list of 2 numbers",
    b"[[1," + b"9" * 9000 + b"]]": "line 1 is no JSON: Exceeds the limit",
    b"[" * 100_000: "line 1 nests too deep, wanted an array",
    b"[[1,2]," + b"[3,4]," * 300_000 + b"]\n": "line 1 is no JSON: Expecting value, wanted an array",
    b"[[1,2]," + b"[3,4]," * 300_000 + b"[5]]\n": "line 1: step 300001 has 1 numbers",
}


@pytest.mark.parametrize("text", LINES, ids=lambda text: text[:16].decode("latin1"))
def test_a_malformed_line_is_named(small, tmp_path, text, capsys):
    (tmp_path / "x").write_bytes(text)
    (tmp_path / "y.npz").write_bytes(b"kept")
    assert cli.main(["run", small, "--input", str(tmp_path / "x"), "--output", str(tmp_path / "y.npz")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1 and LINES[text] in err
    assert (tmp_path / "y.npz").read_bytes() == b"kept" and sorted(os.listdir(tmp_path)) == ["small", "x", "y.npz"]


def good(*shape, dtype="f4"):
    return np.ones(shape, dtype)


def test_a_part_of_a_line_that_ends_behind_a_comma():
    """The comma is the last thing in what is parsed at a time."""
    wanted = reading.Wanted(2, np.dtype("f4"), "safe")
    text = (b"[[1,2]," + b"[3,4]," * 170_000).ljust(reading.MOST_TEXT - 6) + b"[3,4],]\n"
    with pytest.raises(ValueError, match=r"^x: line 1 ends behind a comma, wanted an array"):
        list(reading.Lines("x", io.BytesIO(text), wanted).fragments(1000))


ARCHIVES = {
    "width": ({"a": good(3, 2), "b": good(3, 4)}, "b has shape (3, 4), wanted (T, 2) or (B, T, 2)"),
    "flat": ({"a": good(2)}, "a has shape (2,), wanted (T, 2) or (B, T, 2)"),
    "two arrays of rows": ({"a": good(2, 3, 2), "b": good(2, 3, 2)}, "a is an array (B, T, I) beside other arrays"),
    "fortran": ({"a": np.asfortranarray(good(3, 2))}, "a is in Fortran order, wanted C order"),
    "text": ({"a": np.array([["x", "y"]])}, "a is <U1, wanted float32"),
    "complex": ({"a": good(3, 2, dtype="c8")}, "a is complex64, wanted float32"),
    "lengths of nothing": (
        {"a": good(3, 2), "lengths": np.array([3])},
        "x.npz has lengths, but no array (B, T, I) that",
    ),
    "objects": ({"a": np.array([[1, 2]], object)}, "a.npy holds objects, which are pickled and not read"),
    "too long": ({"a": good(2, 3, 2), "lengths": np.array([3, 4])}, "lengths[1] is 4, wanted 0 to 3"),
    "negative": ({"a": good(2, 3, 2), "lengths": np.array([-1, 3])}, "lengths[0] is -1, wanted 0 to 3"),
    "too few": ({"a": good(2, 3, 2), "lengths": np.array([3])}, "lengths is int64 of shape (1,), wanted integers of"),
    "not integers": ({"a": good(2, 3, 2), "lengths": good(2)}, "lengths is float32 of shape (2,), wanted integers"),
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_array_that_does_not_fit_is_named(small, tmp_path, name, capsys):
    arrays, message = ARCHIVES[name]
    (tmp_path / "x.npz").write_bytes(files.npz(arrays))
    assert cli.main(["run", small, "--input", str(tmp_path / "x.npz")]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err and err.count("\n") == 1


def test_damaged_archives_are_refused(small, tmp_path, capsys):
    """Cut anywhere, and every byte of the values flipped: the check sum tells."""
    data = files.npz({"a": good(3, 2), "b": good(1, 2)})
    for cut in range(2, len(data), 7):
        (tmp_path / "x").write_bytes(data[:cut])
        assert cli.main(["run", small, "--input", str(tmp_path / "x")]) == 2
    damaged = bytearray(data)
    damaged[data.index(good(3, 2).tobytes())] ^= 1
    (tmp_path / "x").write_bytes(damaged)
    assert cli.main(["run", small, "--input", str(tmp_path / "x"), "--output", str(tmp_path / "y.npz")]) == 2
    assert "a.npy is damaged: Bad CRC-32" in capsys.readouterr().err
    assert not (tmp_path / "y.npz").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--output", "y.txt"], "--output y.txt has another ending than .npz and .jsonl"),
        (["--output", "none/y.npz"], "--output none/y.npz: there is no directory none"),
        (["--input", "none", "--output", "y.npz"], "--input none: there is no such file"),
        (["--input", "none"], "No such file or directory: 'none'"),
        (["--input", "small", "--key", "a"], "--key a is given, but small is no npz"),
        (["--prefix", "a"], "prefix is given, but small is a file of fastrnn's own format"),
        (["--input", "x.npz", "--key", "c"], "x.npz has no array c, but a, b"),
        (["--backend", "fused", "--dtype", "float64"], "backend is 'fused' and dtype float64"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_are_checked_before_the_work(small, tmp_path, monkeypatch, arguments, message, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.npz").write_bytes(files.npz({"a": good(3, 2), "b": good(3, 2)}))
    assert cli.main(["run", "small", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert sorted(os.listdir()) == ["small", "x.npz"]


@pytest.mark.parametrize("value", ["0", "-1", "x", "1.5"])
def test_batch_steps_is_a_positive_integer(small, value, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["run", small, "--batch-steps", value])
    assert stop.value.code == 2 and "--batch-steps" in capsys.readouterr().err


# ---- Pipes, links, devices -------------------------------------------------------------------------------------------


def shell(text, **options):
    return subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=60, **options)


def test_standard_input_to_standard_output(model, rng):
    sequences = draw(rng)
    done = subprocess.run(
        [sys.executable, "-m", "fastrnn", "run", model, "--batch-steps", "10"],
        input=lines(sequences),
        capture_output=True,
        check=True,
    )
    assert done.stderr == b""
    width = fastrnn.load(model).output_size
    found = [np.array(json.loads(line), "f4").reshape(-1, width) for line in done.stdout.splitlines()]
    assert_same(found, alone(model, sequences))


def test_head_ends_it_quietly(small):
    endless = f"yes '[[1,2],[3,4]]' | {sys.executable} -m fastrnn run {small} --batch-steps 100 | head -n 2; "
    done = shell(endless + 'echo "${PIPESTATUS[@]}"')
    assert done.stderr == ""
    *rows, codes = done.stdout.splitlines()
    assert len(rows) == 2 and rows[0] == rows[1] and codes.split()[1] == "141"


def test_what_came_before_a_malformed_line_is_written_to_a_pipe(small):
    done = shell(f"printf '[[1,2]]\\n[[1,2]]\\n[[1]]\\n' | {sys.executable} -m fastrnn run {small} --batch-steps 1")
    assert done.returncode == 2 and done.stdout.count("\n") >= 1
    assert done.stderr == ("fastrnn: the standard input: line 3: step 0 has 1 numbers, wanted a list of 2 numbers\n")


def test_an_npz_in_a_pipe_is_refused(small, tmp_path):
    (tmp_path / "x.npz").write_bytes(files.npz({"a": good(3, 2)}))
    done = shell(f"cat {tmp_path / 'x.npz'} | {sys.executable} -m fastrnn run {small}")
    assert done.returncode == 2 and done.stderr.startswith("fastrnn: the standard input is an npz in a pipe, wanted")


def test_links_stay_and_devices_are_written_to(small, tmp_path):
    (tmp_path / "x").write_bytes(b"[[1,2]]\n")
    (tmp_path / "y.jsonl").symlink_to(tmp_path / "real")
    command(small, "--input", tmp_path / "x", "--output", tmp_path / "y.jsonl")
    assert (tmp_path / "y.jsonl").is_symlink() and (tmp_path / "real").read_bytes().startswith(b"[[")
    command(small, "--input", tmp_path / "x", "--output", os.devnull)
    assert not os.path.isfile(os.devnull)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_device_is_one_line(small, tmp_path, capfd):
    (tmp_path / "x").write_bytes(b"[[1,2]]\n")
    assert cli.main(["run", small, "--input", str(tmp_path / "x"), "--output", "/dev/full"]) == 2
    assert capfd.readouterr().err.count("\n") == 1


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(("quiet", "terminal", "shown"), [(False, True, 1), (True, True, 0), (False, False, 0)])
def test_the_progress_bar_is_for_terminals(small, tmp_path, monkeypatch, quiet, terminal, shown):
    bars = []

    class Bar:
        def __init__(self, **options):
            bars.append([options["total"], 0])

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def update(self, count):
            bars[-1][1] += count

    monkeypatch.setitem(sys.modules, "tqdm", types.SimpleNamespace(tqdm=Bar, __spec__=types.SimpleNamespace()))
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    arrays = {str(i): good(length, 2) for i, length in enumerate((1, 0, 30, 2))}
    (tmp_path / "x.npz").write_bytes(files.npz(arrays))
    options = ["--quiet"] if quiet else []
    command(small, "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz", "--batch-steps", 9, *options)
    assert bars == [[4, 4]] * shown


def test_without_tqdm_there_is_no_bar(small, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("fastrnn.extras.missing", lambda modules: list(modules))
    (tmp_path / "x").write_bytes(b"[[1,2]]\n")
    command(small, "--input", tmp_path / "x", "--output", tmp_path / "y.jsonl")
    assert sys.stderr.getvalue() == ""


def test_importing_the_commands_imports_no_framework():
    """Each is imported where a command needs it."""
    modules = "convert, inspect, keras_witness, run, survey, tensorflow_witness, torch_witness, verify"
    heavy = "{'torch', 'keras', 'tf_keras', 'tensorflow', 'h5py', 'safetensors', 'tqdm'}"
    code = f"import sys; from fastrnn.commands import {modules}; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


# ---- Memory ----------------------------------------------------------------------------------------------------------

PEAK = """
import sys
from fastrnn import cli
assert cli.main(["run", *sys.argv[1:], "--quiet"]) == 0
print(open("/proc/self/status").read().split("VmHWM:")[1].split()[0], file=sys.stderr)
"""


def peak(*arguments):
    """Kilobytes that a run takes at most."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, *map(str, arguments)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    assert done.returncode == 0, done.stderr
    return int(re.search(r"(\d+)\n$", done.stderr)[1])


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="needs Linux")
@pytest.mark.parametrize("shape", [(1, 1_000_000, 16), (4000, 250, 16)], ids=["one sequence", "many rows"])
@pytest.mark.parametrize("form", ["rows", "arrays", "jsonl"])
def test_memory_does_not_grow_with_the_input(tmp_path, form, shape, rng):
    """Inputs of 64 MB (of JSON 32 MB) and outputs of 16 MB."""
    spec = cases.random_spec(rng, "gru", 16, 4)
    LAYERS["gru"](spec).save(tmp_path / "model")
    (tmp_path / "small").write_bytes(b"[]\n")
    x = np.ones(shape, "f4")
    if form == "jsonl":
        shape = (shape[0], shape[1], 16)
        step = "[" + ",".join(["1"] * 16) + "]"
        with open(tmp_path / "x", "w") as file:
            for _ in range(shape[0]):
                file.write("[" + ",".join([step] * shape[1]) + "]\n")
    elif form == "rows":
        np.savez(tmp_path / "x.npz", x=x)
    else:
        np.savez(tmp_path / "x.npz", **{str(i): row for i, row in enumerate(x)})
    source = tmp_path / ("x" if form == "jsonl" else "x.npz")
    del x
    before = peak(tmp_path / "model", "--input", tmp_path / "small", "--output", tmp_path / "z.npz")
    after = peak(tmp_path / "model", "--input", source, "--output", tmp_path / "y.npz")
    assert after - before < 32 << 10
    with np.load(tmp_path / "y.npz") as found:
        assert sum(found[name].shape[-2] * (shape[0] if form == "rows" else 1) for name in found.files) == (
            shape[0] * shape[1]
        )
