"""Objects that never change, so that threads may share them."""

from __future__ import annotations

from typing import Any, Self


class Immutable:
    """Attributes can be set until `_frozen` is True; copies are the object itself."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute during construction; later changes would not match what the engine was built with."""
        if getattr(self, "_frozen", False):
            raise AttributeError(f"{name} cannot be set: a {type(self).__name__} is immutable")
        object.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} cannot be deleted: a {type(self).__name__} is immutable")

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self
