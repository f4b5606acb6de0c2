"""Lets ``threadpoolctl.threadpool_limits`` set the number of fastrnn's threads, if threadpoolctl is installed."""

from __future__ import annotations

from ._core import __version__
from .runtime import get_num_threads, set_num_threads


def register() -> None:
    """Register fastrnn's thread pool with threadpoolctl, as the user API ``"fastrnn"``."""
    try:
        import threadpoolctl
    except ImportError:
        return
    if not hasattr(threadpoolctl, "register"):  # before 3.3
        return

    class Controller(threadpoolctl.LibController):  # type: ignore[misc, name-defined, unused-ignore]
        user_api = "fastrnn"
        internal_api = "fastrnn"
        filename_prefixes = ("_core.",)
        check_symbols = ("fastrnn_pool_create",)

        def get_num_threads(self) -> int:
            return get_num_threads()

        def set_num_threads(self, num_threads: int) -> None:
            set_num_threads(num_threads)

        def get_version(self) -> str:
            return __version__

    threadpoolctl.register(Controller)
