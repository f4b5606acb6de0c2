"""The commands on files of models."""

import json

import numpy as np
import pytest
from bits import assert_same_bits
from cases import random_spec
from model_cases import conv1d, draw, linear, pad, random_rows

from fastrnn import Sequential, cli
from fastrnn.models import ops

LENGTHS = (3, 0, 7, 1, 3, 25, 0, 1, 40, 5)


def tagger(rng, **options):
    layer = random_spec(rng, "lstm", 6, 5, bidirectional=True)
    return Sequential(ops.Embedding(draw(rng, 20, 6), **options), layer, linear(rng, 10, 4), ops.LogSoftmax())


def streaming(rng):
    convolution = conv1d(rng, 3, 6, causal=True, stride=1)
    return Sequential(convolution, "tanh", random_spec(rng, "gru", 6, 5), linear(rng, 5, 2))


MODELS = {
    "tagger": tagger,
    "tagger with mask_zero": lambda rng: tagger(rng, mask_zero=True),
    "streaming": streaming,
    "strided": lambda rng: Sequential(conv1d(rng, 3, 4, stride=2, padding=(1, 1)), random_spec(rng, "rnn", 4, 5)),
    "classifier": lambda rng: Sequential(
        random_spec(rng, "gru", 3, 5, bidirectional=True), ops.Final(), linear(rng, 10, 2)
    ),
}


@pytest.fixture(params=MODELS)
def model(request, rng):
    return MODELS[request.param](rng)


@pytest.fixture
def path(model, tmp_path):
    model.save(tmp_path / "model")
    return tmp_path / "model"


def command(*arguments):
    assert cli.main([str(argument) for argument in arguments]) == 0


def test_inspect(model, path, capsys):
    command("inspect", path, "--json")
    (entry,) = json.loads(capsys.readouterr().out)["layers"]
    facts = entry["layer"]
    assert entry["loads"] and facts["class"] == "Sequential" and facts["output_size"] == model.output_size
    assert facts["num_ids"] == (model.num_ids or None) and facts["pools"] == model.pools
    assert facts["input_size"] == (None if model.num_ids else model.input_size)
    computes = {"dtype": "float32", "weight_dtype": "float32", "backend": "fused", "isa": model.isa}
    assert facts["computes"] == computes
    assert [part["class"] for part in facts["layers"]][-1] in ("LogSoftmax", "Linear", "RNN")
    assert facts["parameters"] == sum(part["parameters"] for part in facts["layers"]) > 0
    command("inspect", path)
    out = capsys.readouterr().out
    assert f"model of {len(model.spec.ops)} operations" in out and "runs as" in out


