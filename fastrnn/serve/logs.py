"""The log: JSON lines on stderr."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

log = logging.getLogger("fastrnn.serve")


#: What uvicorn reports as an error although nothing is wrong with the server: a handshake was refused with an HTTP
#: status, or a client sent a text that is not UTF-8.
NO_ERRORS = ("ASGI callable returned without completing handshake.", "Invalid UTF-8 sequence received from client.")


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, message, and the fields of ``extra={"fields": {...}}``."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, Any] = {
            "time": f"{seconds}.{int(record.msecs):03}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def set_up(level: str) -> None:
    """Write the log of the server, and warnings of its libraries, to stderr."""
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines())
    handler.addFilter(lambda record: record.getMessage() not in NO_ERRORS)
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    log.setLevel(level.upper())
