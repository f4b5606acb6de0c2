"""The thread pool from Python: the same bits for every count, many callers, forks, exits, interrupts, limits."""

import inspect
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
import threadpoolctl
from bits import MODELS, assert_same_bits
from cases import LAYERS, random_batch, random_spec

import fastrnn
from fastrnn import _core, processors

RAGGED = (3, 0, 7, 1, 3, 7, 0, 1, 5)
SHARES_ALL = 0
NUMPY = os.path.dirname(np.__file__)

#: Calls that threads divide in different ways: lengths, hidden size, layers, directions, way.
CUTS = {
    "one row": ((9,), 70, 1, False, "layer"),
    "one row, both directions, three layers": ((9,), 33, 3, True, "layer"),
    "two rows": ((5, 5), 17, 1, False, "layer"),
    "ragged": (RAGGED, 17, 2, True, "layer"),
    "forty rows": ((4,) * 40, 9, 1, True, "layer"),
    "unrolled": ((6,) * 7, 15, 2, True, "unrolled"),
    "unrolled row": ((6,), 70, 2, True, "unrolled"),
    "stream steps": ((6,) * 8, 16, 3, False, "steps"),
    "stream steps of one row": ((6,), 70, 2, False, "steps"),
    "stream chunks": ((7,) * 3, 31, 2, False, "chunks"),
}


@pytest.fixture
def threads():
    """Set the number of threads; the threshold of 0 shares every call that can be divided."""
    before = fastrnn.get_num_threads()
    yield lambda n, threshold=SHARES_ALL: _core.set_num_threads(n, threshold)
    fastrnn.set_num_threads(before)


def call(layer, batch, way="layer"):
    if way == "layer":
        return layer(batch.x, batch.state, lengths=batch.lengths)
    if way == "unrolled":
        return layer.unroll(batch.x.shape[1])(batch.x, batch.state)
    stream, steps = layer.stream(len(batch.x)), batch.x.shape[1]
    stream.state = batch.state
    if way == "steps":
        y = np.stack([stream.step(batch.x[:, t]) for t in range(steps)], 1)
    else:
        y = np.concatenate([stream.run(batch.x[:, a:b]) for a, b in ((0, 1), (1, 4), (4, 4), (4, steps))], 1)
    return y, stream.state


def make(rng, name="lstm", hidden_size=17, num_layers=1, bidirectional=False, lengths=RAGGED, isa=None):
    kind, options = MODELS[name]
    spec = random_spec(rng, kind, 5, hidden_size, num_layers, bidirectional, **options)
    return LAYERS[kind](spec, backend="fused", isa=isa), random_batch(rng, spec, lengths)


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("name", MODELS)
def test_same_bits_for_every_number_of_threads(rng, threads, isa, name, cut):
    lengths, hidden_size, num_layers, bidirectional, way = CUTS[cut]
    layer, batch = make(rng, name, hidden_size, num_layers, bidirectional, lengths, isa)
    threads(1)
    wanted = call(layer, batch, way)
    for n in (2, 3, 4):
        threads(n)
        assert_same_bits(call(layer, batch, way), wanted, f"{cut}, {n} threads")


@pytest.mark.parametrize("lengths", [(400,), (40, 0, 31, 40) * 10], ids=["one row", "rows"])
def test_same_bits_with_the_usual_threshold(rng, threads, lengths):
    layer, batch = make(rng, "lstm", 200, lengths=lengths)
    threads(1, 1)
    wanted = call(layer, batch)
    for n in (2, 4):
        threads(n, 1)
        for _ in range(3):
            assert_same_bits(call(layer, batch), wanted, f"{n} threads")


@pytest.mark.parametrize("changes", [False, True], ids=["", "while the number of threads changes"])
@pytest.mark.parametrize("cut", ["one row", "ragged", "stream steps"])
def test_many_python_threads_on_one_layer(rng, threads, cut, changes):
    lengths, hidden_size, num_layers, bidirectional, way = CUTS[cut]
    layer, _ = make(rng, "gru", hidden_size, num_layers, bidirectional)
    batches = [random_batch(rng, random_spec(rng, "gru", 5, hidden_size, num_layers, bidirectional), lengths)
               for _ in range(8)]  # fmt: skip
    wanted = [call(layer, batch, way) for batch in batches]
    threads(2)
    right = [0] * len(batches)

    def work(i):
        for _ in range(30):
            assert_same_bits(call(layer, batches[i], way), wanted[i])
            right[i] += 1

    workers = [threading.Thread(target=work, args=(i,)) for i in range(len(batches))]
    for worker in workers:
        worker.start()
    while changes and any(worker.is_alive() for worker in workers):
        for n in (1, 3, 2):
            threads(n)
    for worker in workers:
        worker.join()
    assert right == [30] * len(batches)


