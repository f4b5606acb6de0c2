"""The batcher: requests of one model wait in a queue, and what waits when a batch begins runs together.

Everything but the computation runs on the event loop's thread, so nothing here needs a lock. A request is a job of one
or more rows. A batch has the rows that are in progress and, up to `max_batch_rows`, those that wait; it runs at most
`max_batch_steps` steps of each. So what has begun is in every batch until it ends, and a long row does not delay the
others. A row's bits do not depend on how it is divided, nor on the rows beside it.
"""

from __future__ import annotations

import asyncio
import math
import queue
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..processors import usable_processors
from ..stream_pool import Session, StreamPool
from .metrics import Metrics
from .models import ServedModel
from .options import Options
from .refusals import Refusal, shutting_down

#: Multiply-adds of a batch, about 10 ms: with many rows of a large model each of them runs fewer steps in a batch,
#: and if these would be fewer than LEAST_STEPS, the batch has fewer rows, but not fewer than LEAST_ROWS.
BATCH_WORK = 1e9
LEAST_STEPS = 8
LEAST_ROWS = 16

#: Multiply-adds, about 0.4 ms, up to which a batch runs on the event loop's thread: waking another one and being woken
#: would add a good part of that to the latency of a single session, and most where both share a processor.
INLINE_WORK = 2e7

#: After a long batch on the event loop's thread, the requests that arrived meanwhile are read before the next batch
#: begins: until this many turns of the loop have brought none, but for no longer than the batch took. In each turn the
#: loop accepts one new connection.
READING_TURNS = 3


class Row:
    """A row of a job.

    Attributes
    ----------
    job : deleted when the row has ended: arrays of a job that refers to itself would stay until garbage is collected
    chunk : (T, I), or ids (T,)
    done : steps that have run
    parts : of y, (S, P) each
    session : where it runs, or None
    state : its last state, if asked for
    """

    __slots__ = ("chunk", "done", "job", "parts", "session", "state", "steps")

    def __init__(self, job: Job, chunk: NDArray[Any]) -> None:
        self.job, self.chunk, self.steps = job, chunk, len(chunk)
        self.done = 0
        self.parts: list[NDArray[Any]] = []
        self.session: Session[Any] | None = None
        self.state: dict[str, NDArray[Any]] | None = None


class Channel:
    """The requests of one session, which run in the order of their arrival.

    Parameters
    ----------
    name : for messages
    undoes : whether a refused request leaves the state as it was; if not, it is the last one of the session

    Attributes
    ----------
    session : of the pool; None before it begins and after it has ended
    missing : why there is none
    jobs : those that have not ended; the first one is the next or running one
    used : when it was last used, by the event loop's clock
    on_idle : called when the last job has ended
    on_open, on_close : called when a session begins and ends
    """

    def __init__(self, name: str, undoes: bool) -> None:
        self.name, self.undoes = name, undoes
        self.session: Session[Any] | None = None
        self.missing = f"{name} is not known: it has not started"
        self.jobs: deque[Job] = deque()
        self.used = 0.0
        self.advancing = False
        self.on_idle: Callable[[Channel], None] = _nothing
        self.on_open: Callable[[Channel], None] = _nothing
        self.on_close: Callable[[Channel], None] = _nothing


def _nothing(channel: Channel) -> None:
    pass


class Job:
    """A request.

    Attributes
    ----------
    future : its result is None when all rows have run, or of an action what that returns; or a Refusal
    start, end : whether its session begins anew before it, and ends after it
    begun : whether it was in a batch
    refusal : why it is refused, or None; it ends when no batch runs it
    action : what to do instead of running rows, in its session's turn
    accept : called when all rows have run; raises Refusal to undo it
    """

    __slots__ = (
        *("accept", "action", "begun", "channel", "end", "ended", "future", "left", "refusal", "rows"),
        *("start", "submitted", "timer", "undo", "wants_state"),
    )

    def __init__(
        self,
        chunks: list[NDArray[Any]],
        *,
        channel: Channel | None = None,
        start: bool = False,
        end: bool = False,
        wants_state: bool = False,
        action: Callable[[Session[Any]], Any] | None = None,
        accept: Callable[[Job], None] | None = None,
    ) -> None:
        self.rows = [Row(self, chunk) for chunk in chunks]
        self.left = len(chunks)
        self.channel, self.start, self.end = channel, start, end
        self.wants_state, self.action, self.accept = wants_state, action, accept
        self.future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.begun = self.ended = False
        self.refusal: Refusal | None = None
        self.undo: bytes | None = None
        self.timer: asyncio.TimerHandle | None = None
        self.submitted = 0.0


