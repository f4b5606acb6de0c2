"""Who may use a server: tokens, and the origins of web pages."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import urlsplit

from .refusals import Refusal

#: Whose sessions are meant where no token is needed.
NOBODY = ""

SUBPROTOCOL, BEARER = "fastrnn", "bearer."


def read_tokens(path: Path) -> tuple[str, ...]:
    """The tokens of a file, one a line; lines that begin with # are ignored.

    Raises
    ------
    ValueError
        There is none, or one could not be sent in a header.
    OSError
        The file cannot be read.
    """
    try:
        lines = [line.strip() for line in path.read_text("ascii").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"{path} has a token that is not ASCII") from None
    tokens = tuple(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not tokens:
        raise ValueError(f"{path} has no token, wanted one a line")
    for token in tokens:
        if not token.isprintable() or " " in token:
            raise ValueError(f"{path} has a token with a space or control character")
    return tokens


class Access:
    """Checks tokens and origins. A tenant is whoever has one token."""

    def __init__(self, tokens: Iterable[str], allow_origins: Iterable[str]) -> None:
        self._digests = [_digest(token) for token in tokens]
        self._origins = {origin.rstrip("/").lower() for origin in allow_origins}

    def tenants(self) -> list[str]:
        """All that there can be."""
        return [digest.hex() for digest in self._digests] or [NOBODY]

    def tenant(self, token: str | None) -> str:
        """The tenant with this token. Every token is compared, in constant time.

        Raises
        ------
        Refusal
            No tenant has it.
        """
        if not self._digests:
            return NOBODY
        if token is None:
            raise Refusal("unauthorized", "a token is needed: Authorization: Bearer TOKEN")
        given, found = _digest(token), None
        for digest in self._digests:
            if hmac.compare_digest(digest, given):
                found = digest
        if found is None:
            raise Refusal("unauthorized", "the token is not known")
        return found.hex()

    def check_origin(self, origin: str | None, host: str | None) -> None:
        """Check where a web page is from that opens a WebSocket; other clients send no origin.

        Raises
        ------
        Refusal
            Another host, which the options do not allow.
        """
        if origin is None or "*" in self._origins or origin.rstrip("/").lower() in self._origins:
            return
        try:
            parts = urlsplit(origin)
            default = {"http": 80, "https": 443}.get(parts.scheme)
            wanted = urlsplit(f"//{host or ''}")
            same = (parts.hostname, parts.port or default) == (wanted.hostname, wanted.port or default)
        except ValueError:
            same = False
        if not same or not parts.hostname:
            raise Refusal("foreign", f"the origin {origin[:100]!r} is not allowed")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def token_of_header(authorization: str | None) -> str | None:
    """The token of an Authorization header."""
    scheme, _, token = (authorization or "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def token_of_subprotocols(subprotocols: Iterable[str]) -> str | None:
    """The token that a browser sends with a WebSocket: ``bearer.`` and its base64url without padding."""
    for name in subprotocols:
        if name.startswith(BEARER):
            text = name.removeprefix(BEARER)
            try:
                return base64.b64decode(text + "=" * (-len(text) % 4), b"-_", validate=True).decode("ascii")
            except (binascii.Error, ValueError):
                return None
    return None
