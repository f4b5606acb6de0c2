"""A simulation of many replicas: how many a million sessions need, what is lost with a machine, what snapshots cost.

    pip install simpy '.[plot]'
    python bench/fleet.py                      # prints what docs/scaling.md says
    python bench/fleet.py --plot docs/pictures # and draws its pictures

Processor times are measured, by ``python bench/serve.py ray`` and of the engine alone; the simulation adds waiting.
First it is compared with the rates that were measured on one machine, with one replica and with two.
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simpy

PERIOD = 0.1  # seconds between the chunks of a session
JITTER = 0.02  # seconds by which the network delays a chunk at most
VARIATION = 4  # shape of the gamma distribution of processor times: a coefficient of variation of 0.5
TARGET = 0.020  # of the 99th percentile, seconds
SESSIONS = 1_000_000
MACHINE_CORES = 64
MOST_ROWS = 256  # of a batch, as of fastrnn serve
SNAPSHOT_BYTES = 1080  # of a GRU of 256 units: 1024 of state, a header, and that of the file
VIRTUAL_NODES = 100  # of a replica, Ray's default


@dataclass(frozen=True)
class Costs:
    """Processor seconds of a chunk: GRU 256, inputs of 256, 10 steps, WebSocket.

    Attributes
    ----------
    load, proxy : of the client that made the load, and of Ray's proxy
    server : of the server's process, the engine included
    fixed : of a batch, in addition
    hashes : whether sessions are placed by consistent hashing, or on the replica that has the fewest
    """

    name: str
    load: float
    proxy: float
    server: float
    fixed: float = 50e-6
    hashes: bool = True


#: Measured with 64 sessions on two processors with AVX-512, and the rates of the same runs by number of replicas.
ENGINE = 93e-6
ALONE = Costs("fastrnn serve", 26e-6, 0.0, 228e-6)
BEHIND_HAPROXY = Costs("behind HAProxy", 33e-6, 39e-6, 242e-6, hashes=False)
BEHIND_HAPROXY_2 = Costs("behind HAProxy", 32e-6, 38e-6, 317e-6)
BEHIND_RAY = Costs("behind Ray's proxy", 83e-6, 1973e-6, 1844e-6)
BEHIND_RAY_2 = Costs("behind Ray's proxy", 60e-6, 1500e-6, 1539e-6)
MEASURED = (
    (ALONE, 1, 4019),
    (BEHIND_HAPROXY, 1, 3615),
    (BEHIND_HAPROXY_2, 2, 3768),
    (BEHIND_RAY, 1, 492),
    (BEHIND_RAY_2, 2, 543),
)
COMPARED = (ALONE, BEHIND_HAPROXY, BEHIND_RAY)


class Replica:
    """A server's process: what waits when a batch begins runs together."""

    def __init__(self, env: simpy.Environment, costs: Costs, cores: simpy.Resource, seed: int = 0) -> None:
        self.env, self.costs, self.cores = env, costs, cores
        self.rng = np.random.default_rng(seed)
        self.waiting: list[simpy.Event] = []
        self.arrived = env.event()
        env.process(self.run())

    def ask(self) -> simpy.Event:
        """A chunk arrives; the event is its answer."""
        answer = self.env.event()
        self.waiting.append(answer)
        if not self.arrived.triggered:
            self.arrived.succeed()
        return answer

    def run(self):
        while True:
            if not self.waiting:
                self.arrived = self.env.event()
                yield self.arrived
            batch, self.waiting = self.waiting[:MOST_ROWS], self.waiting[MOST_ROWS:]
            seconds = self.costs.fixed + len(batch) * self.costs.server
            yield from use(self.env, self.cores, seconds * self.rng.gamma(VARIATION, 1 / VARIATION))
            for answer in batch:
                answer.succeed()


def use(env, resource, seconds):
    with resource.request() as granted:
        yield granted
        yield env.timeout(seconds)


