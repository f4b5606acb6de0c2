"""What every protocol of a server shares: its models, who may use them, and how a request is run."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from numpy.typing import NDArray

from .. import __version__
from .access import Access
from .batcher import Batcher, Job
from .inference import Prepared, Request, check_finite, prepare, results, rows
from .metrics import Metrics
from .models import VERSION, ServedModel
from .options import Options
from .refusals import Refusal, shutting_down
from .sessions import Sessions

log = logging.getLogger("fastrnn.serve")

SERVER_NAME = "fastrnn"
SERVER_VERSION = __version__
EXTENSIONS = ["binary_tensor_data", "sequence", "sequence(string_id)"]
PLATFORM = "fastrnn"

#: Bodies of requests that may be in memory at a time, in units of the largest one.
MOST_BODIES = 32


class Entry:
    """A model that is served, its batcher and its sessions."""

    def __init__(self, name: str, model: Any, options: Options, metrics: Metrics) -> None:
        self.served = ServedModel(name, model, options.max_sessions + options.max_batch_rows)
        self.batcher = Batcher(self.served, options, metrics)
        self.sessions = Sessions(self.served, self.batcher, options, metrics)


class Service:
    """Models that are served under their names.

    Raises
    ------
    TypeError, ValueError
        There is no model, or one cannot be served; the message names every fault.
    """

    def __init__(self, models: Mapping[str, Any], options: Options | None = None) -> None:
        self.options = options or Options()
        self.access = Access(self.options.tokens, self.options.allow_origins)
        self.metrics = Metrics()
        self.entries: dict[str, Entry] = {}
        self.draining = False
        self.on_drain: set[Any] = set()  # functions that WebSockets and streams of gRPC add while they are open
        self._body_bytes = 0
        faults = []
        for name, model in models.items():
            try:
                self.entries[name] = Entry(name, model, self.options, self.metrics)
            except (TypeError, ValueError) as error:
                faults.append(str(error))
        if faults:
            raise ValueError("; ".join(faults))
        if not self.entries:
            raise ValueError("there is no model to serve")

    @property
    def ready(self) -> bool:
        return not self.draining

    def entry(self, name: str, version: str = "") -> Entry:
        """The model of that name.

        Raises
        ------
        Refusal
            There is none, or no such version of it.
        """
        entry = self.entries.get(name)
        if entry is None:
            raise Refusal("not_found", f"there is no model {name[:200]!r}")
        if version not in ("", VERSION):
            raise Refusal("not_found", f"model {name} has no version {version[:200]!r}, only {VERSION}")
        return entry

    def check_ready(self) -> None:
        """Raise Refusal if the server is shutting down."""
        if self.draining:
            raise shutting_down()

    def server_metadata(self) -> dict[str, Any]:
        return {"name": SERVER_NAME, "version": SERVER_VERSION, "extensions": EXTENSIONS}

    def model_metadata(self, entry: Entry) -> dict[str, Any]:
        served = entry.served
        tensors = {
            kind: [{"name": t.name, "datatype": t.datatype, "shape": list(t.shape)} for t in found]
            for kind, found in (("inputs", served.inputs), ("outputs", served.outputs))
        }
        return {"name": served.name, "versions": [VERSION], "platform": PLATFORM, **tensors}

    def hold_body(self, size: int, held: int = 0) -> None:
        """Count `size` bytes of a body that is about to be read, beside those held; `release_body` counts them back.

        Raises
        ------
        Refusal
            It is too large, or with the others there would be too many.
        """
        most = self.options.max_body_bytes
        if held + size > most:
            raise Refusal("too_large", f"the request has {held + size} bytes or more, and not up to {most}")
        if self._body_bytes + size > MOST_BODIES * most:
            raise Refusal("too_many", f"requests of {self._body_bytes} bytes are waiting")
        self._body_bytes += size

    def release_body(self, size: int) -> None:
        self._body_bytes -= size

    def submit(self, entry: Entry, request: Request, tenant: str, deadline: float | None = None) -> Pending:
        """Check a request and put it in the queue.

        Parameters
        ----------
        tenant : whose sequences are meant
        deadline : by the event loop's clock; the request's own timeout may be sooner

        Raises
        ------
        Refusal
        """
        self.check_ready()
        entry.batcher.check_room()
        served = entry.served
        prepared = prepare(served, request, self.options)
        chunks = rows(served, request, prepared)
        if prepared.timeout is not None:
            own = asyncio.get_running_loop().time() + prepared.timeout
            deadline = own if deadline is None else min(deadline, own)
        job = Job(chunks, wants_state=prepared.states)
        if prepared.sequence is not None:
            sequence_id, job.start, job.end = prepared.sequence
            job.channel = entry.sessions.sequence(tenant, sequence_id, job.start)
        if prepared.text:
            job.accept = lambda job: check_finite(served, prepared, job)
        entry.batcher.submit(job, deadline)
        return Pending(entry, prepared, job)

    async def drain(self) -> None:
        """Stop: nothing new is accepted, what was accepted runs; WebSockets and streams of gRPC end after that."""
        self.draining = True
        for say_goodbye in list(self.on_drain):
            say_goodbye()
        while self.on_drain:
            await asyncio.sleep(0.01)
        for entry in self.entries.values():
            await entry.batcher.drain()

    def restore(self) -> None:
        """Go on with the sessions that another process has saved."""
        if self.options.snapshot_dir is not None:
            for name, entry in self.entries.items():
                count = entry.sessions.restore(self.options.snapshot_dir, self.access.tenants())
                log.info("sessions restored", extra={"fields": {"model": name, "sessions": count}})

    def stop(self) -> None:
        """Save the sessions and end the threads, after `drain` or without."""
        for name, entry in self.entries.items():
            entry.sessions.stop()
            if self.options.snapshot_dir is not None and entry.batcher.alive == 0 and entry.served.pool is not None:
                count = entry.sessions.save(self.options.snapshot_dir)
                log.info("sessions saved", extra={"fields": {"model": name, "sessions": count}})
            entry.batcher.stop()


class Pending:
    """A request that was accepted."""

    def __init__(self, entry: Entry, prepared: Prepared, job: Job) -> None:
        self.entry, self.prepared, self.job = entry, prepared, job

    @property
    def done(self) -> bool:
        """Whether `results` need not wait."""
        return self.job.future.done()

    async def results(self) -> dict[str, NDArray[Any]]:
        """Wait; returns the outputs by name.

        Raises
        ------
        Refusal
            It is late or has failed.
        """
        try:
            await self.job.future
        except asyncio.CancelledError:
            self.cancel()
            raise
        return results(self.entry.served, self.prepared, self.job)

    def cancel(self) -> None:
        """Forget the request: its client is gone."""
        self.entry.batcher.refuse(self.job, "cancelled", "the client is gone")
