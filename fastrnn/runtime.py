"""Settings of the process, and what it runs on."""

from __future__ import annotations

import os
import platform
from typing import Any

import numpy as np

from . import _core

_num_threads = 1


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use. This version runs every call on its caller's thread.

    Raises
    ------
    TypeError, ValueError
        n is not a positive integer.
    """
    global _num_threads
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"n is {n!r}, wanted a positive integer")
    if n < 1:
        raise ValueError(f"n is {n}, wanted a positive integer")
    _num_threads = int(n)


def get_num_threads() -> int:
    """How many threads a call may use."""
    return _num_threads


def forced_isa() -> str | None:
    """The instruction set that FASTRNN_ISA names, or None.

    Raises
    ------
    ValueError
        It names one that is unknown, or that this processor cannot run.
    """
    name = os.environ.get("FASTRNN_ISA") or None
    return None if name is None else check_isa(name, "FASTRNN_ISA")


def check_isa(name: str, argument: str) -> str:
    """Return name if this processor can run it; `argument` is what the message calls it."""
    runnable = _core.available_isas()
    if name not in runnable:
        raise ValueError(f"{argument} is {name!r}, wanted one that runs here: {', '.join(runnable)}")
    return name


def info() -> dict[str, Any]:
    """What runs here: versions, instruction sets (detected and used), threads, BLAS.

    ``blas`` describes SciPy's BLAS (name, version, integer width) as SciPy reports it.
    """
    from importlib.metadata import version  # a third of the package's import time, and only this needs it

    isas = _core.available_isas()
    return {
        "version": _core.__version__,
        "isa": forced_isa() or isas[0],
        "isa_detected": isas[0],
        "isas": isas,
        "threads": _num_threads,
        "blas": _blas(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": version("scipy"),
    }


def _blas() -> dict[str, Any]:
    import scipy

    built = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    ilp64 = built.get("cython blas ilp64", False) in (True, "True", "true")
    return {"name": built.get("name"), "version": built.get("version"), "integers": "int64" if ilp64 else "int32"}
