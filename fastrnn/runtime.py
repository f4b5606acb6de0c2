"""Settings of the process, and information about what it runs on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

from . import _core
from .processors import usable_processors

#: More than the number of processors of any machine.
MOST_THREADS = 1024


def set_num_threads(n: int) -> None:
    """Set how many threads a call may use, including the caller's own.

    The default is ``FASTRNN_NUM_THREADS`` from the environment, or the number of processors that this process may
    keep busy (by its affinity and its control group's quota). Results have the same bits for every number. Short
    calls run on the caller's thread, and so do calls that begin while another call uses the threads.

    Parameters
    ----------
    n : from 1 to 1024; more than the process has processors for makes calls slower

    Raises
    ------
    TypeError, ValueError
        n is not an integer, or out of range.

    Examples
    --------
    >>> import fastrnn
    >>> fastrnn.set_num_threads(1)
    >>> fastrnn.get_num_threads()
    1
    """
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"n is {n!r}, wanted a positive integer")
    if not 1 <= n <= MOST_THREADS:
        raise ValueError(f"n is {n}, wanted 1 to {MOST_THREADS}")
    _core.set_num_threads(int(n))


def get_num_threads() -> int:
    """How many threads a call may use."""
    return _core.get_num_threads()


def first_num_threads() -> int:
    """The initial number of threads.

    Raises
    ------
    ValueError
        FASTRNN_NUM_THREADS is not an integer from 1 to 1024.
    """
    text = os.environ.get("FASTRNN_NUM_THREADS")
    if not text:
        return min(usable_processors(), MOST_THREADS)
    if not text.isdecimal() or not 1 <= int(text) <= MOST_THREADS:
        raise ValueError(f"FASTRNN_NUM_THREADS is {text!r}, wanted an integer from 1 to {MOST_THREADS}")
    return int(text)


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
    """Return name if this processor can run it; `argument` is its name in the message."""
    runnable = _core.available_isas("int8")  # which has kernels of every set
    if name not in runnable:
        raise ValueError(f"{argument} is {name!r}, wanted one that runs here: {', '.join(runnable)}")
    return name


def chosen_isa(isa: str | None) -> str | None:
    """The instruction set that an argument names, or else FASTRNN_ISA, or None.

    Raises
    ------
    ValueError
        It is unknown, or this processor cannot run it.
    """
    return forced_isa() if isa is None else check_isa(isa, "isa")


def isa_for(isa: str | None, weight_dtype: str | None = None) -> str:
    """The instruction set that layers with such weights take where `isa` is chosen, None for the best."""
    return _core.isa_for(isa or _core.available_isas("int8")[0], weight_dtype or "float32")


def info() -> dict[str, Any]:
    """What runs here: versions, instruction sets (detected and used), threads, BLAS.

    ``int8_isa`` and ``int8_isas`` are those of layers with int8 weights, which have kernels for more instruction sets,
    such as avx512_vnni. Asked for such a set, other layers take the next one in the list that they have. ``blas``
    describes SciPy's BLAS (name, version, integer width) as SciPy reports it.
    """
    from importlib.metadata import version  # a third of the package's import time, and only needed here

    isas, int8_isas = _core.available_isas(), _core.available_isas("int8")
    chosen = forced_isa()
    return {
        "version": _core.__version__,
        "isa": isa_for(chosen),
        "isa_detected": isas[0],
        "isas": isas,
        "int8_isa": isa_for(chosen, "int8"),
        "int8_isas": int8_isas,
        "threads": get_num_threads(),
        "blas": _blas(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "scipy": version("scipy"),
    }


def get_include() -> str:
    """The folder with ``fastrnn.h``, for programs in C, C++ and Cython (``-I``).

    Examples
    --------
    >>> import os, fastrnn
    >>> os.listdir(fastrnn.get_include())
    ['fastrnn.h']
    """
    return str(Path(__file__).parent / "include")


def get_library() -> str:
    """The static library of the C core, for programs in C, C++ and Cython; it needs ``-lm`` and ``-pthread``.

    ``cc program.c -I INCLUDE LIBRARY -lm -pthread``, with what `get_include` and this function return. A program with
    it needs no Python. ``pkg-config fastrnn`` says the same, if ``PKG_CONFIG_PATH`` has the folder ``pkgconfig`` beside
    the library.

    Examples
    --------
    >>> import os, fastrnn
    >>> os.path.basename(fastrnn.get_library())
    'libfastrnn.a'
    """
    return str(Path(__file__).parent / "lib" / "libfastrnn.a")


def _blas() -> dict[str, Any]:
    import scipy

    built = scipy.show_config(mode="dicts")["Build Dependencies"]["blas"]
    ilp64 = built.get("cython blas ilp64", False) in (True, "True", "true")
    return {"name": built.get("name"), "version": built.get("version"), "integers": "int64" if ilp64 else "int32"}
