"""Files of whole models that Keras 2 and 3 saved, loaded without Keras: its stored answers to ragged input."""

import json

import keras_model_cases as cases
import pytest

GOLDEN = cases.Golden()


@pytest.fixture
def stored(tmp_path):
    """Write a stored file; gives its path and the configuration that it needs."""

    def write(name):
        path = tmp_path / name.replace("/", "-")
        path.write_bytes(GOLDEN.files[name])
        is_weights = name.endswith(".weights.h5")
        return path, json.loads(GOLDEN.files[name.removesuffix(".weights.h5") + ".json"]) if is_weights else None

    return write


def test_there_are_all_files():
    assert len(GOLDEN.names) == 2 * (len(cases.ALL) + 2 * len(cases.IN_EVERY_FORMAT))


@pytest.mark.parametrize("name", GOLDEN.names)
def test_keras_answers(stored, name):
    path, config = stored(name)
    version, case = name.split("/")
    case = case.split(".")[0]
    cases.check(path, case, GOLDEN.answers(version, case), config)