class Batcher:
    """The queue of one model and the thread that computes its batches."""

    def __init__(self, served: ServedModel, options: Options, metrics: Metrics) -> None:
        self.served, self.options = served, options
        most = max(int(BATCH_WORK / (LEAST_STEPS * served.step_work)), LEAST_ROWS)
        self.most_rows = min(most, options.max_batch_rows)  # of a batch
        self.waiting = 0  # jobs that have not begun
        self.unfinished = 0  # jobs that have not ended
        self._arrivals = 0  # requests that came, refused or not
        self._new: deque[Row] = deque()  # rows that have not begun
        self._continuing: list[Row] = []  # rows in progress, between two batches
        self._running = False
        self._beginning: asyncio.Handle | None = None
        self._delayed = False  # whether it is a timer
        self._room: deque[asyncio.Future[None]] = deque()
        self._idle: asyncio.Event = asyncio.Event()
        self._idle.set()
        self.closed = False
        self._work: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        # With one processor a thread would gain nothing, and every request that arrives would interrupt it. A model
        # without streams computes whole sequences, which may take long.
        self._inline_work = math.inf if usable_processors() == 1 and served.pool is not None else INLINE_WORK
        self._metrics = metrics.of(served.name)

    # Arrival

    @property
    def full(self) -> bool:
        return self.waiting >= self.options.max_queue

    async def room(self) -> None:
        """Wait until the queue is not full."""
        while self.full:
            waiter = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            try:
                await waiter
            except asyncio.CancelledError:
                if waiter.done() and not waiter.cancelled():
                    self._wake()
                raise

    def check_room(self) -> None:
        """Raise Refusal if the queue is full."""
        self._arrivals += 1
        if self.full:
            raise Refusal("too_many", f"{self.waiting} requests of model {self.served.name} are waiting")

    def submit(self, job: Job, deadline: float | None = None) -> None:
        """Add a job to the queue; deadline: by the event loop's clock."""
        if self.closed:
            raise shutting_down()
        loop = asyncio.get_running_loop()
        job.submitted = loop.time()
        self.unfinished += 1
        self._idle.clear()
        self.waiting += 1
        if deadline is not None:
            job.timer = loop.call_at(deadline, self.refuse, job, "late", "the deadline has passed")
        if job.channel is None:
            self._new.extend(job.rows)
            if not job.rows:
                self._complete(job)
        else:
            job.channel.jobs.append(job)
            if job.channel.jobs[0] is job:
                self._advance(job.channel)
        self._schedule()

    def refuse(self, job: Job, kind: str, message: str) -> None:
        """Refuse a job that has not ended: if it runs, then after the batch, and what it has done is undone."""
        if job.refusal is not None or job.ended:
            return
        job.refusal = Refusal(kind, message)
        if job.begun:
            _settle(job)
        else:
            for row in job.rows:
                row.chunk = row.chunk[:0].copy()  # which does not keep the request's body
            self._end(job)

    # Channels

    def _advance(self, channel: Channel) -> None:
        """Go on with the first of a channel's jobs that has not ended."""
        channel.advancing = True
        while channel.jobs:
            job = channel.jobs[0]
            if job.ended:
                channel.jobs.popleft()
            elif not job.start and channel.session is None:
                self.refuse(job, "not_found", channel.missing)
            elif job.action is not None:
                self._act(job, channel)
            else:
                self._new.append(job.rows[0])
                self._schedule()
                break
        channel.advancing = False
        channel.used = asyncio.get_running_loop().time()
        if not channel.jobs:
            channel.on_idle(channel)

    def _act(self, job: Job, channel: Channel) -> None:
        assert job.action is not None and channel.session is not None
        result = None
        try:
            result = job.action(channel.session)
        except ValueError as error:
            job.refusal = Refusal("invalid", str(error))
        self._end(job, result)

    def close_session(self, channel: Channel) -> None:
        """End a channel's session, if it has one."""
        if channel.session is not None:
            channel.session.close()
            channel.session = None
            channel.on_close(channel)

    # Batches

    def _schedule(self, reading: float = 0.0) -> None:
        """Begin a batch when the event loop has handled what has arrived; reading: for how many seconds at most."""
        if self._running or not (self._new or self._continuing):
            return
        missing = self.most_rows - len(self._new)
        waits = self.options.max_delay_us > 0 and missing > 0 and not self._continuing
        if self._beginning is not None:
            if waits or not self._delayed:
                return
            self._beginning.cancel()
        loop = asyncio.get_running_loop()
        self._delayed = waits
        if waits:
            due = self._new[0].job.submitted + self.options.max_delay_us * 1e-6
            self._beginning = loop.call_at(due, self._begin)
        else:
            turns = READING_TURNS if reading > 0 else 0
            self._beginning = loop.call_soon(self._begin, turns, time.perf_counter() + reading, self._arrivals)

    def _begin(self, turns: int = 0, until: float = 0.0, arrivals: int = 0) -> None:
        if turns > 0:
            if self._arrivals != arrivals and time.perf_counter() < until:
                turns = READING_TURNS + 1
            loop = asyncio.get_running_loop()
            self._beginning = loop.call_soon(self._begin, turns - 1, until, self._arrivals)
            return
        self._beginning = None
        batch: list[Row] = []
        for row in self._continuing:
            if row.job.refusal is not None:
                self._abandon(row)
            else:
                batch.append(row)
        self._continuing = []
        work = 0
        while self._new and len(batch) < self.most_rows:
            row = self._new.popleft()
            if row.job.refusal is not None:
                self._abandon(row)
                continue
            work += row.steps * self.served.step_work
            if self.served.pool is None and batch and work > BATCH_WORK:
                self._new.appendleft(row)
                break
            batch.append(row)
            if not row.job.begun:
                row.job.begun = True
                self.waiting -= 1
                self._metrics.queue.observe(asyncio.get_running_loop().time() - row.job.submitted)
        self._wake()
        if batch:
            self._dispatch(batch)

    def _open(self, row: Row, pool: StreamPool[Any]) -> Session[Any]:
        """The session in which the row runs in this batch, in the state that it needs."""
        if row.session is not None:
            return row.session
        channel = row.job.channel
        if channel is None:
            return pool.open()
        if channel.session is None:
            channel.session = pool.open()
            channel.on_open(channel)
            row.job.undo = b""
        elif channel.undoes:
            row.job.undo = channel.session.snapshot()
        if row.job.start:
            channel.session.reset()
        return channel.session

    def _slice(self, num_rows: int) -> int:
        """Steps of each row that a batch of so many runs, a multiple of the stride."""
        steps = min(int(BATCH_WORK / (num_rows * self.served.step_work)), self.options.max_batch_steps)
        return max(steps // self.served.stride, 1) * self.served.stride

    def _dispatch(self, batch: list[Row]) -> None:
        self._running = True
        self._metrics.rows.observe(len(batch))
        self._metrics.fill.observe(len(batch) / self.most_rows)
        if self.served.pool is None:
            steps = [row.steps for row in batch]
            whole = [row.chunk for row in batch]
            self._run(batch, steps, lambda: self.served.run_whole(whole))
            return
        most = self._slice(len(batch))
        steps = [min(row.steps - row.done, most) for row in batch]
        pool = self.served.pool
        pairs = []
        for row, count in zip(batch, steps, strict=True):
            row.session = self._open(row, pool)
            chunk = row.chunk if count == row.steps else row.chunk[row.done : row.done + count]
            pairs.append((row.session, chunk))
        self._run(batch, steps, lambda: (pool.run(pairs), None))

    def _run(self, batch: list[Row], steps: list[int], compute: Callable[[], Any]) -> None:
        """Compute a batch here if it is small, or else on the thread, and then finish it."""
        work = sum(steps) * self.served.step_work
        if work <= self._inline_work:
            self._finish(batch, steps, *_timed(compute), reads=work > INLINE_WORK)
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._serve, name=f"fastrnn {self.served.name}", daemon=True)
            self._thread.start()
        self._work.put((asyncio.get_running_loop(), batch, steps, compute))

    def _serve(self) -> None:
        while (work := self._work.get()) is not None:
            loop, batch, steps, compute = work
            outcome = _timed(compute)
            try:
                loop.call_soon_threadsafe(self._finish, batch, steps, *outcome)
            except RuntimeError:  # the event loop has ended without waiting
                return

    def _finish(
        self,
        batch: list[Row],
        steps: list[int],
        seconds: float,
        results: Any,
        error: Exception | None,
        reads: bool = False,
    ) -> None:
        self._running = False
        self._metrics.compute.observe(seconds)
        if error is not None:
            for row in batch:
                if row.job.refusal is None:
                    row.job.refusal = Refusal("failed", f"the computation failed: {error}")
                self._abandon(row)
        else:
            self._metrics.steps += sum(steps)
            ys, states = results
            for index, (row, count) in enumerate(zip(batch, steps, strict=True)):
                row.done += count
                row.parts.append(ys[index])
                if states is not None:
                    row.state = states[index]
                if row.job.refusal is not None:
                    self._abandon(row)
                elif row.done < row.steps:
                    self._continuing.append(row)
                else:
                    self._finish_row(row)
        self._schedule(seconds if reads else 0.0)

    def _free(self, row: Row) -> None:
        if row.job.channel is None and row.session is not None:
            row.session.close()
            row.session = None

    def _finish_row(self, row: Row) -> None:
        job = row.job
        if job.wants_state and row.session is not None:
            row.state = self.served.state_of(row.session)
        self._free(row)
        del row.job
        job.left -= 1
        if job.left == 0:
            self._complete(job)

    def _complete(self, job: Job) -> None:
        if job.accept is not None:
            try:
                job.accept(job)
            except Refusal as refusal:
                job.refusal = refusal
                self._undo(job)
                self._end(job)
                return
        if job.channel is not None and job.end:
            job.channel.missing = f"{job.channel.name} has ended"
            self.close_session(job.channel)
        self._end(job)

    def _undo(self, job: Job) -> None:
        """Restore the state that the job's session had before it."""
        channel = job.channel
        if channel is None or channel.session is None or job.undo is None:
            return
        if job.undo == b"":
            self.close_session(channel)
        else:
            channel.session.restore(job.undo)

    def _abandon(self, row: Row) -> None:
        """Forget a row of a job that is refused."""
        job = row.job
        self._free(row)
        del row.job
        job.left -= 1
        if job.begun and job.left == 0:
            self._undo(job)
            self._end(job)

    def _end(self, job: Job, result: Any = None) -> None:
        """A job has ended, with a result or its refusal."""
        job.ended = True
        if job.timer is not None:
            job.timer.cancel()
        if not job.begun:
            self.waiting -= 1
            self._wake()
        job.undo = None
        _settle(job, result)
        self.unfinished -= 1
        channel = job.channel
        if channel is not None:
            if job.refusal is not None and not channel.undoes:
                for other in channel.jobs:
                    self.refuse(other, "cancelled", "a request before it was refused")
            if channel.jobs[0] is job and not channel.advancing:
                self._advance(channel)
        if self.unfinished == 0:
            self._idle.set()

    def _wake(self) -> None:
        """Wake as many as may wait for room as there is."""
        room = self.options.max_queue - self.waiting
        while self._room and room > 0:
            waiter = self._room.popleft()
            if not waiter.done():
                waiter.set_result(None)
                room -= 1

    # The end

    async def drain(self) -> None:
        """Accept no more jobs, and wait until all have ended."""
        self.closed = True
        await self._idle.wait()

    def stop(self) -> None:
        """End the thread."""
        self.closed = True
        self._work.put(None)


def _settle(job: Job, result: Any = None) -> None:
    """Set the job's future, unless it is set."""
    if job.future.done():
        return
    if job.refusal is None:
        job.future.set_result(result)
    else:
        job.future.set_exception(job.refusal)
        job.future.exception()  # it may be that nobody waits any more


def _timed(compute: Callable[[], Any]) -> tuple[float, Any, Exception | None]:
    start = time.perf_counter()
    try:
        result, error = compute(), None
    except Exception as failure:
        result, error = None, failure
    return time.perf_counter() - start, result, error


def join(parts: list[NDArray[Any]]) -> NDArray[Any]:
    """Consecutive parts of y as one array."""
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