def closed_loop(costs: Costs, replicas: int, sessions: int = 64, cores: int = 2, seconds: float = 4.0) -> float:
    """Chunks a second of sessions that send as soon as they are answered, all processes on one machine."""
    env = simpy.Environment()
    machine = simpy.Resource(env, cores)
    load, proxy = simpy.Resource(env, 1), simpy.Resource(env, 1)
    fleet = [Replica(env, costs, machine) for _ in range(replicas)]
    done = 0

    def process(resource, spent):
        with resource.request() as granted:
            yield granted
            yield from use(env, machine, spent)

    def session(replica):
        nonlocal done
        while True:
            yield from process(load, costs.load)
            if costs.proxy:
                yield from process(proxy, costs.proxy / 2)
            yield replica.ask()
            if costs.proxy:
                yield from process(proxy, costs.proxy / 2)
            done += 1

    for number in range(sessions):
        env.process(session(fleet[number % replicas]))
    env.run(seconds)
    return done / seconds


def latencies(costs: Costs, sessions: int, seconds: float, joining: int = 0, at: float = 0.0):
    """When chunks were sent and how long they took, on one replica and one proxy with a core each.

    joining : sessions that come at the time `at`, from a replica that is lost; each opens its stream first
    """
    env = simpy.Environment()
    replica = Replica(env, costs, simpy.Resource(env, 1))
    proxy = simpy.Resource(env, 1)
    rng = np.random.default_rng(0)
    sent, took = [], []

    def through_proxy():
        if costs.proxy:
            yield from use(env, proxy, costs.proxy / 2 * rng.gamma(VARIATION, 1 / VARIATION))

    def chunk():
        yield from through_proxy()
        yield replica.ask()
        yield from through_proxy()

    def session(begin, opens):
        yield env.timeout(begin)
        if opens:
            yield from chunk()
        due = env.now
        while True:
            yield env.timeout(max(0.0, due + rng.uniform(0, JITTER) - env.now))
            start = env.now
            yield from chunk()
            sent.append(start)
            took.append(env.now - start)
            due += PERIOD

    for phase in rng.uniform(0, PERIOD, sessions):
        env.process(session(phase, False))
    for phase in rng.uniform(0, PERIOD, joining):
        env.process(session(at + phase, True))
    env.run(seconds)
    return np.array(sent), np.array(took)


def p99(costs: Costs, sessions: int) -> float:
    sent, took = latencies(costs, sessions, 8.0)
    return float(np.percentile(took[sent > 1.0], 99))


def most_sessions(costs: Costs) -> int:
    """The most sessions of a replica with which p99 is within the target."""
    low, high = 1, int(PERIOD / costs.server) + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if p99(costs, middle) <= TARGET else (low, middle)
    return low


def shares(replicas: int, virtual_nodes: int = VIRTUAL_NODES, seed: int = 0):
    """The part of the sessions that each replica has by consistent hashing."""
    rng = np.random.default_rng(seed)
    places = rng.uniform(size=replicas * virtual_nodes)
    order = np.argsort(places)
    owners = np.repeat(np.arange(replicas), virtual_nodes)[order]
    arcs = np.diff(places[order], prepend=places[order][-1] - 1)
    return np.bincount(owners, arcs, replicas)


