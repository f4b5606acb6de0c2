"""Checks of output files and directories before a command starts its work."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


def check_file(path: Path, option: str) -> None:
    """Check that a file can be written, without changing an existing file.

    Parameters
    ----------
    path : the file
    option : the option that named it, at the beginning of the message

    Raises
    ------
    OSError
        It is a directory, its directory is missing, or it cannot be opened for writing.
    """
    folder = path.parent
    if os.path.isdir(path):
        raise IsADirectoryError(f"{option} {path} is a directory, wanted a file")
    if not os.path.isdir(folder):
        raise FileNotFoundError(f"{option} {path}: there is no directory {folder}")
    is_there = os.path.lexists(path)
    if is_there and os.path.exists(path) and not os.path.isfile(path):
        return  # a device or a pipe: if it were opened and closed here, its reader would see the end of the file
    try:
        with open(path, "ab"):
            pass
    except OSError as error:
        raise type(error)(f"{option} {path}: {error.strerror}") from None
    if not is_there:
        os.remove(path)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes `path`'s place when the block ends, and is removed if the block raises.

    What is no plain file, such as a device or a pipe, is written to as it is.
    """
    target = os.path.realpath(path)  # a link stays, and what it points to is replaced
    if os.path.exists(target) and not os.path.isfile(target):
        with open(target, "wb") as file:
            yield file
        return
    folder, name = os.path.split(target)
    temporary = os.path.join(folder, f".{name}.{os.getpid()}")
    try:
        with open(temporary, "xb") as file:
            yield file
        os.replace(temporary, target)
    except FileExistsError:
        raise
    except BaseException:
        os.remove(temporary)
        raise


def make_directory(path: Path, option: str) -> None:
    """Make a directory and its parents if they do not exist, and check that files can be made in it.

    Raises
    ------
    OSError
        It is a file, or it cannot be made or written to.
    """
    if os.path.exists(path) and not os.path.isdir(path):
        raise NotADirectoryError(f"{option} {path} is a file, wanted a directory")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise type(error)(f"{option} {path}: {error.strerror}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise PermissionError(f"{option} {path}: the directory is not writable")
