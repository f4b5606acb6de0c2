"""safetensors, npz and JSON with PyTorch's names: the layer that is meant, and what is wrong with it."""

import importlib.util
import json

import cases
import files
import numpy as np
import pytest
from bits import assert_same_bits

import fastrnn
from fastrnn import cli
from fastrnn.layers import LAYERS

WRITERS = {
    "npz": files.npz,
    "npz-compressed": lambda arrays: files.npz(arrays, compressed=True),
    "safetensors": files.safetensors,
}


@pytest.fixture(params=WRITERS)
def save(request, tmp_path):
    """Write arrays; the file's name says nothing."""

    def write(arrays):
        path = tmp_path / "model.bin"
        path.write_bytes(WRITERS[request.param](arrays))
        return path

    return write


def assert_same_layer(found, spec):
    wanted = LAYERS[spec.kind](spec)
    assert repr(found) == repr(wanted) and found._engine.fingerprint == wanted._engine.fingerprint


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("num_layers", "bidirectional"), [(1, False), (2, True)])
@pytest.mark.parametrize(("kind", "proj_size"), [("lstm", 0), ("lstm", 3), ("gru", 0)])
@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_equals_the_arrays(rng, save, kind, proj_size, num_layers, bidirectional, bias, dtype):
    spec = cases.random_spec(rng, kind, 3, 5, num_layers, bidirectional, proj_size, bias=bias, dtype=np.dtype(dtype))
    assert_same_layer(fastrnn.load(save(files.state_dict(spec))), spec)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_short_types_are_widened(rng, tmp_path, dtype):
    dtype = getattr(pytest.importorskip("ml_dtypes"), dtype, dtype)
    arrays = {
        name: array.astype(dtype) for name, array in files.state_dict(cases.random_spec(rng, "lstm", 300, 70)).items()
    }
    path = tmp_path / "model"
    path.write_bytes(files.safetensors(arrays))
    layer = fastrnn.load(path)
    assert layer.dtype == np.float32
    assert layer._engine.fingerprint == fastrnn.LSTM.from_state_dict(arrays)._engine.fingerprint


def test_fortran_order_and_byte_order(rng, tmp_path):
    spec = cases.random_spec(rng, "gru", 3, 5)
    arrays = {name: np.asfortranarray(array.astype(">f4")) for name, array in files.state_dict(spec).items()}
    (tmp_path / "model").write_bytes(files.npz(arrays))
    assert_same_layer(fastrnn.load(tmp_path / "model"), spec)


def test_arrays_that_are_not_aligned(rng, tmp_path):
    spec = cases.random_spec(rng, "gru", 3, 5)
    for pad in range(1, 4):
        (tmp_path / "model").write_bytes(files.safetensors(files.state_dict(spec), {"x": "y" * pad}))
        assert_same_layer(fastrnn.load(tmp_path / "model"), spec)


@pytest.fixture
def several(rng):
    specs = {
        "module.encoder.rnn.": cases.random_spec(rng, "gru", 3, 5, 2, True),
        "module.decoder.rnn.": cases.random_spec(rng, "lstm", 3, 6, proj_size=2),
        "module.rnn.": cases.random_spec(rng, "rnn", 3, 4),
    }
    arrays = {"module.embedding.weight": np.ones((9, 3), "f4"), "module.steps": np.ones(2, "i8")}
    for prefix, spec in specs.items():
        arrays |= files.state_dict(spec, prefix)
    cell = {f"module.cell.{name[:-3]}": array for name, array in files.state_dict(files.small_spec()).items()}
    return specs, arrays | cell


def test_prefix_chooses_with_or_without_the_dot_and_wrappers(save, several):
    specs, arrays = several
    path = save(arrays)
    for prefix, spec in specs.items():
        options = {"nonlinearity": "tanh"} if spec.kind == "rnn" else {}
        for asked in (prefix, prefix[:-1], prefix.removeprefix("module."), f"_orig_mod.{prefix[:-1]}"):
            assert_same_layer(fastrnn.load(path, prefix=asked, **options), spec)
    assert_same_layer(fastrnn.load(path, prefix="cell"), files.small_spec())


def test_several_layers_are_listed(save, several):
    _, arrays = several
    with pytest.raises(ValueError) as caught:
        fastrnn.load(save(arrays))
    message = str(caught.value)
    assert "has 4 recurrent layers, wanted prefix= to choose" in message
    assert "prefix='module.encoder.rnn.': GRU of 3 inputs, 5 units, 2 layers, both directions" in message
    assert "prefix='module.decoder.rnn.': LSTM of 3 inputs, 6 units, 2 outputs" in message
    assert "prefix='module.rnn.': RNN of 3 inputs, 4 units" in message
    assert "prefix='module.cell.': GRUCell of 2 inputs, 2 units" in message
    with pytest.raises(ValueError, match=r"none under 'nope', but: prefix="):
        fastrnn.load(save(arrays), prefix="nope")


