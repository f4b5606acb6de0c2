"""Snapshots of sessions between replicas: a file each, on any file system that fsspec knows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import struct
import tempfile
import time
import uuid
from collections.abc import Mapping
from typing import NamedTuple

import fsspec
from fsspec.implementations.local import LocalFileSystem

from ..serve.sessions import SequenceId

_HEADER = struct.Struct("<4sdI")  # the format, when the session was last used, the length of the snapshot
_FORMAT = b"frs1"


class SnapshotKey(NamedTuple):
    """Whose snapshot it is."""

    model: str
    fingerprint: int
    tenant: str
    sequence_id: SequenceId


class Saved(NamedTuple):
    """A snapshot, and when its session was last used, in seconds since 1970."""

    snapshot: bytes
    used: float


class SnapshotStore:
    """Where sessions are between the replica that gives them up and the one that goes on with them.

    A snapshot is right until the session goes on, so whoever reads one takes it away. On a local or NFS directory
    that is a rename, and exactly one reader gets it.

    Parameters
    ----------
    path : a directory, which is made, or its address

    Raises
    ------
    OSError
        The directory cannot be written to. Of other file systems, that is found when sessions move.
    """

    def __init__(self, path: str) -> None:
        self._filesystem, self._root = fsspec.core.url_to_fs(path)
        self._local = isinstance(self._filesystem, LocalFileSystem)
        if self._local:
            os.makedirs(self._root, exist_ok=True)
            tempfile.TemporaryFile(dir=self._root).close()

    def _path(self, key: SnapshotKey) -> str:
        name = hashlib.sha256(json.dumps([key.tenant, key.sequence_id]).encode()).hexdigest()
        return f"{self._root}/{key.model}-{key.fingerprint:016x}/{name}"

    def put(self, snapshots: Mapping[SnapshotKey, Saved]) -> None:
        """Write snapshots, in place of older ones."""
        contents = {
            self._path(key): _HEADER.pack(_FORMAT, saved.used, len(saved.snapshot)) + saved.snapshot
            for key, saved in snapshots.items()
        }
        for directory in {path.rpartition("/")[0] for path in contents}:
            self._filesystem.makedirs(directory, exist_ok=True)
        if not self._local:
            self._filesystem.pipe(contents)  # several at a time; a reader sees a whole object or none
            return
        for path, content in contents.items():
            temporary = f"{path}.{uuid.uuid4().hex}"
            self._filesystem.pipe_file(temporary, content)
            self._filesystem.mv(temporary, path)

    def take(self, key: SnapshotKey) -> Saved | None:
        """Read a snapshot and remove it; None if there is none.

        Raises
        ------
        ValueError
            It is damaged.
        """
        taken = path = self._path(key)
        try:
            if self._local:
                taken = f"{path}.{uuid.uuid4().hex}"
                self._filesystem.mv(path, taken)
            content = self._filesystem.cat_file(taken)
            self._filesystem.rm_file(taken)
        except FileNotFoundError:
            return None
        if len(content) < _HEADER.size:
            raise ValueError(f"the snapshot has {len(content)} bytes")
        magic, used, length = _HEADER.unpack_from(content)
        if magic != _FORMAT or length != len(content) - _HEADER.size:
            raise ValueError(f"the snapshot has {len(content)} bytes and begins with {content[:4]!r}")
        return Saved(content[_HEADER.size :], used)

    def forget(self, key: SnapshotKey) -> None:
        """Remove a snapshot, if there is one: its session begins anew."""
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(self._path(key))


def now() -> float:
    """The time of `Saved.used`, which clocks of several machines share."""
    return time.time()
