"""The options of a server, their defaults, and the flags of ``fastrnn serve``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Options:
    """Limits and access of a server. Limits are of each model.

    Raises
    ------
    TypeError, ValueError
        An option has a value that it cannot have.
    """

    max_queue: int = field(default=256, metadata={"help": "requests that wait; more get 429"})
    max_sessions: int = field(default=1024, metadata={"help": "open sessions; more get 429"})
    max_chunk_steps: int = field(default=16384, metadata={"help": "steps of a row of a request; more get 413"})
    max_body_bytes: int = field(
        default=8 << 20, metadata={"help": "bytes of a request, and of the tensors of its answer; more get 413"}
    )
    max_batch_rows: int = field(
        default=256, metadata={"help": "rows that run together, and rows of a request; more get 413"}
    )
    max_batch_steps: int = field(default=64, metadata={"help": "steps of a row that run before the others' turn"})
    max_delay_us: int = field(default=0, metadata={"help": "microseconds that a batch waits for more rows", "least": 0})
    idle_seconds: float = field(default=300.0, metadata={"help": "after which a session expires that is not used"})
    tokens: tuple[str, ...] = ()
    allow_origins: tuple[str, ...] = ()
    snapshot_dir: Path | None = None

    def __post_init__(self) -> None:
        for option in fields(self):
            value, kind = getattr(self, option.name), option.type
            if kind == "int" and (not isinstance(value, int) or isinstance(value, bool)):
                raise TypeError(f"{option.name} is {value!r}, wanted an integer")
            if kind == "float" and not isinstance(value, int | float):
                raise TypeError(f"{option.name} is {value!r}, wanted a number")
            if kind == "int" and value < (least := option.metadata.get("least", 1)):
                raise ValueError(f"{option.name} is {value}, wanted {least} or more")
            if kind == "float" and not 0 < value < 1e9:
                raise ValueError(f"{option.name} is {value}, wanted a positive number")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags of ``fastrnn serve``."""
    parser.add_argument(
        "models", nargs="+", metavar="NAME=FILE", help="models that fastrnn.load reads, and their names"
    )
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=port, default=8000, help="of REST and WebSocket; 0: a free one (default: %(default)s)"
    )
    parser.add_argument("--grpc-port", type=port, help="of gRPC; 0: a free one (default: 8001, if grpcio is installed)")
    for option in fields(Options):
        if option.type in ("int", "float"):
            parser.add_argument(
                f"--{option.name.replace('_', '-')}",
                type=_number(int if option.type == "int" else float, option.metadata.get("least")),
                default=option.default,
                metavar="N" if option.type == "int" else "S",
                help=f"{option.metadata['help']} (default: %(default)s)",
            )
    parser.add_argument("--token-file", type=Path, metavar="FILE", help="one token a line; requests must bring one")
    parser.add_argument("--no-auth", action="store_true", help="no token is needed, though others reach the host")
    parser.add_argument(
        "--allow-origin",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="of web pages that may open a WebSocket, like https://example.org; * for all; may be repeated",
    )
    parser.add_argument(
        "--snapshot-dir", type=Path, metavar="DIRECTORY", help="where sessions are kept from SIGTERM to the next start"
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="info",
        help="of the log on stderr, JSON lines; debug has a line for each request (default: %(default)s)",
    )


def _number(kind: type[Any], least: int | None) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        value = kind(text)
        if not (0 < value < 1e15 or value == least):
            raise argparse.ArgumentTypeError(f"{text} is given, wanted a positive number")
        return value

    convert.__name__ = kind.__name__  # argparse names it where the text is no number
    return convert


def port(text: str) -> int:
    value = int(text)
    if not 0 <= value < 1 << 16:
        raise argparse.ArgumentTypeError(f"{text} is given, wanted 0 to 65535")
    return value
