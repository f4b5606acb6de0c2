"""A server that is one of several: its sessions move when replicas come and go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from numpy.typing import NDArray

from ..serve.batcher import Channel
from ..serve.inference import Request
from ..serve.options import Options
from ..serve.refusals import Refusal
from ..serve.service import Entry, Pending, Service
from ..serve.sessions import SequenceId
from .routing import HEADER, SessionRouter, listen, session_id
from .snapshots import Saved, SnapshotKey, SnapshotStore, now

log = logging.getLogger("fastrnn.ray")

#: Routers hear of a change one after the other, within some tenths of a second. A request that came by an older state
#: of things waits so long for this replica to hear of it, and for the other one to save the session.
MOVE_SECONDS = 3.0

#: How long after a change a session that is not here may still be on its way.
RECENT_SECONDS = 30.0

PAUSE = 0.02  # seconds between looks at what other processes may change

Key = tuple[Entry, str, SequenceId]


class Arrivals:
    """The requests of a sequence that wait for it, in their order."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.count = 0


class ReplicaService(Service):
    """A service that answers a sequence only while it is the one that Ray routes the sequence to.

    When the set of replicas changes, each one gives up the sequences that are no longer its own: it saves them if there
    is a place for snapshots, and forgets them otherwise. The replica that gets a sequence's next request goes on from
    the snapshot, or refuses with 404. So a sequence has one state, in one place, and is never answered from another.

    Parameters
    ----------
    tag : this replica, as `SessionRouter` names it
    snapshots : None: sessions that move are refused
    """

    def __init__(
        self, models: Mapping[str, Any], options: Options | None, tag: str, snapshots: SnapshotStore | None
    ) -> None:
        super().__init__(models, options)
        self.tag, self.snapshots = tag, snapshots
        self._router: SessionRouter | None = None
        self._joined = self._left = False
        self._changed = -RECENT_SECONDS  # by the event loop's clock
        self._sessions: weakref.WeakKeyDictionary[Channel, str] = weakref.WeakKeyDictionary()  # the ids of routing
        self._moving: dict[Key, Arrivals] = {}
        self._giving_up: asyncio.Task[None] | None = None
        self._forgetting: set[asyncio.Task[None]] = set()
        self._stop_listening: Callable[[], None] = _nothing

    @property
    def ready(self) -> bool:
        return not self.draining and not self._left

    def restore(self) -> None:
        loop = asyncio.get_running_loop()

        def changed(router: SessionRouter) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended
                loop.call_soon_threadsafe(self._on_change, router)

        self._stop_listening = listen(changed)
        super().restore()

    async def drain(self) -> None:
        await super().drain()
        if self._giving_up is not None:
            await self._giving_up
        await self._save([key for key in self._held() if not self._channel(key).jobs])

    def stop(self) -> None:
        self._stop_listening()
        self._stop_listening = _nothing
        super().stop()

    # Changes of the set of replicas

    def _on_change(self, router: SessionRouter) -> None:
        self._router = router
        self._changed = asyncio.get_running_loop().time()
        member = self.tag in router.members()
        self._left = self._joined and not member
        self._joined |= member
        if self._giving_up is None:
            self._giving_up = asyncio.ensure_future(self._give_up())

    async def _give_up(self) -> None:
        """Give up what is no longer ours, until nothing is left of it."""
        try:
            while True:
                moved = [key for key in self._held() if not self._is_ours(self._sessions.get(self._channel(key)))]
                idle = [key for key in moved if not self._channel(key).jobs]
                if idle:
                    await self._save(idle)
                if self._left:
                    for say_goodbye in list(self.on_drain):
                        say_goodbye()
                if self.draining or (not self._left and len(idle) == len(moved)):
                    return
                await asyncio.sleep(PAUSE)
        finally:
            self._giving_up = None

    def _is_ours(self, session: str | None) -> bool:
        if self._router is None or session is None:
            return True
        return self._router.owner(session) == self.tag

    def _held(self) -> list[Key]:
        return [
            (entry, tenant, sequence_id)
            for entry in self.entries.values()
            for tenant, sequence_id in entry.sessions.held()
        ]

    def _channel(self, key: Key) -> Channel:
        entry, tenant, sequence_id = key
        channel = entry.sessions.channel(tenant, sequence_id)
        assert channel is not None
        return channel

    async def _save(self, keys: list[Key]) -> None:
        """Give up sequences of which no request runs."""
        clock = asyncio.get_running_loop().time()
        saved = {}
        for key in keys:
            used = now() - (clock - self._channel(key).used)
            entry, tenant, sequence_id = key
            saved[_snapshot_key(key)] = Saved(entry.sessions.release(tenant, sequence_id), used)
        if saved:
            await self._write(saved)

    async def _write(self, saved: Mapping[SnapshotKey, Saved]) -> None:
        """Write snapshots, if there is a place for them. What cannot be written is lost: its next request gets 404."""
        if self.snapshots is None:
            return
        try:
            await asyncio.to_thread(self.snapshots.put, saved)
        except Exception:
            log.exception("%d sessions are lost: their snapshots could not be written", len(saved))

    # Requests

    def submit(self, entry: Entry, request: Request, tenant: str, deadline: float | None = None) -> Pending:
        sequence_id = request.parameters.get("sequence_id")
        if not isinstance(sequence_id, int | str):
            return super().submit(entry, request, tenant, deadline)
        session = session_id.get()
        if session is None:
            raise Refusal("invalid", f"sequences need the header {HEADER}, the same for all requests of a sequence")
        key = entry, tenant, sequence_id
        if key not in self._moving and self._is_ours(session) and entry.sessions.channel(tenant, sequence_id):
            return self._submit(key, session, request, deadline)
        self.check_ready()
        return Moving(self, key, session, request, deadline)

    def _submit(self, key: Key, session: str, request: Request, deadline: float | None) -> Pending:
        entry, tenant, sequence_id = key
        pending = super().submit(entry, request, tenant, deadline)
        channel = entry.sessions.channel(tenant, sequence_id)
        if channel is not None:
            self._sessions[channel] = session
        return pending

    async def arrive(self, key: Key, session: str, request: Request, deadline: float | None) -> Pending:
        """Wait until a sequence is here, and submit its request. Requests of one sequence keep their order.

        Raises
        ------
        Refusal
            It is not ours, or is not anywhere.
        """
        arrivals = self._moving.setdefault(key, Arrivals())
        arrivals.count += 1
        try:
            async with arrivals.lock:
                await self._settle(key, session, request)
                pending = self._submit(key, session, request, deadline)
                self._forget_later(key, request)
                return pending
        finally:
            arrivals.count -= 1
            if arrivals.count == 0:
                del self._moving[key]

    async def _settle(self, key: Key, session: str, request: Request) -> None:
        entry, tenant, sequence_id = key
        loop = asyncio.get_running_loop()
        until = loop.time() + MOVE_SECONDS
        while not self._is_ours(session):
            if loop.time() > until:
                raise Refusal("unavailable", f"sequence {sequence_id!r} is moving to another replica")
            await asyncio.sleep(PAUSE)
        if entry.sessions.channel(tenant, sequence_id) is not None or entry.served.pool is None:
            return
        if request.parameters.get("sequence_start") is True:
            if self.snapshots is not None:
                await self._look_up(self.snapshots.forget, key)
            return
        if self.snapshots is None or entry.sessions.has_expired(tenant, sequence_id):
            return
        while (saved := await self._look_up(self.snapshots.take, key)) is None:
            if loop.time() > min(until, self._changed + RECENT_SECONDS):
                raise Refusal(
                    "not_found",
                    f"sequence {sequence_id!r} is not known: it has not started, has ended, or its replica was lost",
                )
            await asyncio.sleep(PAUSE)
        if now() - saved.used > self.options.idle_seconds:
            idle = f"it was not used for {self.options.idle_seconds:g} s"
            raise Refusal("not_found", f"sequence {sequence_id!r} has expired: {idle}")
        try:
            entry.sessions.resume(tenant, sequence_id, saved.snapshot)
        except ValueError as error:
            raise Refusal("not_found", f"sequence {sequence_id!r} is lost: {error}") from None
        except Refusal:
            await self._write({_snapshot_key(key): saved})
            raise

    def _forget_later(self, key: Key, request: Request) -> None:
        """Forget the snapshot of a sequence that has begun anew once more, if there was a change just now.

        Its former replica may hear of the change only after that, and write the state that is no more.
        """
        entry, tenant, sequence_id = key
        channel = entry.sessions.channel(tenant, sequence_id)
        loop = asyncio.get_running_loop()
        recent = loop.time() < self._changed + RECENT_SECONDS
        if self.snapshots is None or not recent or request.parameters.get("sequence_start") is not True:
            return
        forget = self.snapshots.forget

        async def look_up() -> None:
            with contextlib.suppress(Refusal):
                await self._look_up(forget, key)

        def forget_again() -> None:
            if channel is not None and entry.sessions.channel(tenant, sequence_id) is channel:
                task = asyncio.ensure_future(look_up())
                self._forgetting.add(task)
                task.add_done_callback(self._forgetting.discard)

        loop.call_later(RECENT_SECONDS, forget_again)

    async def _look_up(self, function: Callable[[SnapshotKey], Saved | None], key: Key) -> Saved | None:
        """What a function of the store returns for a sequence.

        Raises
        ------
        Refusal
            The snapshot is damaged, or the store does not answer.
        """
        _, _, sequence_id = key
        try:
            return await asyncio.to_thread(function, _snapshot_key(key))
        except ValueError as error:
            raise Refusal("not_found", f"sequence {sequence_id!r} is lost: {error}") from None
        except Exception:  # of any file system
            log.exception("the snapshots cannot be reached")
            raise Refusal(
                "unavailable",
                f"sequence {sequence_id!r} may have a snapshot, which cannot be reached: the log says why",
            ) from None


def _nothing() -> None:
    pass


def _snapshot_key(key: Key) -> SnapshotKey:
    entry, tenant, sequence_id = key
    return SnapshotKey(entry.served.name, entry.served.fingerprint, tenant, sequence_id)


class Moving(Pending):
    """A request of a sequence that is not here, or not yet."""

    def __init__(
        self, service: ReplicaService, key: Key, session: str, request: Request, deadline: float | None
    ) -> None:
        self._task = asyncio.ensure_future(service.arrive(key, session, request, deadline))
        self._pending: Pending | None = None

    @property
    def done(self) -> bool:
        return False

    async def results(self) -> dict[str, NDArray[Any]]:
        try:
            self._pending = await self._task
        except asyncio.CancelledError:
            own = asyncio.current_task()
            if own is not None and own.cancelling():
                raise
            raise Refusal("cancelled", "the client is gone") from None
        self.prepared = self._pending.prepared
        return await self._pending.results()

    def cancel(self) -> None:
        if self._pending is not None:
            self._pending.cancel()
        else:
            self._task.cancel()
