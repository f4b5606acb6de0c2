"""How many processors this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path


def usable_processors() -> int:
    """How many processors this process may keep busy, by its affinity and its control group's quota."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, int(min(count, _cgroup_quota())))


def _cgroup_quota(root: str = "/sys/fs/cgroup", own: str = "/proc/self/cgroup") -> float:
    """The CPU quota, in processors, of the process's control group and those above it; infinity if there is none."""
    least = math.inf
    try:
        groups = Path(own).read_text(errors="replace").splitlines()
    except OSError:  # not Linux
        return least
    for group in groups:
        _, _, rest = group.partition(":")
        controllers, _, path = rest.partition(":")
        if not path or (controllers and "cpu" not in controllers.split(",")):
            continue
        # Version 2 has one tree, version 1 has one for each controller. In a container the path may be the host's.
        base = os.path.join(root, controllers) if controllers else root
        parts = path.strip("/").split("/")
        for depth in range(len(parts) + 1):
            least = min(least, _quota_of(os.path.join(base, *parts[:depth]), bool(controllers)))
    return least


def _quota_of(folder: str, first_version: bool) -> float:
    names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if first_version else ("cpu.max",)
    try:
        words = " ".join(Path(folder, name).read_text() for name in names).split()
        quota, period = float(words[0]), float(words[1])
    except (OSError, ValueError, IndexError):  # no such file, or "max", which means no limit
        return math.inf
    return quota / period if quota > 0 and period > 0 else math.inf
