"""Files that Keras 2 and 3 saved, loaded without Keras: its stored answers to ragged input."""

import io
import json
import subprocess
import sys
import zipfile

import keras_file_cases as cases
import numpy as np
import pytest

import fastrnn

try:
    import h5py
except ModuleNotFoundError:
    h5py = None

GOLDEN = cases.Golden()
needs_h5py = pytest.mark.skipif(h5py is None, reason="h5py makes the files of this test")
PLAIN = {
    **dict.fromkeys(("lstm", "lstm-last", "lstm-no-bias", "lstm-hard-sigmoid", "lstm-dropout", "cudnn-lstm"), "LSTM"),
    **dict.fromkeys(("stack", "both", "cells", "functional"), "LSTM"),
    **dict.fromkeys(("gru", "gru-before", "gru-no-bias", "gru-before-no-bias", "gru-float64", "cudnn-gru"), "GRU"),
    **dict.fromkeys(("both-last", "both-before", "both-stack", "cell"), "GRU"),
    **dict.fromkeys(("rnn", "rnn-relu", "rnn-linear", "rnn-softplus", "rnn-sigmoid", "cells-in-a-row"), "RNN"),
}
FILES = [name for name in GOLDEN.names]


@pytest.fixture
def stored(tmp_path):
    """Write a stored file; gives its path and the configuration that it needs."""

    def write(name):
        path = tmp_path / name.replace("/", "-")
        path.write_bytes(GOLDEN.read(name))
        is_weights = name.endswith(".weights.h5")
        return path, json.loads(GOLDEN.read(name.removesuffix(".weights.h5") + ".json")) if is_weights else None

    return write


def test_there_are_all_files():
    assert len(FILES) == 3 * (2 * len(cases.CASES | cases.FUNCTIONAL)) + len(cases.CUDNN)
    assert set(PLAIN) < set(cases.ALL)


@pytest.mark.parametrize("name", FILES)
def test_keras_answers(stored, name):
    path, config = stored(name)
    version, case = name.split("/")
    case = case.split(".")[0]
    for mask in cases.MASKS:
        loaded = cases.check(path, case, mask, GOLDEN.answers(version, case, mask), config)
    if case in PLAIN:
        assert type(loaded) is getattr(fastrnn, PLAIN[case])
    else:
        assert type(loaded).__module__.startswith("fastrnn.keras.")


