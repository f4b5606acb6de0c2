"""The server of `fastrnn.serve` as an application of Ray Serve."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application
from ray.serve._private.constants import RAY_SERVE_ENABLE_HA_PROXY
from ray.serve.config import RequestRouterConfig

from ..files.load import load
from ..serve.options import Options
from .haproxy import MOST_REQUESTS, with_request_router
from .model_files import fetch
from .reserved import use_reserved_processors
from .routing import SessionHeader, SessionRouter


def application(
    models: Mapping[str, Any],
    *,
    num_replicas: int | str = 1,
    snapshots: str | os.PathLike[str] | None = None,
    options: Options | None = None,
    deployment: Mapping[str, Any] | None = None,
) -> Application:
    """The application that serves models, for ``ray.serve.run`` or Ray Serve's configuration files.

    Each replica is the server of ``fastrnn serve``: REST and WebSocket, limits, metrics and refusals. Ray routes a
    request by its header ``x-session-id``, which all requests of a sequence need. A WebSocket stays where it is. With
    ``RAY_SERVE_ENABLE_HA_PROXY=1`` in the environment of the whole cluster, HAProxy carries the requests.

    Parameters
    ----------
    models : mapping
        Files by name, on any file system that fsspec knows, or layers and Sequentials.
    num_replicas : int or "auto"
        As of Ray Serve.
    snapshots : str or path
        A directory that all replicas reach, or its address. Sequences whose replica changes, because replicas come,
        are drained or updated, go on from there. None: they are refused with 404.
    options : fastrnn.serve.Options
        Limits and access of each replica.
    deployment : mapping
        More options of Ray Serve's deployments, such as ``ray_actor_options`` or ``autoscaling_config``.

    Raises
    ------
    TypeError, ValueError
        An option has a value that it cannot have.
    """
    if not isinstance(models, Mapping) or not models:
        raise TypeError(f"models is {models!r}, wanted files by name")
    if options is not None and options.snapshot_dir is not None:
        raise ValueError(f"options.snapshot_dir is {options.snapshot_dir}, wanted None: give snapshots instead")
    sources = {
        name: os.fspath(source) if isinstance(source, os.PathLike) else source for name, source in models.items()
    }
    directory = None if snapshots is None else os.fspath(snapshots)

    def build() -> Any:
        return _replica_application(sources, options, directory)

    settings: dict[str, Any] = {
        "name": "fastrnn",
        "num_replicas": num_replicas,
        "max_ongoing_requests": MOST_REQUESTS,
        "graceful_shutdown_wait_loop_s": 0.2,
        "request_router_config": RequestRouterConfig(
            request_router_class=SessionRouter, request_router_kwargs={"num_fallback_replicas": 0}
        ),
    }
    made = serve.deployment(serve.ingress(build)()).options(**settings | dict(deployment or {}))
    return with_request_router(made.bind()) if RAY_SERVE_ENABLE_HA_PROXY else made.bind()


def build(arguments: Mapping[str, Any]) -> Application:
    """The application of a configuration file of Ray Serve: ``import_path: fastrnn.ray.deployment:build``.

    Parameters
    ----------
    arguments : its ``args``: as of `application`; ``options`` is a mapping
    """
    given = dict(arguments)
    if "options" in given:
        given["options"] = Options(**given["options"])
    return application(**given)


def _replica_application(models: Mapping[str, Any], options: Options | None, snapshots: str | None) -> Any:
    """The ASGI application of a replica, in its process."""
    from ..serve.rest import application_of
    from .replica import ReplicaService
    from .snapshots import SnapshotStore

    use_reserved_processors()
    context = serve.get_replica_context()
    loaded = {name: load(fetch(model)) if isinstance(model, str) else model for name, model in models.items()}
    store = None if snapshots is None else SnapshotStore(snapshots)
    service = ReplicaService(loaded, options, context.replica_tag, store)
    # A handle to its own deployment makes the router that says which sessions are this replica's.
    serve.get_deployment_handle(context.deployment, context.app_name).options(stream=True)
    return SessionHeader(application_of(service))
