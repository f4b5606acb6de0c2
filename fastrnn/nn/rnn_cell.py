"""The names of ``tf.nn.rnn_cell``, and cuDNN's cells of ``tf.contrib.cudnn_rnn``."""

from .cells import (
    BasicLSTMCell,
    BasicRNNCell,
    CudnnCompatibleGRUCell,
    CudnnCompatibleLSTMCell,
    GRUCell,
    LSTMCell,
    LSTMStateTuple,
    RNNCell,
)
from .wrappers import DeviceWrapper, DropoutWrapper, MultiRNNCell, ResidualWrapper

__all__ = [
    "BasicLSTMCell",
    "BasicRNNCell",
    "CudnnCompatibleGRUCell",
    "CudnnCompatibleLSTMCell",
    "DeviceWrapper",
    "DropoutWrapper",
    "GRUCell",
    "LSTMCell",
    "LSTMStateTuple",
    "MultiRNNCell",
    "RNNCell",
    "ResidualWrapper",
]