def test_flops_of_a_model_are_those_of_a_step_of_x(rng, tmp_path, capsys):
    first, second = draw(rng, 6, 3, 4), draw(rng, 5, 6)
    Sequential(ops.Conv1d(first, stride=2), ops.Linear(second), ops.Mean(), ops.Linear(draw(rng, 9, 5))).save(
        tmp_path / "m"
    )
    command("inspect", tmp_path / "m", "--json")
    facts = json.loads(capsys.readouterr().out)["layers"][0]["layer"]
    found = [part["flops_per_step"] for part in facts["layers"]]
    assert found == [2 * first.size // 2, 2 * second.size // 2, 0, 0] and facts["flops_per_step"] == sum(found)


def test_convert(model, path, tmp_path, capsys):
    command("convert", path, tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert "Sequential(" in capsys.readouterr().out


@pytest.mark.parametrize("batch_first", [True, False])
def test_verify(model, tmp_path, capsys, batch_first):
    pytest.importorskip("torch")
    spec = model.spec
    Sequential(*spec.ops, batch_first=batch_first).save(tmp_path / "model")
    command("verify", tmp_path / "model", "--json")
    results = json.loads(capsys.readouterr().out)
    assert (
        results["agrees"]
        and results["witness"].startswith("torch")
        and results["here"] == pytest.approx(results["there"], abs=1e-5)
    )


def test_verify_says_what_pytorch_has_not(rng, tmp_path, capsys):
    pytest.importorskip("torch")
    layer = random_spec(rng, "gru", 3, 4, linear_before_reset=False)
    Sequential(layer).save(tmp_path / "model")
    assert cli.main(["verify", str(tmp_path / "model")]) == 2
    assert "ops[0] (GRU): PyTorch has no layer with a reset before the matmul" in capsys.readouterr().err


@pytest.mark.parametrize("batch_steps", [6, 8192])
def test_run_npz_of_rows(rng, model, path, tmp_path, batch_steps):
    rows = random_rows(rng, model.spec, LENGTHS)
    np.savez(tmp_path / "x.npz", x=pad(rows), lengths=np.array(LENGTHS))
    output = tmp_path / "y.npz"
    command("run", path, "--input", tmp_path / "x.npz", "--output", output, "--batch-steps", batch_steps, "--quiet")
    with np.load(output) as archive:
        assert_same_bits(archive["y"], model(pad(rows), lengths=LENGTHS))
        wanted = LENGTHS if model.pools else [len(y) for y in model(rows)]
        assert archive["lengths"].tolist() == list(wanted)


@pytest.mark.parametrize("batch_steps", [6, 8192])
def test_run_lines_and_arrays(rng, model, path, tmp_path, batch_steps):
    rows = random_rows(rng, model.spec, LENGTHS)
    (tmp_path / "x.jsonl").write_text("".join(json.dumps(row.tolist()) + "\n" for row in rows))
    np.savez(tmp_path / "x.npz", **{f"arr_{i}": row for i, row in enumerate(rows)})
    wanted = [model([row])[0] for row in rows]
    for name in ("x.jsonl", "x.npz"):
        output = tmp_path / f"{name}.npz"
        command("run", path, "--input", tmp_path / name, "--output", output, "--batch-steps", batch_steps, "--quiet")
        with np.load(output) as archive:
            assert_same_bits([archive[f"arr_{i}"] for i in range(len(rows))], wanted)


def test_a_long_line_of_ids_is_read_in_parts(rng, tmp_path):
    model = Sequential(ops.Embedding(draw(rng, 300, 2)), random_spec(rng, "gru", 2, 3))
    model.save(tmp_path / "model")
    ids = rng.integers(0, 300, 400_000)
    (tmp_path / "x.jsonl").write_text(json.dumps(ids.tolist()) + "\n[1, 2]\n")
    command("run", tmp_path / "model", "--input", tmp_path / "x.jsonl", "--output", tmp_path / "y.npz", "--quiet")
    with np.load(tmp_path / "y.npz") as archive:
        assert_same_bits(archive["arr_0"], model(ids))
        assert_same_bits(archive["arr_1"], model(np.array([1, 2])))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[1, 20]", "line 2: step 1 has the id 20, wanted 0 to 19"),
        ("[1, -1]", "line 2: step 1 has the id -1"),
        ("[1, 1.5]", "line 2: step 1 is 1.5, wanted an integer"),
        ("[[1]]", "line 2: step 0 is a list, wanted an integer"),
        ("1", "line 2 is a number, wanted an array of T integers"),
        ("[1, 1e400]", "line 2: step 1 is inf, wanted an integer"),
        (f"[{2**64}]", f"line 2: step 0 is {2**64}, wanted an integer"),
        ("[true]", "line 2 has 'true]"),
    ],
)
def test_lines_that_are_no_ids_are_named(rng, tmp_path, capsys, line, message):
    tagger(rng).save(tmp_path / "model")
    (tmp_path / "x.jsonl").write_text(f"[0, 1]\n{line}\n")
    arguments = [
        "run",
        str(tmp_path / "model"),
        "--input",
        str(tmp_path / "x.jsonl"),
        "--output",
        str(tmp_path / "y.jsonl"),
    ]
    assert cli.main(arguments) == 2
    assert message in capsys.readouterr().err


def test_arrays_that_are_no_ids_are_named(rng, tmp_path, capsys):
    tagger(rng).save(tmp_path / "model")
    for arrays, message in (
        ({"a": np.zeros((2, 3), "f4")}, "a is of type float32, wanted integers"),
        ({"a": np.zeros((2, 3, 4), int)}, "a has shape (2, 3, 4), wanted (T,) or (B, T)"),
        ({"a": np.array([3, 25])}, "a: step 1 has the id 25, wanted 0 to 19"),
        ({"a": np.array([[3, 1], [1, 25]])}, "arr_1: step 1 has the id 25"),
    ):
        np.savez(tmp_path / "x.npz", **arrays)
        arguments = [
            "run",
            str(tmp_path / "model"),
            "--input",
            str(tmp_path / "x.npz"),
            "--output",
            str(tmp_path / "y.npz"),
        ]
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err


def test_an_id_in_the_padding_of_an_npz_is_not_read(rng, tmp_path):
    model = tagger(rng)
    model.save(tmp_path / "model")
    np.savez(tmp_path / "x.npz", x=np.array([[3, 10**9], [1, 2]]), lengths=np.array([1, 2]))
    command("run", tmp_path / "model", "--input", tmp_path / "x.npz", "--output", tmp_path / "y.npz", "--quiet")
    with np.load(tmp_path / "y.npz") as archive:
        assert_same_bits(archive["y"][0, 0], model([[3]])[0][0])