# ---- Forks and exits -------------------------------------------------------------------------------------------------


def exit_code(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.mark.slow
@pytest.mark.parametrize("cut, children", [("one row", 150), ("ragged", 150)])
def test_fork_while_the_thread_pool_waits(rng, threads, cut, children):
    lengths, hidden_size, num_layers, bidirectional, way = CUTS[cut]
    layer, batch = make(rng, "lstm", hidden_size, num_layers, bidirectional, lengths)
    threads(1)
    wanted = call(layer, batch, way)
    threads(2)
    call(layer, batch, way)
    for _ in range(children):
        pid = os.fork()
        if pid == 0:
            signal.alarm(30)  # ends a child that hangs
            code = 1
            try:
                assert_same_bits(call(layer, batch, way), wanted)
                code = 0
            finally:
                os._exit(code)
        assert exit_code(pid) == 0
    assert_same_bits(call(layer, batch, way), wanted)


SETUP = """
import os, signal, sys, threading, time
import numpy as np
import fastrnn
from fastrnn import _core
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
rng = np.random.default_rng(1)
def make(hidden):
    draw = lambda *shape: (rng.uniform(-1, 1, shape) / hidden**0.5).astype("f4")
    return fastrnn.LSTM.from_state_dict({"weight_ih_l0": draw(4 * hidden, 8), "weight_hh_l0": draw(4 * hidden, hidden)})
"""


def run_python(code, *, timeout=60, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("FASTRNN_")}
    command = [sys.executable, "-c", SETUP + code]
    return subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=timeout)


def assert_clean(result):
    assert (result.returncode, result.stderr) == (0, "")


def test_normal_exit_of_forked_children():
    code = """
_core.set_num_threads(2, 0)
layer, x = make(32), np.ones((8, 5, 8), "f4")
wanted = layer(x)[0]
for _ in range(5):
    pid = os.fork()
    if pid == 0:
        signal.alarm(30)
        sys.exit(0 if (layer(x)[0] == wanted).all() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert (layer(x)[0] == wanted).all()
"""
    assert_clean(run_python(code))


def compute_in_child(queue, layer, batch):
    queue.put(call(layer, batch))


def test_multiprocessing_fork(rng, threads):
    layer, batch = make(rng)
    threads(2)
    wanted = call(layer, batch)
    context = multiprocessing.get_context("fork")
    queue = context.SimpleQueue()
    child = context.Process(target=compute_in_child, args=(queue, layer, batch))
    child.start()
    found = queue.get()
    child.join()
    assert child.exitcode == 0
    assert_same_bits(found, wanted)


@pytest.mark.parametrize("daemon", [False, True], ids=["idle", "a daemon thread inside a call"])
def test_exit_while_the_thread_pool_waits(daemon):
    code = """
_core.set_num_threads(2, 0)
layer, x = make(256), np.ones((1, 20000, 8), "f4")
layer(x[:, :50])
"""
    if daemon:
        code += "threading.Thread(target=layer, args=(x,), daemon=True).start(); time.sleep(0.1)"
    assert_clean(run_python(code))


# ---- Interrupts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("shape", [(1, 60000), (64, 4000)], ids=["units", "rows"])
def test_interrupt_of_a_long_call(shape, num_threads):
    """The bound is only an order of magnitude; bench/ measures the time."""
    code = f"""
_core.set_num_threads({num_threads}, 0)
layer = make(512)
short = np.ones({(shape[0], 20)} + (8,), "f4")
wanted = layer(short)[0]
x = np.broadcast_to(np.float32(1), {shape} + (8,))
sent = []
def send():
    time.sleep(0.3)
    sent.append(time.monotonic())
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=send).start()
try:
    layer(x)
except KeyboardInterrupt:
    waited = time.monotonic() - sent[0]
    assert (layer(short)[0] == wanted).all()
    print(waited)
"""
    result = run_python(code)
    assert_clean(result)
    assert float(result.stdout) < 2


