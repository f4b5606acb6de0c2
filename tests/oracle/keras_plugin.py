"""A pytest plugin for Keras's own tests, with which Keras's recurrent layers compute their results by fastrnn.keras.

Keras 3 computes a recurrent layer in ``inner_loop``, and the two directions of one in ``Bidirectional.call``. Both are
replaced if the inputs are float32 or float64 numbers; training is left to Keras. Each test report has the number of
calls that fastrnn computed.
"""

import numpy as np
import pytest
from keras import layers
from keras.src import backend

import fastrnn.keras

answered = []


class LeaveToKeras(Exception):
    """Raised if inputs are symbolic, gradients or half precision are needed, or Keras keeps the states."""


def numbers(value):
    """A tensor, or nested ones, as NumPy arrays; LeaveToKeras for symbolic ones."""
    if value is None or isinstance(value, (list, tuple)):
        return value if value is None else [numbers(part) for part in value]
    try:
        return np.asarray(backend.convert_to_numpy(value))
    except (AttributeError, NotImplementedError, RuntimeError) as error:
        raise LeaveToKeras from error


def answer(layer, *call):
    """Run fastrnn's layer on Keras's tensors; return tensors."""
    results = layer(*map(numbers, call))
    answered.append(layer)
    results = results if isinstance(results, tuple) else (results,)
    return [backend.convert_to_tensor(np.ascontiguousarray(result)) for result in results]


def replace_inner_loop(keras_class, counterpart):
    original = keras_class.inner_loop

    def inner_loop(self, sequences, initial_state, mask, training=False):
        try:
            if training or self.compute_dtype not in ("float32", "float64"):
                raise LeaveToKeras
            layer = counterpart.from_keras(self)
            layer.return_state = True
            y, *states = answer(layer, sequences, initial_state, mask)
        except LeaveToKeras:
            return original(self, sequences, initial_state, mask, training=training)
        return (y[:, -1], y, states) if self.return_sequences else (y, y[:, None], states)

    keras_class.inner_loop = inner_loop


def replace_bidirectional():
    original = layers.Bidirectional.call

    def call(self, sequences, initial_state=None, mask=None, training=None):
        try:
            if training or self.stateful or self.compute_dtype not in ("float32", "float64"):
                raise LeaveToKeras
            results = answer(fastrnn.keras.Bidirectional.from_keras(self), sequences, initial_state, mask)
        except LeaveToKeras:
            return original(self, sequences, initial_state=initial_state, mask=mask, training=training)
        return tuple(results) if len(results) > 1 else results[0]

    layers.Bidirectional.call = call


for name in ("SimpleRNN", "LSTM", "GRU"):
    replace_inner_loop(getattr(layers, name), getattr(fastrnn.keras, name))
replace_bidirectional()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    before = len(answered)
    yield
    item.user_properties.append(("answered", len(answered) - before))