def test_what_the_file_cannot_say(rng, save):
    spec = cases.random_spec(rng, "rnn", 3, 4)
    path = save(files.state_dict(spec))
    with pytest.raises(TypeError, match="nonlinearity is missing, wanted 'tanh' or 'relu'"):
        fastrnn.load(path)
    assert fastrnn.load(path, nonlinearity="relu", batch_first=False).batch_first is False
    x = rng.standard_normal((2, 4, 3)).astype("f4")
    relu = fastrnn.RNN.from_state_dict(files.state_dict(spec), nonlinearity="relu")
    assert_same_bits(fastrnn.load(path, nonlinearity="relu")(x), relu(x))
    with pytest.raises(ValueError, match="nonlinearity is 'tanh', but only an RNN"):
        fastrnn.load(save(files.state_dict(files.small_spec())), nonlinearity="tanh")


@pytest.mark.parametrize("option", [{"scope": "x"}, {"forget_bias": 1.0}, {"config": "{}"}])
def test_options_that_do_not_apply_are_named(save, option):
    with pytest.raises(ValueError, match=rf"{next(iter(option))} is given, but .* takes .*prefix only"):
        fastrnn.load(save(files.state_dict(files.small_spec())), **option)


def test_every_reason_is_given(save):
    arrays = files.state_dict(files.small_spec(), "a.")
    arrays["a.bias_ih_l0"] = np.ones((2, 6), "f4")
    arrays["a.weight_ih_l0"] = np.ones((5, 2), "f4")
    arrays["a.extra"] = np.ones(3, "f4")
    del arrays["a.bias_hh_l0"]
    with pytest.raises(ValueError) as caught:
        fastrnn.load(save(arrays))
    message = str(caught.value)
    assert "weight_ih_l0 has shape (5, 2), wanted (6, 2)" in message
    assert "bias_ih_l0 has shape (2, 6), wanted (6,)" in message and "looks like Keras's reset_after=True" in message
    assert "bias_hh_l0 is missing, wanted shape (6,)" in message and "a.extra is surplus" in message


def test_other_types_are_refused(save):
    arrays = files.state_dict(files.small_spec())
    with pytest.raises(ValueError, match=r"bias_hh_l0 is int64, wanted bfloat16, float16, float32, float64"):
        fastrnn.load(save(arrays | {"bias_hh_l0": np.ones(6, "i8")}))


@pytest.mark.parametrize("kind", LAYERS)
def test_transposed_kernels_look_like_keras(save, kind):
    spec = cases.random_spec(np.random.default_rng(2), kind, 3, 5)
    arrays = {name: np.ascontiguousarray(array.T) for name, array in files.state_dict(spec).items()}
    with pytest.raises((ValueError, TypeError)) as caught:
        fastrnn.load(save(arrays), nonlinearity="tanh" if kind == "rnn" else None)
    assert kind == "rnn" or "looks like Keras's layout, (in, out)" in str(caught.value)


@pytest.mark.parametrize(
    ("name", "who"),
    [
        ("lstm/lstm_cell/recurrent_kernel", "Keras"),
        ("rnn/basic_lstm_cell/kernel", "TensorFlow 1"),
        ("LSTMCell_0.hi.kernel", "Flax"),
        ("weights", None),
    ],
)
def test_names_of_other_frameworks(save, name, who):
    with pytest.raises(ValueError, match=r"has no recurrent layer under PyTorch's names") as caught:
        fastrnn.load(save({name: np.ones((2, 8), "f4")}))
    assert (f"looks like {who}'s names" in str(caught.value)) == (who is not None)


@pytest.mark.parametrize(
    "names",
    [("weight_hh_l0_g", "weight_hh_l0_v"), ("parametrizations.weight_hh_l0.original0",), ("weight_hh_l0_orig",)],
)
def test_weights_that_only_the_live_module_computes(save, names):
    arrays = files.state_dict(files.small_spec(), "rnn.")
    value = arrays.pop("rnn.weight_hh_l0")
    with pytest.raises(ValueError, match=r"only the live module computes: pass it to from_torch"):
        fastrnn.load(save(arrays | {f"rnn.{name}": value for name in names}))


