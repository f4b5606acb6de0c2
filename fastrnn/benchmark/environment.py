"""Limits of a run, set before its engines are imported, and a description of the machine."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module, metadata
from pathlib import Path
from typing import Any, NamedTuple

from fastrnn.runtime import check_isa, get_num_threads, info, set_num_threads

from .engines import ENGINES

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")

THREAD_SWITCHES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")

QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3"}

#: Environment variables that limit peers to an instruction set. ONNX Runtime and OpenVINO have none.
ISA_SWITCHES = {
    "avx2": {
        "ATEN_CPU_CAPABILITY": "avx2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
    }
}


class Cache(NamedTuple):
    """A data cache as one processor sees it.

    Attributes
    ----------
    name : str
        ``L1``, ``L2`` or ``L3``.
    size : int
        Bytes.
    sharers : int
        How many processors share it.
    """

    name: str
    size: int
    sharers: int


@contextmanager
def limited(threads: int, isa: str | None = None) -> Iterator[None]:
    """Limit this process to `threads` processors, its libraries to as many threads, and all to an instruction set.

    Libraries read these limits when they are imported, which therefore has to happen within the context.

    Raises
    ------
    ValueError
        More threads than processors, or an instruction set that is unknown or does not run here.
    """
    switches = QUIET | dict.fromkeys(THREAD_SWITCHES, str(threads))
    if isa is not None:
        switches |= {"FASTRNN_ISA": check_isa(isa, "isa"), **ISA_SWITCHES.get(isa, {})}
    processors = available_processors()
    if not 1 <= threads <= len(processors):
        raise ValueError(
            f"threads is {threads}, wanted 1 to the {len(processors)} processors that this process may use"
        )
    environment, before = dict(os.environ), get_num_threads()
    os.environ.update(switches)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, processors[:threads])
    set_num_threads(threads)
    try:
        yield
    finally:
        set_num_threads(before)
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, processors)
        for name in switches:
            if name in environment:
                os.environ[name] = environment[name]
            else:
                del os.environ[name]


def available_processors() -> list[int]:
    """The numbers of the processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def caches() -> list[Cache]:
    """The data caches of the first processor, smallest first; usual sizes if the system does not report them."""
    found = []
    for path in sorted(CACHES.glob("index*")):
        try:
            level, kind, size = (path.joinpath(name).read_text().strip() for name in ("level", "type", "size"))
            shared = path.joinpath("shared_cpu_list").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            found.append(Cache(f"L{level}", int(size[:-1]) * 1024, len(_numbers(shared))))
    return found or [Cache("L1", 2**15, 1), Cache("L2", 2**20, 1), Cache("L3", 2**25, os.cpu_count() or 1)]


def _numbers(listed: str) -> list[int]:
    """The numbers of a list such as ``0-3,8``."""
    ends = [part.partition("-") for part in listed.split(",")]
    return [number for first, _, last in ends for number in range(int(first), int(last or first) + 1)]


def versions(engines: Iterable[str]) -> dict[str, str]:
    """The versions of Python, fastrnn, its dependencies and the engines' packages."""
    facts = info()
    found = {"fastrnn": facts["version"]} | {name: facts[name] for name in ("python", "numpy", "scipy")}
    for package in dict.fromkeys(package for engine in engines for package in ENGINES[engine].packages):
        found[package] = str(getattr(import_module(package), "__version__", None) or metadata.version(package))
    return found


def describe(engines: Iterable[str], threads: int) -> dict[str, Any]:
    """The facts that a run's figures depend on: processor, caches, instruction set, threads and versions."""
    return {
        "processor": processor(),
        "processors": len(available_processors()),
        "caches": [cache._asdict() for cache in caches()],
        "system": platform.platform(),
        "isa": info()["isa"],
        "int8_isa": info()["int8_isa"],
        "threads": threads,
        "versions": versions(engines),
    }
