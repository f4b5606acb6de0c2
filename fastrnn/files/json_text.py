"""JSON out of files that may be damaged or hostile."""

from __future__ import annotations

import json
from typing import Any


def parse_json(path: str, text: bytes | str, what: str) -> Any:
    """Parse JSON from a file; names may not occur twice in an object.

    Raises
    ------
    ValueError
        It is no JSON, nests too deep, or has a name twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        result = dict(pairs)
        if len(result) != len(pairs):
            seen: set[str] = set()
            twice = sorted({name for name, _ in pairs if name in seen or seen.add(name)})  # type: ignore[func-returns-value]
            raise ValueError(f"names occur twice: {', '.join(map(repr, twice[:5]))}")
        return result

    try:
        return json.loads(text, object_pairs_hook=unique)
    except RecursionError:
        raise ValueError(f"{path}: {what} nests too deep") from None
    except ValueError as error:  # also of text that is not UTF-8
        raise ValueError(f"{path}: {what} is no JSON that is read: {error}") from None