@pytest.mark.slow
def test_interrupted_step_leaves_the_state():
    """A step of many rows can be interrupted before its end, after which the state would have changed."""
    code = """
_core.set_num_threads(1)
layer = make(512)
stream, x = layer.stream(20000), np.ones((20000, 8), "f4")
for _ in range(20):  # on a busy machine the signal may come after the step
    stream.state = tuple(np.full((1, 20000, 512), v, "f4") for v in (0.25, -0.5))
    before = stream.snapshot()
    thread = threading.Thread(target=lambda: (time.sleep(0.05), os.kill(os.getpid(), signal.SIGINT)))
    thread.start()
    try:
        stream.step(x)
        thread.join()
        time.sleep(10)
    except KeyboardInterrupt:
        thread.join()
        if stream.snapshot() == before:
            break
few = layer.stream(1)
few.state = tuple(np.full((1, 1, 512), v, "f4") for v in (0.25, -0.5))
assert (stream.step(x) == few.step(x[:1])).all()
assert stream.snapshot() != before
print("left")
"""
    result = run_python(code)
    assert_clean(result)
    assert result.stdout == "left\n"


@pytest.mark.slow
@pytest.mark.parametrize("main", [True, False], ids=["main thread", "other thread"])
def test_calls_beside_a_busy_thread(main):
    """Waiting for the GIL takes a second here, so a call may check for signals at most once."""
    code = f"""
_core.set_num_threads(1)
layer, x = make(256), np.ones((1, 20000, 8), "f4")
begun = time.monotonic()
layer(x)
alone = time.monotonic() - begun
assert alone > 0.1
sys.setswitchinterval(1)
busy = True
def work():
    while busy:
        pass
threading.Thread(target=work, daemon=True).start()
def call():
    global busy
    begun = time.monotonic()
    layer(x)
    busy = False
    print((time.monotonic() - begun - alone) / (alone / 0.02))
if {main}:
    call()
else:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
"""
    result = run_python(code)
    assert_clean(result)
    assert float(result.stdout) < 0.5  # seconds lost for each check; 1 if every check waits for the GIL


@pytest.mark.slow
@pytest.mark.parametrize("num_threads", [1, 2])
def test_signal_handler_that_forks_during_a_call(num_threads):
    code = f"""
_core.set_num_threads({num_threads}, 0)
layer, x = make(256), np.ones((1, 30000, 8), "f4")
wanted = layer(x[:, :100])[0]
pids = []
def fork(*_):
    pids.append(os.fork())
    if not pids[0]:
        signal.alarm(30)
signal.signal(signal.SIGUSR1, fork)
threading.Thread(target=lambda: (time.sleep(0.1), os.kill(os.getpid(), signal.SIGUSR1))).start()
try:
    layer(x)
    found = "nothing"
except RuntimeError as error:
    found = str(error)
right = (layer(x[:, :100])[0] == wanted).all()
if pids[0]:
    assert right and found == "nothing"
    assert os.waitstatus_to_exitcode(os.waitpid(pids[0], 0)[1]) == 0
else:
    os._exit(0 if right and ("was forked during this call" in found) == ({num_threads} > 1) else 1)
"""
    assert_clean(run_python(code))


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_workers_of_a_pinned_child_are_pinned():
    code = """
_core.set_num_threads(4, 0)
layer, x = make(256), np.ones((8, 50, 8), "f4")
wanted = layer(x)[0]
pid = os.fork()
if not pid:
    signal.alarm(30)
    one = {max(os.sched_getaffinity(0))}
    os.sched_setaffinity(0, one)
    right = (layer(x)[0] == wanted).all()
    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    os._exit(0 if right and len(tasks) == 4 and all(os.sched_getaffinity(task) == one for task in tasks) else 1)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""
    assert_clean(run_python(code))


def test_caller_of_a_high_priority_on_the_workers_processor():
    """When it yields, no other thread gets the processor; its workers run only while it sleeps."""
    code = """
_core.set_num_threads(2, 0)
layer, x = make(256), np.ones((1, 300, 8), "f4")
wanted = layer(x)[0]
one = {max(os.sched_getaffinity(0))}
for task in os.listdir("/proc/self/task"):
    os.sched_setaffinity(int(task), one)
try:
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
except PermissionError:
    print("not permitted")
else:
    assert (layer(x)[0] == wanted).all()
"""
    result = run_python(code, timeout=100)
    assert_clean(result)
    if "not permitted" in result.stdout:
        pytest.skip("this process may not raise its priority")


# ---- Lifetime of threads ---------------------------------------------------------------------------------------------


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="this system does not list a process' threads")
def test_idle_streams_keep_no_threads():
    code = """
