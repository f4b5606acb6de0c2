"""Files that every worker needs, from anywhere that fsspec reaches, fetched once a machine."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile

import fsspec
from filelock import FileLock
from fsspec.implementations.local import LocalFileSystem


def fetch(path: str | os.PathLike[str]) -> str:
    """The path of a local file with the content of `path`, which is itself if it is local.

    A file from elsewhere is kept in the directory for temporary files under a name that depends on its address and
    version, so the processes of a machine fetch it once, and a changed one is fetched again.

    Parameters
    ----------
    path : a path, or an address that fsspec knows, such as ``s3://bucket/model.safetensors``

    Raises
    ------
    OSError
        It is not there, or the directory belongs to another user.
    """
    name = os.fspath(path)
    if "://" not in name:
        return name
    filesystem, remote = fsspec.core.url_to_fs(name)
    if isinstance(filesystem, LocalFileSystem):
        return str(remote)
    version = json.dumps(filesystem.info(remote), sort_keys=True, default=str)
    target = os.path.join(_directory(), hashlib.sha256(f"{name}\n{version}".encode()).hexdigest())
    with FileLock(f"{target}.lock"):
        if not os.path.exists(target):
            descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(target))
            os.close(descriptor)
            try:
                filesystem.get_file(remote, temporary)
                os.replace(temporary, target)
            except BaseException:
                os.unlink(temporary)
                raise
    return target


def _directory() -> str:
    """Where fetched files are: of this user alone, because a model decides what is answered."""
    directory = os.path.join(tempfile.gettempdir(), f"fastrnn-{os.getuid()}")
    os.makedirs(directory, mode=0o700, exist_ok=True)
    status = os.lstat(directory)
    if status.st_uid != os.getuid() or not os.path.isdir(directory) or os.path.islink(directory):
        raise PermissionError(f"{directory} is not a directory of this user")
    return directory
