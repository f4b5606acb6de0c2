"""Processors by TensorFlow's device names."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_CPU = re.compile(r"(?:/job:\w+)?(?:/replica:\d+)?(?:/task:\d+)?(?:/(?:device:)?cpu:(\d+))?", re.IGNORECASE)


def processor_of(device: Any) -> int | None:
    """The processor that a device string such as ``"/cpu:1"`` names; None if it names none.

    The number counts the processors that this process may use, so that ``"/cpu:0"`` always exists.

    Raises
    ------
    TypeError, ValueError
        It does not name a processor, or the number is too large.
    """
    if device is None:
        return None
    if not isinstance(device, str):
        raise TypeError(f"device is {type(device).__name__}, wanted a string such as '/cpu:0', or None")
    match = _CPU.fullmatch(device if device.startswith("/") or not device else "/" + device)
    if match is None:
        raise ValueError(f"device is {device!r}, but cells run on processors: wanted one such as '/cpu:0'")
    if match[1] is None:
        return None
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError(f"device is {device!r}, but this system does not pin threads: wanted None")
    available = sorted(os.sched_getaffinity(0))
    if int(match[1]) >= len(available):
        raise ValueError(f"device is {device!r}, but this process may use {len(available)}: '/cpu:0' and so on")
    return available[int(match[1])]


@contextmanager
def pinned(processor: int | None) -> Iterator[None]:
    """Keep the calling thread on one processor within the context."""
    if processor is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {processor})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)
