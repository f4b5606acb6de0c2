"""Serving models over the network: the Open Inference Protocol and WebSocket, in batches of whatever waits.

``application(models, options)`` is the ASGI application, for any ASGI server; ``fastrnn serve`` starts one of its own.
docs/serving.md has the protocols and the limits. Names are imported when they are first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

from .options import Options

__all__ = ["Options", "Service", "application", "application_of"]

_MODULES = {"Service": "service", "application": "rest", "application_of": "rest"}

if TYPE_CHECKING:
    from .rest import application as application
    from .rest import application_of as application_of
    from .service import Service as Service
else:

    def __getattr__(name: str) -> Any:
        if name not in _MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from ..extras import require

        require(["prometheus_client", "starlette"], "fastrnn.serve", "serve")
        return getattr(importlib.import_module(f".{_MODULES[name]}", __name__), name)
