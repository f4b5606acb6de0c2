"""TensorFlow 1's recurrent networks on the engine, with the names, arguments, structures and results of ``tf.nn``."""

from . import rnn_cell
from .bidirectional import bidirectional_dynamic_rnn, stack_bidirectional_dynamic_rnn, static_bidirectional_rnn
from .buckets import Buckets
from .checkpoint import Checkpoint
from .decoding import Decoded, decode
from .dynamic import dynamic_rnn
from .raw import raw_rnn
from .static import StaticPlan, static_rnn
from .structure import TensorShape

__all__ = [
    "Buckets",
    "Checkpoint",
    "Decoded",
    "StaticPlan",
    "TensorShape",
    "bidirectional_dynamic_rnn",
    "decode",
    "dynamic_rnn",
    "raw_rnn",
    "rnn_cell",
    "stack_bidirectional_dynamic_rnn",
    "static_bidirectional_rnn",
    "static_rnn",
]
