"""How many processors a worker of Ray may use."""

from __future__ import annotations

import os

import ray

from ..runtime import set_num_threads


def use_reserved_processors() -> None:
    """In a worker of Ray, use as many threads as it has processors reserved: other workers have the rest."""
    if "FASTRNN_NUM_THREADS" in os.environ or not ray.is_initialized():
        return
    context = ray.get_runtime_context()
    if context.get_actor_id() is not None or context.get_task_id() is not None:
        set_num_threads(max(1, int(context.get_assigned_resources().get("CPU", 1))))
