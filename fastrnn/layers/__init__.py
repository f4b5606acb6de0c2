"""LSTM, GRU and RNN: immutable recurrent layers."""

from ..masks import PastEnd
from ..states import State, StateLike, StateT
from .classes import GRU, LAYERS, LSTM, RNN
from .layer import Layer
from .unrolled import Unrolled

__all__ = ["GRU", "LAYERS", "LSTM", "RNN", "Layer", "PastEnd", "State", "StateLike", "StateT", "Unrolled"]
