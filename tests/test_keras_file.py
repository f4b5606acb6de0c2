"""Files that Keras 2 and 3 saved, loaded without Keras: its stored answers to ragged input."""

import json
import subprocess
import sys

import keras_file_cases as cases
import pytest

import fastrnn

GOLDEN = cases.Golden()
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