def test_one_array_alone_and_other_files(tmp_path):
    path = tmp_path / "model"
    for data, reason in {
        files.npy(np.ones(3)): "is a single NumPy array",
        b"": "is empty",
        b"\x80\x04}.": "is a pickle",
        b"version https://git-lfs.github.com/spec/v1\n": "Git LFS pointer",
        b"\x1f\x8b\x08": "gzip",
        b"\x08\x07\x12\x07pytorch": "begins with",
        b"\n\x13\n\x05input\x12\x0bPlaceholder": "is a graph of TensorFlow, as a frozen one",
        b"\n\xbf\x02\n\x05input\x12\x0bPlaceholder": "is a graph of TensorFlow, as a frozen one",
        b"\x08\x01\x12\xb2\xe1\x02\n": "is a graph of TensorFlow, as a frozen one or a SavedModel",
        b"\x1c\x00\x00\x00TFL3\x14": "is a model of TensorFlow Lite",
        files.zipped([("a.txt", b"x")]): r"is a zip with 'a.txt', wanted",
    }.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=reason):
            fastrnn.load(path)
    with pytest.raises(IsADirectoryError):
        fastrnn.load(tmp_path)
    with pytest.raises(FileNotFoundError):
        fastrnn.load(tmp_path / "none")
    with pytest.raises(TypeError):
        fastrnn.load(3)
    path.write_bytes(files.zipped([("m/data.pkl", b""), ("m/constants.pkl", b""), ("m/code/x.py", b"")]))
    with pytest.raises(
        NotImplementedError, match=r"is TorchScript, .* torch.jit.load, and pass its LSTM, GRU or RNN to from_torch"
    ):
        fastrnn.load(path)


# JSON


def save_json(tmp_path, content):
    (tmp_path / "model.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return tmp_path / "model.json"


def test_json(tmp_path, rng, capsys):
    """As a program writes it that trains models of guitar amplifiers: a description, and a state dict of lists."""
    spec = cases.random_spec(rng, "lstm", 1, 20)
    arrays = files.state_dict(spec, "rec.") | {"lin.weight": rng.standard_normal((1, 20)).astype("f4")}
    weights = {name: array.tolist() for name, array in arrays.items()}
    described = {"model_data": {"unit_type": "LSTM", "hidden_size": 20, "names": ["a", "b"], "sizes": [[1], [2, 3]]}}
    (tmp_path / "weights.npz").write_bytes(files.npz(arrays))
    wanted = fastrnn.load(tmp_path / "weights.npz")._engine.fingerprint
    for content in (described | {"state_dict": weights}, weights):
        path = save_json(tmp_path, content)
        assert fastrnn.load(path)._engine.fingerprint == wanted
        assert fastrnn.load(path, prefix="rec", batch_first=False).batch_first is False
        if importlib.util.find_spec("torch"):
            assert cli.main(["verify", str(path)]) == 0
    capsys.readouterr()
    assert cli.main(["inspect", str(path)]) == 0
    assert "a JSON file, 1 recurrent layer" in (shown := capsys.readouterr().out) and "lin.weight (1, 20)" in shown
    assert cli.main(["convert", str(path), str(tmp_path / "out")]) == 0
    assert fastrnn.load(tmp_path / "out")._engine.fingerprint == wanted


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ({"layers": [{"type": "lstm"}], "in_shape": [None, None, 1]}, "has a list of layers, as RTNeural writes"),
        ({"class_name": "Sequential", "config": []}, "is a configuration of Keras without weights: it is for config="),
        ({"state_dict": {"rec.weight_hh_l0": [["1"], ["2"]]}}, "no recurrent layer under PyTorch's names"),
        ({"rec.weight_hh_l0": [[1, 2], [3]]}, "no recurrent layer under PyTorch's names"),
        ({"rec.weight_hh_l0": [[1.5, 2]] * 8}, r"rec\.weight_ih_l0|weight_ih_l0"),
        ('{"a": 1, "a": 2}', "names occur twice: 'a'"),
        ('{"a": ', "is no JSON that is read"),
        ("{" + '"a":{' * 100000, "nests too deep|is no JSON"),
    ],
)
def test_json_that_is_refused(tmp_path, content, reason):
    with pytest.raises(ValueError, match=reason):
        fastrnn.load(save_json(tmp_path, content))


def test_json_has_a_largest_size(tmp_path, monkeypatch):
    from fastrnn.files import json_file

    monkeypatch.setattr(json_file, "MOST_BYTES", 10)
    with pytest.raises(ValueError, match="is JSON of more than 10 bytes"):
        fastrnn.load(save_json(tmp_path, {"weight_hh_l0": [[1.0]]}))