layer = make(64)
begun = len(os.listdir("/proc/self/task"))
streams = []
for n in (4, 2, 3, 2, 4):
    _core.set_num_threads(n, 0)
    streams.append(layer.stream(4))
    streams[-1].step(np.ones((4, 8), "f4"))
    assert len(os.listdir("/proc/self/task")) == begun + n - 1, n
_core.set_num_threads(1)
deadline = time.monotonic() + 30
while len(os.listdir("/proc/self/task")) > begun and time.monotonic() < deadline:
    time.sleep(0.01)
assert len(os.listdir("/proc/self/task")) == begun
first = streams[0].step(np.ones((4, 8), "f4"))
assert (first == streams[1].step(np.ones((4, 8), "f4"))).all()
"""
    assert_clean(run_python(code))


def test_long_run_of_a_stream_keeps_little_memory(rng, threads):
    layer, batch = make(rng, hidden_size=64, num_layers=3, lengths=(3000,) * 8)
    threads(1)
    wanted = call(layer, batch, "chunks")
    stream = layer.stream(8)
    tracemalloc.start()
    try:
        for _ in range(2):
            stream.state = batch.state
            assert_same_bits(stream.run(batch.x), wanted[0])
            kept, most = tracemalloc.get_traced_memory()
            assert kept < 5 << 20 < most
    finally:
        tracemalloc.stop()


# ---- Limits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"user_api": "fastrnn"}], ids=["all", "fastrnn"])
def test_threadpoolctl(threads, options):
    threads(3)
    (listed,) = [part for part in threadpoolctl.threadpool_info() if part["user_api"] == "fastrnn"]
    assert listed["num_threads"] == 3 and listed["version"] == fastrnn.__version__
    with threadpoolctl.threadpool_limits(limits=1, **options):
        assert fastrnn.get_num_threads() == 1
    assert fastrnn.get_num_threads() == 3
    with threadpoolctl.threadpool_limits(limits=1, user_api="blas"):
        assert fastrnn.get_num_threads() == 3


@pytest.mark.parametrize("text", ["1", "3", "1024"])
def test_number_of_threads_by_environment(text):
    result = run_python("print(fastrnn.get_num_threads())", FASTRNN_NUM_THREADS=text)
    assert_clean(result)
    assert result.stdout.strip() == text


@pytest.mark.parametrize("text", ["0", "-1", "1025", "two", "1.0", " "])
def test_bad_number_of_threads_by_environment(text):
    result = run_python("", FASTRNN_NUM_THREADS=text)
    assert result.returncode == 1
    assert result.stderr.strip().splitlines()[-1].startswith(f"ValueError: FASTRNN_NUM_THREADS is {text!r}")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_affinity():
    pinned = f"import os; os.sched_setaffinity(0, {{{min(os.sched_getaffinity(0))}}}); import fastrnn\n"
    code = pinned + "print(fastrnn.get_num_threads())"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert_clean(result)
    assert result.stdout.strip() == "1"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_workers_run_where_the_pool_was_made_not_where_its_first_call_was_pinned():
    code = """
allowed = os.sched_getaffinity(0)
_core.set_num_threads(2, 0)
layer, x = make(64), np.ones((1, 50, 8), "f4")
def call_pinned():
    os.sched_setaffinity(0, {min(allowed)})
    layer(x)
