"""fastrnn on Ray: many machines with the code and the numbers of one (extra ``ray``).

``Predictor`` scores datasets of Ray Data, ``application`` serves models with Ray Serve. docs/scaling.md says what to
expect. Names are imported when they are first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

__all__ = ["Predictor", "application"]

_MODULES = {"Predictor": "predictor", "application": "deployment"}

if TYPE_CHECKING:
    from .deployment import application as application
    from .predictor import Predictor as Predictor
else:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ..extras import require

        require(["fsspec", "pyarrow", "ray"], f"fastrnn.ray.{name}", "ray")
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
