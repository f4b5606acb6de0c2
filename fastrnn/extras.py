"""Packages that some commands need besides NumPy and SciPy, and the message if one is missing."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import util


def missing(modules: Iterable[str]) -> list[str]:
    """The names of top-level modules that are not installed; nothing is imported."""
    return [module for module in modules if util.find_spec(module) is None]


def require(modules: Iterable[str], user: str, extra: str) -> None:
    """Check that what `user` needs is installed.

    Parameters
    ----------
    modules : names that Python imports
    user : what needs them, at the beginning of the message
    extra : the extra of ``pyproject.toml`` that installs them

    Raises
    ------
    ModuleNotFoundError
        Modules are missing; the message names their packages and the extra.

    Examples
    --------
    >>> require(["numpy"], "the demo", "demo")
    >>> require(["numpy", "not_there"], "it", "demo")
    Traceback (most recent call last):
    ModuleNotFoundError: it needs the package not-there, not installed (extra 'demo': pip install '.[demo]' in a clone)
    """
    if names := [module.replace("_", "-") for module in missing(modules)]:
        packages = f"the package {names[0]}" if len(names) == 1 else f"the packages {' and '.join(names)}"
        raise ModuleNotFoundError(f"{user} needs {packages}, not installed ({cure(extra)})")


def cure(extra: str) -> str:
    """How to install an extra: fastrnn is in no package index, so from a clone."""
    return f"extra {extra!r}: pip install '.[{extra}]' in a clone"
