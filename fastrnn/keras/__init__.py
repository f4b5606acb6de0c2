"""Keras 3's recurrent layers on the engine, with Keras's names, arguments, weights and meaning of masks.

For inference only. Calls take and return NumPy arrays and run immediately. A mask is an argument; it is never attached
to an array.
"""

from .bidirectional import Bidirectional
from .masking import Masking
from .recurrent import GRU, LSTM, SimpleRNN
from .sequential import Sequential

__all__ = ["GRU", "LSTM", "Bidirectional", "Masking", "Sequential", "SimpleRNN"]
