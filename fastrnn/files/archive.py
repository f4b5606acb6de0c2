"""Zip archives out of files that may be damaged or hostile: the directory checked, members read in bounded memory."""

from __future__ import annotations

import os
import zipfile
import zlib
from typing import Any, BinaryIO

#: Bytes of a directory that is read: some 10,000 entries of a usual length. They take some ten times that in memory.
MOST_DIRECTORY = 3 << 18

#: How many times larger than the file all its members together may become. Trained weights shrink to a half or so.
MOST_GROWTH = 100

#: Bytes that may be read into memory at once.
BLOCK = 1 << 18


class _Bounded:
    """A file for `zipfile` that refuses a single read larger than a zip's directory may be."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file, self._most = file, most
        self.seek, self.tell, self.seekable = file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(min(size, self._most + 1) if size >= 0 else self._most + 1)
        if len(data) > self._most:
            raise zipfile.BadZipFile(f"its directory is larger than {self._most} bytes")
        return data


def open_archive(path: str, file: BinaryIO, most_directory: int = MOST_DIRECTORY) -> zipfile.ZipFile:
    """Open a zip of which every member is plain: named once, in its own place, neither encrypted nor a bomb.

    Parameters
    ----------
    path : of the file, for messages
    file : open for reading
    most_directory : bytes that the directory may have

    Raises
    ------
    ValueError
        It is not; the message lists every reason.
    """
    try:
        opened = zipfile.ZipFile(_Bounded(file, most_directory))
        faults = _faults(opened.infolist(), os.fstat(file.fileno()).st_size)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, IndexError, OverflowError) as error:
        raise ValueError(f"{path} is a damaged zip: {error}") from None
    except Exception as error:  # struct.error and whatever else zipfile lets through
        raise ValueError(f"{path} is a damaged zip: {type(error).__name__}: {error}") from None
    if faults:
        raise ValueError(f"{path} is no archive that is read: {'; '.join(faults)}")
    return opened


def members(path: str, file: BinaryIO) -> list[zipfile.ZipInfo]:
    """The members of a zip that was checked, in the directory's order."""
    return open_archive(path, file).infolist()


def _faults(infos: list[zipfile.ZipInfo], file_size: int) -> list[str]:
    faults = []
    names: set[str] = set()
    for info in infos:
        if info.filename in names:
            faults.append(f"{info.filename!r} occurs twice")
        names.add(info.filename)
        if info.flag_bits & 0x1:
            faults.append(f"{info.filename!r} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            faults.append(f"{info.filename!r} is compressed by method {info.compress_type}, wanted none or deflate")
        if info.compress_type == zipfile.ZIP_STORED and info.compress_size != info.file_size:
            faults.append(
                f"{info.filename!r} is not compressed, but has {info.compress_size} bytes for {info.file_size}"
            )
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if info.header_offset < end:
            faults.append(f"{info.filename!r} overlaps the member before it")
        end = info.header_offset + 30 + len(info.orig_filename) + info.compress_size
        if end > file_size:
            faults.append(f"{info.filename!r} ends at byte {end}, but the file has {file_size}")
    total = sum(info.file_size for info in infos)
    if total > MOST_GROWTH * file_size:
        faults.append(f"its members have {total} bytes unpacked, more than {MOST_GROWTH} times the file's {file_size}")
    return faults[:20]


class Member:
    """One member, read from its beginning to its end in blocks; the check sum is compared at the end.

    Everything that may be wrong raises ValueError.
    """

    def __init__(self, path: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> None:
        self._where = f"{path}: {info.filename}"
        self._left = info.file_size
        self._stream: Any = self._guard(lambda: archive.open(info))

    def _guard(self, call: Any) -> Any:
        try:
            return call()
        except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as error:
            raise ValueError(f"{self._where} is damaged: {error}") from None
        except Exception as error:
            if isinstance(error, OSError):
                raise
            raise ValueError(f"{self._where} is damaged: {type(error).__name__}: {error}") from None

    def read(self, size: int) -> bytes:
        """Exactly `size` bytes, at most BLOCK."""
        parts = []
        while size > 0:
            part = self._guard(lambda: self._stream.read(size))  # noqa: B023 - called at once
            if not part:
                raise ValueError(f"{self._where} ends too early")
            parts.append(part)
            size -= len(part)
            self._left -= len(part)
        return b"".join(parts)

    def finish(self) -> None:
        """Check that the end is reached; reading past the last byte compares the check sum."""
        if self._guard(lambda: self._stream.read(1)) or self._left:
            raise ValueError(f"{self._where} has {self._left} bytes more than its array")
        self._stream.close()
