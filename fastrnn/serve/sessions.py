"""The sessions of one model: of sequence ids and of WebSockets; their expiry; their file between processes."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .batcher import Batcher, Channel
from .metrics import Metrics
from .models import ServedModel
from .options import Options
from .refusals import Refusal

log = logging.getLogger("fastrnn.serve")

#: A sequence's id: a number and its text are different ids.
SequenceId = int | str

Key = tuple[str, SequenceId]  # of a tenant


class Sessions:
    """All channels of one model. Each of them takes one of `max_sessions` places, from its first request to its end."""

    def __init__(self, served: ServedModel, batcher: Batcher, options: Options, metrics: Metrics) -> None:
        self.served, self.batcher, self.options = served, batcher, options
        self._sequences: dict[Key, Channel] = {}
        self._expired: OrderedDict[Key, None] = OrderedDict()  # the last ones, to tell why they are not there
        self._order: OrderedDict[Channel, Callable[[], None]] = (
            OrderedDict()
        )  # least recently used first -> how to close
        self._sweeping: asyncio.TimerHandle | None = None
        self._metrics = metrics.of(served.name)
        self._metrics.state_bytes = served.pool.nbytes if served.pool is not None else 0

    def __len__(self) -> int:
        return len(self._order)

    def open(self, name: str, undoes: bool, close: Callable[[], None]) -> Channel:
        """A new channel.

        Parameters
        ----------
        name, undoes : as of Channel
        close : called when it has not been used for too long; calls `remove`

        Raises
        ------
        Refusal
            All places are taken.
        """
        self._sweep()
        if len(self._order) >= self.options.max_sessions:
            self._metrics.refused += 1
            raise Refusal("too_many", f"all {self.options.max_sessions} sessions of model {self.served.name} are taken")
        channel = Channel(name, undoes)
        channel.used = asyncio.get_running_loop().time()
        channel.on_open, channel.on_close = self._count_open, self._count_close
        channel.on_idle = self._touch
        self._order[channel] = close
        self._arm()
        return channel

    def remove(self, channel: Channel) -> None:
        """Give up a channel's place. Its session is closed when none of its requests runs."""
        if self._order.pop(channel, None) is not None:
            channel.on_idle = self.batcher.close_session
            if not channel.jobs:
                self.batcher.close_session(channel)

    def _count_open(self, channel: Channel) -> None:
        self._metrics.opened += 1
        self._metrics.live += 1

    def _count_close(self, channel: Channel) -> None:
        self._metrics.live -= 1

    def _touch(self, channel: Channel) -> None:
        if channel in self._order:
            self._order.move_to_end(channel)

    # Sequences

    def sequence(self, tenant: str, sequence_id: SequenceId, start: bool) -> Channel:
        """The channel of a sequence; a new one if it starts.

        Raises
        ------
        Refusal
            It is not there and does not start, or all places are taken.
        """
        self._sweep()
        key = tenant, sequence_id
        channel = self._sequences.get(key)
        if channel is not None:
            return channel
        name = f"sequence {sequence_id!r}"
        if not start:
            if key in self._expired:
                raise Refusal("not_found", f"{name} has expired: it was not used for {self.options.idle_seconds:g} s")
            raise Refusal("not_found", f"{name} is not known: it has not started, or has ended")
        channel = self.open(name, True, lambda: self._expire(key))
        channel.on_idle = lambda channel: self._rest(key, channel)
        self._sequences[key] = channel
        self._expired.pop(key, None)
        return channel

    def _rest(self, key: Key, channel: Channel) -> None:
        """All requests of a sequence have ended: it stays, or has not begun, or is over."""
        if channel.session is None:
            del self._sequences[key]
            self.remove(channel)
        else:
            self._touch(channel)

    def _expire(self, key: Key) -> None:
        channel = self._sequences.pop(key)
        self._expired[key] = None
        if len(self._expired) > self.options.max_sessions:
            self._expired.popitem(last=False)
        self.remove(channel)

    # Expiry

    def _sweep(self) -> None:
        """Close what has not been used for too long."""
        now = asyncio.get_running_loop().time()
        idle = []
        for channel, close in self._order.items():
            if channel.jobs:
                continue
            if now - channel.used < self.options.idle_seconds:
                break
            idle.append(close)
        for close in idle:
            self._metrics.expired += 1
            close()

    def _arm(self) -> None:
        """Sweep again when the next one may have been idle for long enough."""
        if self._sweeping is None and self._order:
            loop = asyncio.get_running_loop()
            oldest = next((channel.used for channel in self._order if not channel.jobs), loop.time())
            pause = max(oldest + self.options.idle_seconds - loop.time(), min(0.05, self.options.idle_seconds / 4))
            self._sweeping = loop.call_later(pause, self._sweep_again)

    def _sweep_again(self) -> None:
        self._sweeping = None
        self._sweep()
        self._arm()

    def stop(self) -> None:
        """Stop expiring."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        self._sweeping = None

    # From one process to the next

    def _path(self, directory: Path) -> Path:
        return directory / f"{self.served.name}-{self.served.fingerprint:016x}.sessions"

    def save(self, directory: Path) -> int:
        """Write the sequences to a file of their model's fingerprint; returns how many."""
        sessions = [
            {"tenant": tenant, "id": sequence_id, "snapshot": base64.b64encode(channel.session.snapshot()).decode()}
            for (tenant, sequence_id), channel in self._sequences.items()
            if channel.session is not None
        ]
        path = self._path(directory)
        content = json.dumps({"model": self.served.name, "sessions": sessions})
        temporary = path.with_suffix(f".{os.getpid()}")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        return len(sessions)

    def restore(self, directory: Path, tenants: list[str]) -> int:
        """Go on with what `save` wrote, and remove the file: its states are only right until then. Returns how many.

        Sequences of tenants that are no more, and what does not fit, are left out; a line in the log counts the latter.
        """
        path = self._path(directory)
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return 0
        path.unlink()
        count, faults = 0, []
        try:
            entries = list(json.loads(content)["sessions"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            entries, faults = [], [str(error)]
        for entry in entries:
            try:
                count += self._restore_one(entry, tenants)
            except (ValueError, KeyError, TypeError, Refusal) as error:
                faults.append(str(error))
        if faults:
            fields = {"file": str(path), "faults": len(faults), "error": faults[0]}
            log.error("sessions not restored", extra={"fields": fields})
        return count

    def _restore_one(self, entry: Any, tenants: list[str]) -> bool:
        tenant, sequence_id = entry["tenant"], entry["id"]
        snapshot = base64.b64decode(entry["snapshot"], validate=True)
        if tenant not in tenants or not isinstance(sequence_id, int | str) or (tenant, sequence_id) in self._sequences:
            return False
        self.resume(tenant, sequence_id, snapshot)
        return True

    # From one server to another

    def held(self) -> dict[Key, Channel]:
        """The sequences that are here."""
        return dict(self._sequences)

    def channel(self, tenant: str, sequence_id: SequenceId) -> Channel | None:
        """The channel of a sequence, if it is here."""
        return self._sequences.get((tenant, sequence_id))

    def has_expired(self, tenant: str, sequence_id: SequenceId) -> bool:
        """Whether a sequence was here and has expired."""
        return (tenant, sequence_id) in self._expired

    def release(self, tenant: str, sequence_id: SequenceId) -> bytes:
        """Give up a sequence of which no request runs; returns its snapshot."""
        channel = self._sequences.pop((tenant, sequence_id))
        assert channel.session is not None and not channel.jobs
        snapshot = channel.session.snapshot()
        self.remove(channel)
        return snapshot

    def resume(self, tenant: str, sequence_id: SequenceId, snapshot: bytes) -> None:
        """Go on with a sequence that is not here.

        Raises
        ------
        ValueError
            The snapshot is damaged, or of another model.
        Refusal
            All places are taken.
        """
        assert self.served.pool is not None
        session = self.served.pool.open(snapshot)
        try:
            channel = self.sequence(tenant, sequence_id, True)
        except Refusal:
            session.close()
            raise
        channel.session = session
        channel.on_open(channel)