def replicas_needed(costs: Costs) -> tuple[int, int, float]:
    """Sessions of a replica at most; replicas, so that the fullest one has no more; its share over the mean.

    A machine may be lost: its sessions find room on the others.
    """
    most = most_sessions(costs)
    count = -(-SESSIONS // most) + MACHINE_CORES
    while True:
        fullest = float(shares(count).max() * count) if costs.hashes else 1.0
        if SESSIONS / (count - MACHINE_CORES) * fullest <= most:
            return most, count, fullest
        count = int(count * 1.02) + 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plot", type=Path, metavar="DIRECTORY")
    options = parser.parse_args()
    print("closed loop of 64 sessions on two processors: chunks a second simulated and measured")
    for costs, replicas, measured in MEASURED:
        rate = closed_loop(costs, replicas)
        print(f"  {costs.name}, {replicas}: {rate:.0f} and {measured} ({rate / measured - 1:+.0%})")
    rate = SESSIONS / PERIOD
    print(
        f"{SESSIONS:,} sessions are {rate:,.0f} chunks a second; the engine alone keeps {rate * ENGINE:,.0f} cores busy"
    )
    for costs in COMPARED:
        most, count, fullest = replicas_needed(costs)
        proxies = math.ceil(SESSIONS / most * costs.proxy / costs.server)  # as busy as the replicas
        machines = -(-(count + proxies) // MACHINE_CORES)
        print(f"  {costs.name}: {most} sessions a replica of one core at p99 {TARGET * 1e3:.0f} ms")
        print(f"    {count:,} replicas, of which the fullest has {fullest:.2f} times the mean")
        print(f"    {proxies:,} cores of proxies; {machines:,} machines")
        lost = min(count, MACHINE_CORES)
        mean = SESSIONS // count
        joining = -(-mean * lost // (count - lost))
        sent, took = latencies(costs, mean, 4.0, joining, 2.0)
        worst = np.percentile(took[(sent > 2) & (sent < 2.5)], 99)
        after = np.percentile(took[sent > 3], 99)
        print(f"    a machine is lost: {mean * lost:,} sessions, {joining} more on each of the other replicas")
        print(f"    p99 {worst * 1e3:.1f} ms in the first half second, then {after * 1e3:.1f} ms")
        written = mean * SNAPSHOT_BYTES
        print(f"    a drained replica writes {written / 1e3:.0f} kB, a machine {written * lost / 1e6:.1f} MB")
    print(
        f"snapshots: all sessions {SESSIONS * SNAPSHOT_BYTES / 1e9:.2f} GB; after every chunk "
        f"{rate * SNAPSHOT_BYTES / 1e9:.1f} GB a second"
    )
    for nodes in (100, 1000):
        fullest = shares(5000, nodes).max() * 5000
        print(f"hashing with {nodes} virtual nodes: the fullest of 5,000 has {fullest:.2f} times the mean")
    if options.plot:
        plot(options.plot)


def plot(directory: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (left, right) = pyplot.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for costs in COMPARED:
        most = int(PERIOD / costs.server)
        counts = np.unique(np.linspace(1, most, 24).astype(int))
        left.plot(counts, [p99(costs, count) * 1e3 for count in counts], label=costs.name)
    left.axhline(TARGET * 1e3, color="grey", linestyle=":")
    left.set(
        xlabel="sessions of a replica", ylabel="p99, ms", yscale="log", xscale="log", title="A replica of one core"
    )
    left.legend()
    sizes = np.unique(np.geomspace(2, 5000, 20).astype(int))
    for nodes in (100, 1000):
        right.plot(sizes, [shares(size, nodes).max() * size for size in sizes], label=f"{nodes} virtual nodes")
    right.set(xlabel="replicas", ylabel="sessions of the fullest / mean", xscale="log", title="Consistent hashing")
    right.legend()
    figure.savefig(directory / "fleet.png", dpi=100)
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    for costs in COMPARED:
        _, count, _ = replicas_needed(costs)
        mean = SESSIONS // count
        for lost, style in ((MACHINE_CORES, "-"), (count // 4, "--")):
            sent, took = latencies(costs, mean, 4.0, -(-mean * lost // (count - lost)), 2.0)
            edges = np.arange(1.0, 3.9, 0.1)
            values = [np.percentile(took[(sent >= edge) & (sent < edge + 0.1)], 99) * 1e3 for edge in edges]
            axes.plot(edges - 2, values, style, label=f"{costs.name}, {lost} replicas lost")
    axes.set(xlabel="seconds after the loss", ylabel="p99, ms", title="Replicas are lost at 0")
    axes.legend(fontsize="small")
    figure.savefig(directory / "fleet_loss.png", dpi=100)


if __name__ == "__main__":
    main()
