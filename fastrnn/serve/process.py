"""``fastrnn serve``: loads models, opens the ports, serves, and stops in order at SIGTERM."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import importlib
import ipaddress
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

from .. import extras
from ..files.load import load
from .access import read_tokens
from .logs import set_up
from .models import ServedModel
from .options import Options

log = logging.getLogger("fastrnn.serve")

HTTP_PORT, GRPC_PORT = 8000, 8001

# Together less than the 30 seconds after which Kubernetes would kill the process, and no session would be saved.
DRAIN_SECONDS = 18  # for requests that run and clients that read slowly, before the server stops all the same
REFUSE_SECONDS = 0.2  # for gRPC calls that are on their way to be refused: those left at the end see CANCELLED
CLOSE_SECONDS = 5  # for connections to close after that


def run(arguments: argparse.Namespace) -> tuple[dict[str, Any], None]:
    """Serve until a signal.

    Raises
    ------
    ValueError, OSError, ModuleNotFoundError
        A flag, file or package does not do; no port is open.
    """
    extras.require(["httptools", "prometheus_client", "starlette", "uvicorn", "websockets"], "fastrnn serve", "serve")
    grpc_port = arguments.grpc_port
    if grpc_port is not None:
        extras.require(["grpc", "google.protobuf"], "--grpc-port", "grpc")
    elif not extras.missing(["grpc", "google"]):
        grpc_port = GRPC_PORT
    if grpc_port == arguments.port != 0:
        raise ValueError(f"--port and --grpc-port are both {grpc_port}, wanted two ports")
    options, models = _options(arguments), _models(arguments.models)
    set_up(arguments.log_level)
    with _no_tracebacks(), asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_serve(models, options, arguments.host, arguments.port, grpc_port))
    return {}, None


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """That of uvloop, if it is installed: its event loop costs less than half of asyncio's."""
    if extras.missing(["uvloop"]):
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = importlib.import_module("uvloop").new_event_loop
    return factory


def _options(arguments: argparse.Namespace) -> Options:
    tokens: tuple[str, ...] = ()
    if arguments.token_file is not None:
        if arguments.no_auth:
            raise ValueError("--token-file and --no-auth are given, wanted one of them")
        tokens = read_tokens(arguments.token_file)
    elif not arguments.no_auth and not _is_loopback(arguments.host):
        raise ValueError(f"--host {arguments.host} is reached by others: wanted --token-file, or --no-auth")
    directory = arguments.snapshot_dir
    if directory is not None and directory.parent.is_dir():
        directory.mkdir(mode=0o700, exist_ok=True)
    if directory is not None and not (directory.is_dir() and os.access(directory, os.W_OK | os.X_OK)):
        raise ValueError(f"--snapshot-dir {directory} is no directory that can be written")
    names = ("max_queue", "max_sessions", "max_chunk_steps", "max_body_bytes", "max_batch_rows", "max_batch_steps")
    limits = {name: getattr(arguments, name) for name in (*names, "max_delay_us", "idle_seconds")}
    return Options(**limits, tokens=tokens, allow_origins=tuple(arguments.allow_origin), snapshot_dir=directory)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _models(texts: list[str]) -> dict[str, Any]:
    """The models of NAME=FILE; one error for all faults."""
    models: dict[str, Any] = {}
    faults = []
    for text in texts:
        name, equals, path = text.partition("=")
        if not equals or not path:
            faults.append(f"{text!r} is given, wanted NAME=FILE")
        elif name in models:
            faults.append(f"{name} is given twice")
        else:
            models[name] = None
            try:
                models[name] = load(path)
                ServedModel(name, models[name], 1)
            except (ImportError, NotImplementedError, OSError, TypeError, ValueError) as error:
                faults.append(f"{text}: {error}")
    if faults:
        raise ValueError("; ".join(faults))
    return models


async def _serve(models: dict[str, Any], options: Options, host: str, port: int, grpc_port: int | None) -> None:
    from . import web_server
    from .rest import application_of
    from .service import Service

    service = Service(models, options)
    stop, kill = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (kill if stop.is_set() else stop).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    listener = _listen(host, port)
    grpc_server = None
    try:
        if grpc_port is not None:
            grpc_server = importlib.import_module(".grpc_server", __package__).make_server(service)
            grpc_port = _add_port(grpc_server, host, grpc_port)
        web = web_server.make_server(application_of(service), options, CLOSE_SECONDS)
        serving = asyncio.ensure_future(web.serve([listener]))
        while not web.started and not serving.done():
            await asyncio.sleep(0.005)
        if serving.done():
            await serving
            raise OSError("the web server has not started")
        if grpc_server is not None:
            await grpc_server.start()
        gc.collect()
        gc.freeze()  # collections need not look at the modules and models again, which takes milliseconds
        _announce(host, listener.getsockname()[1], grpc_port, list(models))
        await _first(stop.wait(), serving)
        killed = asyncio.ensure_future(kill.wait())
        await _first(killed, _stop(service, web, serving, grpc_server))
        if killed.done():
            log.warning("stopped at once")
            sys.stderr.flush()
            os._exit(1)
        killed.cancel()
    finally:
        listener.close()


def _announce(host: str, port: int, grpc_port: int | None, names: list[str]) -> None:
    shown = f"[{host}]" if ":" in host else host
    grpc_part = "" if grpc_port is None else f"grpc {shown}:{grpc_port}, "
    print(f"fastrnn serve: http {shown}:{port}, {grpc_part}models {', '.join(names)}", flush=True)
    fields = {"http_port": port, "grpc_port": grpc_port, "models": names, "pid": os.getpid()}
    log.info("serving", extra={"fields": fields})


async def _first(*awaitables: Any) -> None:
    """Wait for one of them; errors of those that have ended are raised."""
    futures = [asyncio.ensure_future(awaitable) for awaitable in awaitables]
    done, _ = await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future in done:
        future.result()


async def _stop(service: Any, web: Any, serving: asyncio.Future[None], grpc_server: Any) -> None:
    """Finish what was accepted, while new requests are refused as unavailable; then close."""
    log.info("stopping")
    try:
        async with asyncio.timeout(DRAIN_SECONDS):
            await service.drain()
    except TimeoutError:
        log.warning("some clients have not taken their answers", extra={"fields": {"seconds": DRAIN_SECONDS}})
    if grpc_server is not None:
        await asyncio.sleep(REFUSE_SECONDS)
        await grpc_server.stop(CLOSE_SECONDS)
    web.should_exit = True
    await serving
    log.info("stopped")


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens; OSError says where it could not."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)  # by which asyncio sets TCP_NODELAY
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise OSError(f"cannot listen on {host}, port {port}: {error}") from None
    listener.set_inheritable(False)
    return listener


def _add_port(server: Any, host: str, port: int) -> int:
    name = f"[{host}]" if ":" in host else host
    if port:
        _listen(host, port).close()  # gRPC would write lines of its own to stderr
    try:
        bound = int(server.add_insecure_port(f"{name}:{port}"))
    except RuntimeError:
        bound = 0
    if bound == 0:
        raise OSError(f"cannot listen on {host}, port {port}: the address is in use, or not of this machine")
    return bound


@contextlib.contextmanager
def _no_tracebacks() -> Iterator[None]:
    """A port that cannot be opened is reported on one line, though the event loop ends with it."""
    try:
        yield
    except SystemExit as error:
        raise OSError("the web server has not started") from error
