"""An option of PyTorch's compiler that replaced modules need."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

CONFIG = "torch._dynamo.config"


def allow_recurrent_modules() -> None:
    """Let torch.compile look into instances of nn.LSTM, nn.GRU and nn.RNN: set its option ``allow_rnn``.

    Without the option it does not compile them and refuses them with ``fullgraph=True``, whatever their ``forward``
    does. Importing the compiler takes as long as importing PyTorch, so if it is not imported yet, the option is set
    when it is.
    """
    if CONFIG in sys.modules:
        _set_option(sys.modules[CONFIG])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def _set_option(config: Any) -> None:
    if hasattr(config, "allow_rnn"):
        config.allow_rnn = True


class _Finder(MetaPathFinder):
    """Finds the compiler's options where they are, and sets one after their import."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != CONFIG:
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_set(module: ModuleType) -> None:
                execute(module)
                _set_option(module)

            spec.loader.exec_module = execute_and_set  # type: ignore[method-assign]
        return spec
