"""Whole models that the installed Keras 3 and tf-keras save now, against what they compute now."""

import os

import keras_file_cases
import keras_model_cases as cases
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")


@pytest.fixture(scope="module", params=["keras", "tf_keras"])
def library(request):
    return pytest.importorskip(request.param)


@pytest.mark.parametrize("name", cases.ALL)
def test_saved_now(library, tmp_path, name):
    model = cases.build(library, name)
    files = keras_file_cases.saved(model, tmp_path)
    expected = cases.answers(model, name)
    for ending in keras_file_cases.FORMATS:
        cases.check(tmp_path / f"model{ending}", name, expected, keras_file_cases.config_of(files, ending))