def test_neither_keras_nor_tensorflow_is_imported(stored):
    path, _ = stored("keras3/both-sum.keras")
    code = (
        f"import sys, fastrnn; fastrnn.load({str(path)!r}); print(sorted({{'keras', 'tensorflow'}} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_tests_see_other_weights(stored):
    """The stored answers of one case do not fit another of the same shape."""
    path, _ = stored("keras3/lstm.keras")
    with pytest.raises(AssertionError):
        cases.check(path, "lstm", "right", GOLDEN.answers("keras3", "lstm-hard-sigmoid", "right"))


# Choosing a layer


def test_prefix_chooses_by_name(stored):
    path, _ = stored("keras3/stack-unlike.keras")
    model = fastrnn.load(path)
    assert [type(layer).__name__ for layer in model.layers] == ["LSTM", "GRU", "SimpleRNN"]
    for prefix in ("gru", "gru.", "gru/"):
        layer = fastrnn.load(path, prefix=prefix)
        assert isinstance(layer, fastrnn.GRU) and (layer.input_size, layer.hidden_size) == (5, 4)
    assert not fastrnn.load(path, prefix="gru", batch_first=False).batch_first
    with pytest.raises(
        ValueError, match=r"no recurrent layer is called 'gr'.* wanted one of 'lstm', 'gru', 'simple_rnn'"
    ):
        fastrnn.load(path, prefix="gr")


def test_prefix_of_a_layer_that_goes_backwards_gives_keras_layer(stored):
    path, _ = stored("keras3/backwards-stack.keras")
    layer = fastrnn.load(path, prefix="gru")
    assert isinstance(layer, fastrnn.keras.GRU) and layer.go_backwards and layer.return_sequences


def edited(tmp_path, source, edit, ending=".keras"):
    """A stored .keras file with another configuration: edit(config, metadata)."""
    archive = zipfile.ZipFile(io.BytesIO(GOLDEN.read(source)))
    config, metadata = (json.loads(archive.read(name)) for name in ("config.json", "metadata.json"))
    edit(config, metadata)
    path = tmp_path / f"edited{ending}"
    with zipfile.ZipFile(path, "w") as out:
        out.writestr("config.json", json.dumps(config))
        out.writestr("metadata.json", json.dumps(metadata))
        out.writestr("model.weights.h5", archive.read("model.weights.h5"))
    return path


def layers_of(config):
    return config["config"]["layers"]


def test_other_layers_are_named_in_one_error(tmp_path):
    def edit(config, metadata):
        layers_of(config).insert(1, {"class_name": "RepeatVector", "config": {"name": "words", "n": 3}})
        layers_of(config).append({"class_name": "Flatten", "config": {"name": "out"}})

    path = edited(tmp_path, "keras3/stack.keras", edit)
    with pytest.raises(NotImplementedError) as error:
        fastrnn.load(path)
    text = str(error.value)
    assert "RepeatVector 'words' (layer 2 of 6)" in text and "Flatten 'out' (layer 6 of 6)" in text
    assert "prefix=, one of 'lstm', 'lstm_1', 'lstm_2'" in text
    assert isinstance(fastrnn.load(path, prefix="lstm_1"), fastrnn.LSTM)


def test_a_class_of_the_users_is_no_lstm(tmp_path):
    def edit(config, metadata):
        layers_of(config)[1]["registered_name"] = "mine>LSTM"

    with pytest.raises(NotImplementedError, match=r"mine>LSTM 'lstm' .* is a class of the user's"):
        fastrnn.load(edited(tmp_path, "keras3/lstm.keras", edit))


@pytest.mark.parametrize(("version", "alpha"), [("2.15.0", 0.2), ("3.0.5", 1 / 6), ("4.1", 1 / 6)])
def test_hard_sigmoid_is_that_of_the_files_version(tmp_path, version, alpha):
    path = edited(
        tmp_path, "keras3/lstm-hard-sigmoid.keras", lambda config, metadata: metadata.update(keras_version=version)
    )
    layer = fastrnn.load(path)
    assert layer._unpack().cells[0].activations[0].alpha == pytest.approx(alpha)


def test_hard_sigmoid_of_an_unknown_version_is_refused(tmp_path):
    def edit(config, metadata):
        del metadata["keras_version"]
        for option in ("zero_output_for_mask", "seed"):  # Keras 3 alone has them
            layers_of(config)[1]["config"].pop(option, None)
        layers_of(config)[1]["config"]["dtype"] = "float32"  # as Keras 2 writes it

    with pytest.raises(NotImplementedError, match=r"hard_sigmoid.*put 'keras_version' into config"):
        fastrnn.load(edited(tmp_path, "keras3/lstm-hard-sigmoid.keras", edit))


def test_keras_1_is_refused(tmp_path):
    path = edited(tmp_path, "keras3/lstm.keras", lambda config, metadata: metadata.update(keras_version="1.2.2"))
    with pytest.raises(NotImplementedError, match="saved by Keras 1"):
        fastrnn.load(path)


@pytest.mark.parametrize(
    ("source", "change", "expected"),
    [
        (
            "gru",
            {"reset_after": False},
            r"bias\) has shape \(2, 15\), wanted \(15,\): looks like Keras's reset_after=True",
        ),
        (
            "gru-before",
            {"reset_after": True},
            r"bias\) has shape \(15,\), wanted \(2, 15\): looks .* reset_after=False",
        ),
        (
            "lstm",
            {"units": 6},
            r"recurrent_kernel\) has shape \(5, 20\), wanted \(6, 24\): looks like an LSTM of 5 units",
        ),
        ("lstm", {"use_bias": False}, r"'2' too many: looks like use_bias=True"),
        ("lstm-no-bias", {"use_bias": True}, r"vars/2 \(bias\) is missing.*looks like use_bias=False"),
        ("lstm", {"activation": "gelu"}, r"'lstm' .* has activation 'gelu', wanted one of elu"),
        ("lstm", {"units": "5"}, r"units is '5', wanted an integer"),
        ("lstm", {"units": True}, r"units is True, wanted an integer"),
        ("lstm", {"units": 10**30}, r"has shape"),
        ("lstm", {"time_major": True}, r"time_major"),
        ("lstm", {"dtype": "int8"}, r"dtype 'int8', wanted"),
        ("lstm", {"name": "other"}, r"is called 'lstm', wanted 'other'"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, source, change, expected):
    path = edited(tmp_path, f"keras3/{source}.keras", lambda config, _: layers_of(config)[1]["config"].update(change))
    with pytest.raises((ValueError, NotImplementedError), match=expected):
        fastrnn.load(path)


def test_all_faults_stand_in_one_error(tmp_path):
    def edit(config, metadata):
        layers_of(config)[1]["config"]["units"] = 7
        layers_of(config)[3]["config"]["use_bias"] = False

    with pytest.raises(ValueError, match=r"wanted \(3, 28\).*wanted \(7, 28\).*wanted \(28,\)|too many") as error:
        fastrnn.load(edited(tmp_path, "keras3/stack.keras", edit))
    assert "wanted (7, 28)" in str(error.value) and "too many" in str(error.value)


def test_layers_in_another_order_are_refused(tmp_path):
    """Keras names the groups by class and order; the name in them tells which layer it is."""

    def edit(config, metadata):
        layers = layers_of(config)
        layers[1]["config"]["name"], layers[2]["config"]["name"] = "lstm_1", "lstm"

    with pytest.raises(ValueError, match="in disorder"):
        fastrnn.load(edited(tmp_path, "keras3/stack.keras", edit))


def test_layers_that_the_configuration_lacks_are_refused(stored):
    """Half of a model loads and is wrong."""
    for version in ("keras2", "keras3"):
        path, config = stored(f"{version}/stack.weights.h5")
        del config["config"]["layers"][-1]
        with pytest.raises(ValueError, match="weights of 'lstm_2', which the configuration lacks"):
            fastrnn.load(path, config=config)


def test_a_sequence_is_wanted_between_layers(tmp_path):
    def edit(config, metadata):
        layers_of(config)[1]["config"]["return_sequences"] = False

    with pytest.raises(ValueError, match="LSTM 'lstm' gives 'lstm_1' no sequence: wanted return_sequences"):
        fastrnn.load(edited(tmp_path, "keras3/stack.keras", edit))


def functional(edit, case="functional", version="keras3"):
    """What is said about a stored functional model that was changed: edit(its layers by class)."""
    from fastrnn.importers.keras_config import read_model

    config = json.loads(GOLDEN.read(f"{version}/{case}.json"))
    edit(config["config"], [layer for layer in layers_of(config) if layer["class_name"] == "LSTM"])
    model = read_model(config, "3.0" if version == "keras3" else "2.15")
    assert not model.faults
    return "; ".join(model.unsupported)


def test_graphs_that_are_no_chain():
    def training(config, lstm):
        lstm[0]["inbound_nodes"][0]["kwargs"]["training"] = True

    def twice(config, lstm):
        lstm[0]["inbound_nodes"] *= 2

    def state(config, lstm):
        lstm[1]["inbound_nodes"][0]["kwargs"]["initial_state"] = lstm[0]["inbound_nodes"][0]["args"][0]

    def inner_output(config, lstm):
        config["output_layers"] = [[lstm[0]["name"], 0, 0]]

    def skips(config, lstm):
        lstm[1]["inbound_nodes"] = lstm[0]["inbound_nodes"]

    def no_mask(config, lstm):
        lstm[0]["inbound_nodes"][0]["kwargs"]["mask"] = None

    assert functional(lambda config, lstm: None) == ""
    assert "called with training" in functional(training)
    assert "is called 2 times, wanted once" in functional(twice)
    assert "called with initial_state" in functional(state)
    assert "returns outputs of layers before the last" in functional(inner_output)
    assert "goes into several layers" in functional(skips)
    assert functional(lambda config, lstm: None, "functional-state") == ""
    assert "another mask than the layers before it have" in functional(no_mask, "functional-state")


def test_options_of_plain_layers_do_not_apply_to_keras_layers(stored):
    path, _ = stored("keras3/both-sum.keras")
    with pytest.raises(ValueError, match=r"dtype given, but the file is loaded as a fastrnn.keras.Bidirectional"):
        fastrnn.load(path, dtype="f8")
    with pytest.raises(ValueError, match="batch_first is False"):
        fastrnn.load(path, batch_first=False)
    with pytest.raises(TypeError, match="prefix is 3"):
        fastrnn.load(path, prefix=3)


def test_sequential_refuses_what_cannot_follow(stored):
    keras = fastrnn.keras
    for layers, reason in [
        ([], "wanted a list of layers"),
        ([keras.LSTM(3), 3], r"layers\[0\] does not return sequences"),
        ([keras.LSTM(3, return_sequences=True), 3], r"layers\[1\] is int"),
        ([keras.LSTM(3, return_sequences=True, return_state=True), keras.LSTM(3)], "sequences alone"),
        ([keras.Bidirectional(keras.LSTM(3, return_sequences=True), None), keras.LSTM(3)], "sequences alone"),
    ]:
        with pytest.raises((TypeError, ValueError), match=reason):
            keras.Sequential(layers)


def test_a_failed_call_of_a_stateful_sequential_changes_no_state(stored, rng):
    path, _ = stored("keras3/stateful.keras")
    first = fastrnn.load(path)
    second = fastrnn.keras.GRU(2, weights=[np.ones((4, 6)), np.ones((2, 6)), np.ones((2, 6))])  # takes 4, is given 5
    model = fastrnn.keras.Sequential([first, second])
    with pytest.raises(ValueError, match="wanted"):
        model(rng.standard_normal((6, 7, 3)))
    assert first.states is None
    first(rng.standard_normal((6, 7, 3)))
    assert len(model.get_weights()) == 6
    model.reset_state()
    assert not first.states[0].any()


# Variants of files


def test_config_as_text_and_as_path(stored, tmp_path):
    path, config = stored("keras3/gru.weights.h5")
    text = json.dumps(config)
    (tmp_path / "config.json").write_text(text)
    for given in (config, text, tmp_path / "config.json", str(tmp_path / "config.json"), config["config"]):
        assert isinstance(fastrnn.load(path, config=given), fastrnn.GRU)
    with pytest.raises(ValueError, match=r"weights and no architecture \(its layers: 'gru'\): wanted config="):
        fastrnn.load(path)
    with pytest.raises(TypeError, match="config is int"):
        fastrnn.load(path, config=3)
    whole, _ = stored("keras3/gru.keras")
    with pytest.raises(ValueError, match=r"config is given, but .* has its own"):
        fastrnn.load(whole, config=config)


def test_config_of_one_layer(stored):
    """Of a file with weights alone: its model may have layers that nobody can describe."""
    path, config = stored("keras3/gru.weights.h5")
    (layer,) = [part for part in config["config"]["layers"] if part["class_name"] == "GRU"]
    given = {"class_name": "GRU", "config": layer["config"], "keras_version": "3.0.0"}
    wanted = fastrnn.load(path, config=config)._engine.fingerprint
    for options in ({}, {"prefix": "gru"}):
        assert fastrnn.load(path, config=given, **options)._engine.fingerprint == wanted
    with pytest.raises(ValueError, match=r"GRU 'gru' .*: use_bias, activation and recurrent_activation are missing$"):
        fastrnn.load(
            path, config={"class_name": "GRU", "config": {"name": "gru", "units": 4}, "keras_version": "3.0.0"}
        )
    with pytest.raises(NotImplementedError, match="the model is of class 'Dense'"):
        fastrnn.load(path, config=given | {"class_name": "Dense"})


def renamed(data, old, new):
    """An HDF5 file with its root group `old` under another name."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as file:
        file.move(old, new)
    return buffer.getvalue()


@needs_h5py
def test_files_of_keras_2_12_to_2_15(stored, tmp_path):
    """Their layers are in another group."""
    path, config = stored("keras2/stack-unlike.weights.h5")
    path.write_bytes(renamed(path.read_bytes(), "layers", "_layer_checkpoint_dependencies"))
    cases.check(path, "stack-unlike", "right", GOLDEN.answers("keras2", "stack-unlike", "right"), config)


@needs_h5py
def test_weights_alone_in_the_old_layout(stored, tmp_path):
    """model.save_weights("x.h5") of Keras 2 has the groups of the layers at the root."""
    path, _ = stored("keras2/both-sum.h5")
    config = json.loads(GOLDEN.read("keras2/both-sum.json"))
    with h5py.File(path) as whole, h5py.File(tmp_path / "weights.h5", "w") as weights:
        for name in whole["model_weights"]:
            whole.copy(whole["model_weights"][name], weights)
        for name, value in whole["model_weights"].attrs.items():
            weights.attrs[name] = value
    answers = GOLDEN.answers("keras2", "both-sum", "right")
    cases.check(tmp_path / "weights.h5", "both-sum", "right", answers, config)


def test_old_configurations(stored):
    """Before Keras 2.2.3 a Sequential model was a list of layers; GRU had no reset_after before 2.1.4."""
    path, config = stored("keras2/gru-before.weights.h5")
    config["config"] = config["config"]["layers"]
    assert config["config"][1]["config"].pop("reset_after") is False
    cases.check(path, "gru-before", "right", GOLDEN.answers("keras2", "gru-before", "right"), config)


@needs_h5py
@pytest.mark.parametrize("libver", ["earliest", "v108", "v110", "latest"])
@pytest.mark.parametrize("track_order", [False, True])
def test_layouts_of_hdf5(tmp_path, libver, track_order, rng):
    """What h5py writes, whatever its settings, is read or refused by name."""
    from fastrnn.files import hdf5

    arrays = {f"g{i}/a{j}": rng.standard_normal((i, j)).astype("f4") for i in range(40) for j in (0, 1, 3)}
    with h5py.File(tmp_path / "f.h5", "w", libver=(libver, "latest"), track_order=track_order) as file:
        for name, array in arrays.items():
            file[name] = array
        file.attrs["names"] = [f"text {i}" for i in range(300)]
        file.attrs["name"] = "ä" * 9000
        file["f2"], file["f8"] = arrays["g3/a3"].astype("f2"), arrays["g3/a3"].astype(">f8")
    with open(tmp_path / "f.h5", "rb") as file:
        ours = hdf5.File("f", file)
        try:
            for name, array in arrays.items():
                np.testing.assert_array_equal(ours.tensor(name).read(), array)
            assert ours.texts("", "names") == [f"text {i}" for i in range(300)] and ours.text("", "name") == "ä" * 9000
            np.testing.assert_array_equal(ours.tensor("f8").read(), arrays["g3/a3"])
            np.testing.assert_array_equal(ours.tensor("f2").read(), arrays["g3/a3"].astype("f2").astype("f4"))
            assert ours.tensor("g3/none") is None and ours.text("", "none") is None and ours.texts("", "none") is None
            assert ours.children("g3", 2) == ["a0", "a1"] and ours.has_group("g3") and not ours.has_group("f8")
        except NotImplementedError as error:
            assert libver != "earliest" or track_order
            assert "dense" in str(error)


# Hostile files


def load_or_refuse(path, **options):
    """Whether a file was refused; every other exception passes through."""
    try:
        fastrnn.load(path, **options)
    except (ValueError, TypeError, OSError, NotImplementedError):
        return True
    return False


@pytest.mark.parametrize("name", ["keras2/gru.h5", "keras3/gru.keras", "keras3/gru.weights.h5"])
def test_truncated_at_every_byte(stored, name):
    path, config = stored(name)
    data = path.read_bytes()
    options = {} if config is None else {"config": config}
    for size in [*range(0, 400), *range(400, len(data), 31), *range(len(data) - 100, len(data))]:
        path.write_bytes(data[:size])
        assert load_or_refuse(path, **options), size


@pytest.mark.parametrize("name", ["keras2/gru.h5", "keras3/gru.keras", "keras3/gru.weights.h5"])
def test_flipped_bytes(stored, rng, name):
    path, config = stored(name)
    data = path.read_bytes()
    options = {} if config is None else {"config": config}
    refused = 0
    for place in range(0, len(data), 13):
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        refused += load_or_refuse(path, **options)
    assert refused > 30


def hostile(tmp_path, change):
    """A stored .h5 of one GRU, changed by h5py."""
    path = tmp_path / "hostile.h5"
    path.write_bytes(GOLDEN.read("keras2/gru.h5"))
    with h5py.File(path, "r+") as file:
        group = file["model_weights/gru/gru/gru_cell"]
        kernel = group["kernel:0"][()]
        del group["kernel:0"]
        change(file, group, kernel)
    return path


def soft_link(file, group, kernel):
    file["elsewhere"] = kernel
    group["kernel:0"] = h5py.SoftLink("/elsewhere")


def external_link(file, group, kernel):
    group["kernel:0"] = h5py.ExternalLink("/etc/passwd", "/kernel")


def external_storage(file, group, kernel):
    group.create_dataset("kernel:0", kernel.shape, "f4", external=[("/etc/passwd", 0, kernel.nbytes)])


def virtual(file, group, kernel):
    layout = h5py.VirtualLayout(kernel.shape, "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "kernel", kernel.shape)
    group.create_virtual_dataset("kernel:0", layout)


def huge(file, group, kernel):
    space = h5py.h5s.create_simple((1 << 40, 15))
    h5py.h5d.create(group.id, b"kernel:0", h5py.h5t.IEEE_F32LE, space)


def compressed(file, group, kernel):
    group.create_dataset("kernel:0", (1 << 20, 1 << 12), "f4", compression="gzip", chunks=(1 << 10, 1 << 12))


def integers(file, group, kernel):
    group["kernel:0"] = kernel.astype("i4")


def texts(file, group, kernel):
    group["kernel:0"] = "text"


def a_group(file, group, kernel):
    group.create_group("kernel:0")


def a_loop(file, group, kernel):
    group["kernel:0"] = file["/"]


def one_column(file, group, kernel):
    group["kernel:0"] = kernel[:, :1]


@needs_h5py
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (soft_link, "a soft link, which is not followed"),
        (external_link, "a link to another file, which is not followed"),
        (external_storage, "its numbers in another file"),
        (virtual, "a virtual array"),
        (huge, "never written|bytes"),
        (compressed, "in chunks"),
        (integers, "is of type integers, wanted"),
        (texts, "is of type texts|is of type text"),
        (a_group, "is no array"),
        (a_loop, "is no array"),
        (one_column, r"\(kernel\) has shape \(3, 1\), wanted \(3, 15\)"),
    ],
)
def test_what_hdf5_can_hide_is_refused(tmp_path, change, reason):
    path = hostile(tmp_path, change)
    with pytest.raises((ValueError, NotImplementedError), match=reason):
        fastrnn.load(path)


def test_archives_that_hide_something(tmp_path, stored, rng):
    path, _ = stored("keras3/gru.keras")
    with zipfile.ZipFile(path) as archive:
        parts = {info.filename: archive.read(info) for info in archive.infolist()}

    def write(compress=zipfile.ZIP_STORED, **changes):
        with zipfile.ZipFile(path, "w", compress) as archive:
            for name, data in (parts | changes).items():
                if data is not None:
                    archive.writestr(name, data)
        return path

    assert isinstance(fastrnn.load(write(zipfile.ZIP_DEFLATED)), fastrnn.GRU)
    for changes, reason in [
        ({"config.json": rng.bytes(1 << 20).hex().encode()}, "config.json has .* bytes, wanted at most"),
        ({"config.json": b"[" * 100_000}, "no JSON|nests too deep|is a list"),
        ({"config.json": b'{"class_name": "Sequential", "class_name": "x"}'}, "twice"),
        ({"config.json": b"[]"}, "wanted an object"),
        ({"config.json": b'{"class_name": "MyModel", "config": {}}'}, "is of class 'MyModel'"),
        ({"model.weights.h5": b"nothing"}, "block ends|no signature"),
        ({"metadata.json": b'{"keras_version": 3}'}, "keras_version 3, wanted a text"),
        ({"metadata.json": b'{"keras_version": "new"}'}, "keras_version is 'new'"),
        ({"model.weights.h5": bytes(1 << 24)}, "100 times"),
    ]:
        with pytest.raises((ValueError, NotImplementedError), match=reason):
            fastrnn.load(write(zipfile.ZIP_DEFLATED if "100" in reason or "bytes" in reason else 0, **changes))
    write(**{"model.weights.h5": None, "model.weights.json": b"{}"})
    with pytest.raises(NotImplementedError, match="several files"):
        fastrnn.load(path)


def mutate(rng, value, depth=0):
    """A configuration with something changed, missing, doubled or of another type."""
    strange = [
        None,
        True,
        -1,
        0,
        10**40,
        1e308,
        float("nan"),
        "",
        "LSTM",
        "x" * 300,
        [],
        {},
        [[[]]],
        {"class_name": []},
    ]
    if depth > 12 or rng.random() < 0.01:
        return strange[rng.integers(len(strange))]
    if isinstance(value, dict):
        items = [(key, mutate(rng, part, depth + 1)) for key, part in value.items() if rng.random() > 0.005]
        return dict(items)
    if isinstance(value, list):
        parts = [mutate(rng, part, depth + 1) for part in value if rng.random() > 0.01]
        return parts + parts if rng.random() < 0.01 else parts
    return value


@pytest.mark.parametrize("case", ["stack-unlike", "both-unlike", "cells-unlike", "functional-masking", "cudnn-both"])
@pytest.mark.parametrize("version", ["keras2", "keras3"])
def test_mutated_configurations(rng, case, version):
    from fastrnn.files.keras_file import check_config
    from fastrnn.importers.keras_config import read_model

    if f"{version}/{case}.json" not in GOLDEN.files:
        pytest.skip("Keras 3 has no CuDNN layers")
    config = json.loads(GOLDEN.read(f"{version}/{case}.json"))
    seen = set()
    for _ in range(300):
        mutant = mutate(rng, config)
        model = read_model(mutant, "2.15.0" if version == "keras2" else None)
        seen.add((bool(model.faults), bool(model.unsupported), bool(model.chain)))
        for reason in (*model.faults, *model.unsupported):
            assert len(reason) < 1000
    assert {True, False} == {has_faults for has_faults, *_ in seen}
    text = json.dumps(config).encode()
    for _ in range(300):
        changed = bytearray(text)
        for place in rng.integers(0, len(text), 3):
            changed[place] = int(rng.integers(32, 127))
        try:
            check_config(bytes(changed))
        except ValueError:
            continue


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is read from /proc")
@needs_h5py
def test_peak_memory(tmp_path):
    """At most twice the weights, and 16 MB."""
    units = 1200
    config = json.loads(GOLDEN.read("keras2/lstm.json"))
    config["config"]["layers"][1]["config"]["units"] = units
    path = tmp_path / "large.h5"
    with h5py.File(path, "w") as file:
        file.attrs["model_config"], file.attrs["keras_version"] = json.dumps(config), "2.9.0"
        group = file.create_group("model_weights")
        group.attrs["layer_names"] = ["lstm"]
        layer = group.create_group("lstm")
        layer.attrs["weight_names"] = names = ["lstm/kernel:0", "lstm/recurrent_kernel:0", "lstm/bias:0"]
        for name, shape in zip(names, [(units, 4 * units), (units, 4 * units), (4 * units,)], strict=True):
            layer[name] = np.ones(shape, "f4")
    code = f"""
import fastrnn.files.keras_file as reader
def peak():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
before = peak()
spec = reader.read({str(path)!r})
print(peak() - before, spec.cells[0].weight_ih.nbytes + spec.cells[0].weight_hh.nbytes)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    used, weights = map(int, done.stdout.split())
    assert weights == 2 * 4 * units * units * 4
    assert used < 2 * weights + (16 << 20)
