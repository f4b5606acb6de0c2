"""Keras 3's recurrent layers over the same engine: its names, arguments, weights and meaning of masks.

Inference only, NumPy arrays in and out, eager: a mask is an argument, nothing is attached to arrays.
"""

from .bidirectional import Bidirectional
from .masking import Masking
from .recurrent import GRU, LSTM, SimpleRNN
from .sequential import Sequential

__all__ = ["GRU", "LSTM", "Bidirectional", "Masking", "Sequential", "SimpleRNN"]