pinned = threading.Thread(target=call_pinned)
pinned.start(); pinned.join()
tasks = {int(task) for task in os.listdir("/proc/self/task")} - {pinned.native_id}
assert len(tasks) > 1, "no worker was started"
assert all(os.sched_getaffinity(task) == allowed for task in tasks)
"""
    assert_clean(run_python(code))


@pytest.fixture
def quota(tmp_path):
    """The quota in a tree of files, given as path -> text, and the process's own groups."""

    def find(own, files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        (tmp_path / "own").write_text(own)
        return processors._cgroup_quota(str(tmp_path), str(tmp_path / "own"))

    return find


@pytest.mark.parametrize(
    "own, files, wanted",
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "200000 100000\n", "a/b/cpu.max": "max 100000\n"}, 2),
        ("0::/a/b\n", {"cpu.max": "300000 100000", "a/cpu.max": "400000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        ("0::/a\n", {"a/cpu.max": "max 100000\n"}, math.inf),
        ("0::/elsewhere\n", {}, math.inf),
        ("0::/\n", {"cpu.max": "garbage"}, math.inf),
        ("0::/\n", {"cpu.max": ""}, math.inf),
        ("0::/\n", {"cpu.max": "100000 0"}, math.inf),
        ("4:cpu,cpuacct:/a\n", {"cpu,cpuacct/a/cpu.cfs_quota_us": "250000\n",
                                "cpu,cpuacct/a/cpu.cfs_period_us": "100000\n"}, 2.5),
        ("4:cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "-1\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, math.inf),
        ("4:cpu:/a\n0::/\n", {"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ("5:memory:/a\n", {"memory/a/cpu.cfs_quota_us": "1", "memory/a/cpu.cfs_period_us": "1"}, math.inf),
        ("", {}, math.inf),
    ],
)  # fmt: skip
def test_quota_of_control_groups(quota, own, files, wanted):
    assert quota(own, files) == wanted


@pytest.mark.parametrize("own", ["garbage\n", "4:cpu\n"])
def test_unreadable_control_groups(quota, own):
    assert quota(own, {}) == math.inf


def test_no_control_groups(tmp_path):
    assert processors._cgroup_quota(str(tmp_path), str(tmp_path / "none")) == math.inf


# ---- Memory ----------------------------------------------------------------------------------------------------------


def fail_each_allocation(attempt, most=400):
    """Let the n-th allocation fail, for n = 1, 2, ... until `attempt` succeeds; yield after each failure."""
    _testcapi = pytest.importorskip("_testcapi", reason="this Python cannot make allocations fail")
    for n in range(1, most):
        _testcapi.set_nomemory(n, n + 1)
        try:
            attempt()
        except (MemoryError, SystemError) as error:
            _testcapi.remove_mem_hooks()
            # some of NumPy's reductions lose the MemoryError: "error return without exception set"
            assert isinstance(error, MemoryError) or inspect.trace()[-1].filename.startswith(NUMPY), error
            yield n
        else:
            return
        finally:
            _testcapi.remove_mem_hooks()
    raise AssertionError(f"{most} allocations are not enough for one call")


@pytest.mark.filterwarnings("error::pytest.PytestUnraisableExceptionWarning")  # nothing prints
@pytest.mark.parametrize("num_threads", [1, 2])
@pytest.mark.parametrize("way", ["ragged", "list", "dense", "unroll"])
def test_every_failed_allocation_of_a_call(rng, threads, way, num_threads):
    layer, batch = make(rng, num_layers=2, bidirectional=True)
    dense = np.nan_to_num(batch.x)
    rows = [row[:n] for row, n in zip(batch.x, batch.lengths, strict=True)]
    calls = {
        "ragged": lambda: layer(batch.x, batch.state, lengths=batch.lengths),
        "list": lambda: layer(rows, batch.state),
        "dense": lambda: layer(dense, batch.state),
        "unroll": lambda: layer.unroll(dense.shape[1])(dense, batch.state),
    }
    threads(1)
    wanted = calls[way]()
    failures = 0
    for _ in fail_each_allocation(lambda: (threads(num_threads), calls[way]())):
        assert_same_bits(calls[way](), wanted)
        failures += 1
    assert failures > 3
    assert_same_bits(calls[way](), wanted)


@pytest.mark.parametrize("way", ["step", "run", "snapshot", "state"])
def test_every_failed_allocation_of_a_stream_leaves_its_state(rng, threads, way):
    layer, batch = make(rng, num_layers=2, lengths=(5,) * 8)
    threads(2)
    stream = layer.stream(8)
    stream.state = batch.state
    before = stream.snapshot()

    def attempt():
        if way == "step":
            stream.step(batch.x[:, 0])
        elif way == "run":
            stream.run(batch.x)
        elif way == "snapshot":
            stream.snapshot()
        else:
            _ = stream.state

    failures = 0
    for _ in fail_each_allocation(attempt):
        assert stream.snapshot() == before
        failures += 1
        threads(2)  # a stream allocates its workspace again for a new thread pool
    assert failures > 0
    stream.restore(before)
    assert_same_bits(stream.run(batch.x), layer(batch.x, batch.state)[0])


def test_scratch_memory_is_traced(rng):
    layer, batch = make(rng, hidden_size=64, lengths=(64,) * 1000)
    layer(batch.x[:1])
    tracemalloc.start()
    try:
        stream = layer.stream(100_000)
        assert tracemalloc.get_traced_memory()[0] >= 3 * 100_000 * 64 * 4  # two of h, one of c
        del stream
        before = tracemalloc.get_traced_memory()[0]
        layer(batch.x, batch.state)
        y = 1000 * 64 * 64 * 4
        assert tracemalloc.get_traced_memory()[1] - before > y  # results and workspace
    finally:
        tracemalloc.stop()
