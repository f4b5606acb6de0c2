"""Files that the installed Keras 3 and tf-keras save now, against what they compute now."""

import os

import keras_file_cases as cases
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def library(request):
    return pytest.importorskip(request.param)


@pytest.mark.parametrize("name", [*cases.CASES, *cases.FUNCTIONAL])
def test_saved_now(library, tmp_path, name):
    model = cases.build(library, name)
    files = cases.saved(model, tmp_path)
    for mask in cases.MASKS:
        expected = cases.answers(model, name, mask)
        for ending in cases.FORMATS:
            cases.check(tmp_path / f"model{ending}", name, mask, expected, cases.config_of(files, ending))


def test_names_of_our_own(library, tmp_path):
    """Names that the user gave, and models inside models."""
    import numpy as np

    import fastrnn

    layers = library.layers
    inner = library.Sequential(
        [library.Input((None, 3)), layers.LSTM(4, return_sequences=True, name="b"), layers.LSTM(4, name="a")],
        name="encoder",
    )
    model = library.Sequential([library.Input((None, 3)), inner, layers.RepeatVector(2)])
    plain = library.Sequential([library.Input((None, 3)), inner])
    x = np.random.default_rng(1).standard_normal((3, 5, 3)).astype("f4")
    for ending in (".keras", ".h5"):
        plain.save(tmp_path / f"plain{ending}")
        _, (h, _) = fastrnn.load(tmp_path / f"plain{ending}")(x)
        np.testing.assert_allclose(h[-1], plain.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
        model.save(tmp_path / f"model{ending}")
        with pytest.raises(NotImplementedError, match=r"RepeatVector '.*' \(layer 3 of 3\).*'encoder/b', 'encoder/a'"):
            fastrnn.load(tmp_path / f"model{ending}")
        for prefix, at in (("encoder/a", 1), ("a", 1), ("encoder/b.", 0)):
            layer = fastrnn.load(tmp_path / f"model{ending}", prefix=prefix)
            kernel = inner.layers[at].get_weights()[0]
            np.testing.assert_array_equal(layer._unpack().cells[0].weight_ih, kernel.T)


def test_a_trained_model(library, tmp_path):
    """A file with an optimiser's slots, a compiled model's metrics and losses, and Dense on top."""
    import numpy as np

    import fastrnn

    layers = library.layers
    model = library.Sequential(
        [library.Input((None, 3)), layers.Bidirectional(layers.GRU(4), name="both"), layers.Dense(1)]
    )
    model.compile("adam", "mse", metrics=["mae"])
    x = np.random.default_rng(1).standard_normal((8, 5, 3)).astype("f4")
    model.fit(x, x[:, :1, 0], epochs=1, verbose=0)
    features = library.Sequential([library.Input((None, 3)), model.get_layer("both")])
    for ending in (".keras", ".h5"):
        model.save(tmp_path / f"model{ending}")
        _, h = fastrnn.load(tmp_path / f"model{ending}", prefix="both")(x)
        np.testing.assert_allclose(np.concatenate(h, -1), features.predict(x, verbose=0), rtol=1e-5, atol=1e-6)
        whole = fastrnn.load(tmp_path / f"model{ending}")
        np.testing.assert_allclose(whole(x), model.predict(x, verbose=0), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("policy", ["mixed_float16", "bfloat16", "float16"])
def test_policies(tmp_path, policy):
    """Weights of less precision are taken exactly, and computed with in float32."""
    import numpy as np

    import fastrnn

    keras = pytest.importorskip("keras")
    model = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.LSTM(4, dtype=policy, recurrent_initializer="zeros")]
    )
    for ending in (".keras", ".weights.h5"):
        (model.save_weights if "weights" in ending else model.save)(tmp_path / f"model{ending}")
        config = model.get_config() if "weights" in ending else None
        cell = fastrnn.load(tmp_path / f"model{ending}", config=config)._unpack().cells[0]
        kernel = np.array(keras.ops.cast(model.layers[0].cell.kernel, "float32"))
        assert cell.weight_ih.dtype == np.float32
        np.testing.assert_array_equal(cell.weight_ih, kernel.T)
