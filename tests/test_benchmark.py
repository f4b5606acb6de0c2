"""`fastrnn bench`: its shapes, arithmetic, output and refusals. No test depends on a measured time."""

import importlib.util
import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

import fastrnn
from fastrnn import _core, cli
from fastrnn.benchmark import (
    engines,
    environment,
    experiments,
    markdown,
    mnn_engine,
    ncnn_engine,
    plots,
    probe,
    report,
    run,
    workloads,
)
from fastrnn.benchmark.engines import ENGINES, Engine, answers
from fastrnn.benchmark.probe import Level, Limits
from fastrnn.benchmark.workloads import Workload, draw_input, draw_lengths, draw_weights, parse
from fastrnn.importers.gate_orders import reorder_gates

RAGGED = Workload("tiny", "lstm", 3, 4, 2, 2, 2, 3, "uniform")
STREAM = Workload("tiny", "gru", 3, 5, 2, 1, 2, 1, "stream")
TINY = [RAGGED, STREAM, Workload("other", "rnn", 7, 9, 1, 1, 3, 5, "full")]
EQUAL = [
    RAGGED._replace(cell=cell, num_directions=D, steps=9, lengths="full") for cell in ("lstm", "gru") for D in (1, 2)
]
NO_LIMITS = Limits(math.inf, (Level("memory", math.inf, math.inf),))


@pytest.fixture
def tiny_groups(monkeypatch):
    """Tiny workloads instead of those of the shapes files."""
    monkeypatch.setattr(workloads, "read_groups", lambda: {"tiny": TINY[:2], "other": TINY[2:]})
    monkeypatch.setattr(workloads, "DEFAULT_GROUPS", ("tiny", "other"))
    monkeypatch.setattr(run, "SINGLE_STEPS", (8, 8))


def results_of(chosen, names=("fastrnn", "torch")):
    return run.run(chosen, list(names), threads=1, seconds=0, rounds=1)


def made_row(name, ours, peer, group="a"):
    times = {"fastrnn": ours, "torch": peer}
    entries = {name: {"microseconds": took, "weights": "float32", "agrees": True} for name, took in times.items()}
    return {"name": name, "group": group, "engines": entries, "ratio": peer / ours}


def made_results(rows, **changes):
    facts = {"date": "2026-01-01", "versions": {"fastrnn": "0"}, "processor": "p", "isa": "avx2", "threads": 1}
    return {**facts, "format": run.FORMAT, "rows": rows, **changes}


# ---- Workloads -------------------------------------------------------------------------------------------------------


def test_every_shapes_file_is_readable_and_names_differ():
    groups = workloads.read_groups()
    assert [*groups][:4] == ["stream", "single", "ragged", "dense"]
    assert {"audio", "deepbench", "onednn", "sizes", "tensorflow"} <= groups.keys()
    names = [str(workload) for group in groups.values() for workload in group]
    assert len(set(names)) == len(names) and max(map(len, names)) < report.NAME_WIDTH
    assert all(group == workload.group for group, found in groups.items() for workload in found)


def test_sizes_cover_what_the_name_says():
    sizes = workloads.read_groups()["sizes"]
    hidden = [workload.hidden_size for workload in sizes]
    assert (min(hidden), max(hidden)) == (8, 1500) and any(H % 2 for H in hidden)
    assert {1, 256} <= {workload.batch for workload in sizes}
    assert {1, 2, 3, 4} == {workload.num_layers for workload in sizes}
    assert {1, 2} == {workload.num_directions for workload in sizes}


@pytest.mark.parametrize(
    "line",
    [
        "lstm 1 2 1 1 1 1",
        "lstm 1 2 1 1 1 1 full full",
        "elman 1 2 1 1 1 1 full",
        "lstm 1 2 1 1 0 1 full",
        "lstm 1 2 1 1 1.5 1 full",
        "lstm 1 2 1 1 1 1 most",
        "lstm 1 2 1 1 1 2 stream",
        "lstm 1 2 1 2 1 1 stream",
    ],
)
def test_a_wrong_line_is_refused(line):
    with pytest.raises(ValueError, match=r"group: '(lstm|elman) "):
        parse("group", line.split())


def test_choice_of_groups():
    groups = workloads.read_groups()
    assert {workload.group for workload in workloads.choose([])} == {"stream", "single", "ragged", "dense"}
    assert len(workloads.choose(["all"])) == sum(map(len, groups.values()))
    assert workloads.choose(["single", "single"]) == groups["single"]


@pytest.mark.parametrize("kind", workloads.LENGTHS)
@pytest.mark.parametrize(("batch", "steps"), [(1, 1), (1, 50), (33, 7), (64, 200)])
def test_lengths(kind, batch, steps):
    workload = RAGGED._replace(lengths=kind, batch=batch, steps=steps)
    lengths = draw_lengths(workload)
    assert lengths.shape == (batch,) and lengths.dtype == np.int64
    assert lengths.min() >= 1 and lengths.max() == steps
    np.testing.assert_array_equal(lengths, draw_lengths(workload))
    assert kind == "full" or (batch, steps) != (64, 200) or lengths.mean() < 0.7 * steps


# ---- Engines ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", [engine for engine in ENGINES if not engines.missing_packages(engine)])
@pytest.mark.parametrize(
    "workload",
    [*TINY, STREAM._replace(cell="lstm"), RAGGED._replace(cell="rnn"), *EQUAL],
    ids=str,
)
def test_installed_engines_agree(engine, workload):
    if not ENGINES[engine].runs(workload):
        expected = {"mnn": workload.is_ragged, "tract": workload.is_ragged, "onnxruntime-int8": workload.cell != "lstm"}
        assert expected.get(engine, workload.cell == "gru")
        return
    x, lengths = draw_input(workload), draw_lengths(workload)
    found, wanted = (answers(workload, ENGINES[name].build(workload, x, lengths, 1)) for name in (engine, "fastrnn"))
    assert found.shape == wanted.shape and np.ptp(wanted) > 0.1
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6 if ENGINES[engine].weights == "float32" else 2e-2)


def test_engines_without_lengths_leave_ragged_batches_out():
    for engine in ("mnn", "tract"):
        assert not ENGINES[engine].runs(RAGGED) and ENGINES[engine].runs(RAGGED._replace(lengths="full"))
        assert ENGINES[engine].runs(STREAM)


def test_a_model_that_mnn_cannot_convert_is_an_error(tmp_path):
    source = tmp_path / "model.onnx"
    source.write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"^MNN cannot convert model\.onnx: "):
        mnn_engine._convert(source, tmp_path / "model.mnn")


@pytest.mark.parametrize("workload", [*TINY, STREAM._replace(cell="lstm")], ids=str)
def test_ncnn_gets_the_weights_rounded_to_its_scales_and_in_its_order(workload):
    """Read the files as ncnn's layers do, and compare with the weights."""
    magic, counts, *lines = ncnn_engine._structure(workload).splitlines()
    layers = [line.split() for line in lines if not line.startswith("Input ")]
    blobs = {word for line in lines for word in line.split()[4:] if "=" not in word}
    assert magic == "7767517" and counts == f"{len(lines)} {len(blobs)}" and len(layers) == workload.num_layers
    assert layers[0][4] == "x" and layers[1:] == [line for line in layers[1:] if line[4] in layers[0]]
    data, weights, H = ncnn_engine._weights(workload), draw_weights(workload), workload.hidden_size
    D, G = workload.num_directions, {"lstm": 4, "gru": 3, "rnn": 1}[workload.cell]
    at = 0

    def take(kind, *shape, tag=None):
        nonlocal at
        if tag is not None:
            assert int.from_bytes(data[at : at + 4], "little") == tag
            at += 4
        array = np.frombuffer(data, kind, math.prod(shape), at).reshape(shape)
        at += -(-array.nbytes // 4) * 4
        return array

    for layer, width in enumerate(workload.input_sizes()):
        options = dict(word.split("=") for word in layers[layer] if "=" in word)
        wanted = {"0": f"{H}", "1": f"{D * G * H * width}", "8": "2"} | ({"2": "2"} if D == 2 else {})
        assert options == wanted
        W = take(np.int8, D, G * H, width, tag=0x000D4B38)
        bias = take(np.float32, D, 4 if workload.cell == "gru" else G, H, tag=0)
        R = take(np.int8, D, G * H, H, tag=0x000D4B38)
        scales = [take(np.float32, D, G * H) for _ in range(2)]
        for direction, end in enumerate(("", "_reverse")[:D]):

            def own(name, end=f"l{layer}{end}"):
                return reorder_gates(weights[f"{name}_{end}"], workload.cell, target="ncnn")

            for found, scale, name in zip((W, R), scales, ("weight_ih", "weight_hh"), strict=True):
                exact, step = own(name), 1 / scale[direction][:, None]
                assert (np.abs(found[direction] * step - exact) <= 0.5001 * step).all()
                assert (np.abs(found[direction]).max(1) == 127).all()
            parts = [own(name).reshape(G, H) for name in ("bias_ih", "bias_hh")]
            both = parts[0] + parts[1]
            if workload.cell == "gru":
                both = np.stack([*both[:2], parts[0][2], parts[1][2]])
            np.testing.assert_array_equal(bias[direction], both)
    assert at == len(data)


def test_ncnns_scale_of_a_row_of_zeros_is_one():
    values, scales = ncnn_engine.quantize(np.array([[[0, 0]], [[-2, 1]]], np.float32))
    np.testing.assert_array_equal(values, [[[0, 0]], [[-127, 64]]])
    np.testing.assert_array_equal(scales, np.array([[1], [63.5]], np.float32))


def test_a_stream_carries_its_state():
    call = ENGINES["fastrnn"].build(STREAM, draw_input(STREAM), draw_lengths(STREAM), 1)
    steps = answers(STREAM, call)
    assert all((steps[i] != steps[i + 1]).any() for i in range(len(steps) - 1))


def test_choice_of_engines(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert engines.choose(None) == ["fastrnn"]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    assert engines.choose(None) == [*ENGINES]
    assert engines.choose(["torch"]) == ["fastrnn", "torch"]


def test_an_engine_with_other_answers_is_marked_and_does_not_count(monkeypatch):
    def wrong(workload, x, lengths, num_threads):
        call = ENGINES["fastrnn"].build(workload, x, lengths, num_threads)
        return lambda: call() + np.float32(1e-4)

    monkeypatch.setitem(ENGINES, "torch", Engine(wrong))
    row = run.measure(TINY[2], ["fastrnn", "torch"], NO_LIMITS, threads=1, seconds=0, rounds=1)
    assert not row["engines"]["torch"]["agrees"] and row["engines"]["fastrnn"]["agrees"]
    assert row["ratio"] is None and row["best_peer"] is None
    assert "! " in report.line(row, ["fastrnn", "torch"])
    assert report.ratios_to("torch", [row]) == []


@pytest.mark.parametrize(("error", "agrees", "mark"), [(1e-2, True, "~"), (0.1, False, "!")])
def test_int8_has_a_wider_tolerance_and_a_mark_and_is_never_the_peer(error, agrees, mark, monkeypatch):
    def rounded(workload, x, lengths, num_threads):
        call = ENGINES["fastrnn"].build(workload, x, lengths, num_threads)
        return lambda: call() + np.float32(error)

    monkeypatch.setitem(ENGINES, "torch", Engine(rounded, weights="int8"))
    monkeypatch.setitem(ENGINES, "tract", Engine(ENGINES["fastrnn"].build))
    monkeypatch.setattr(run, "fastest", lambda calls, rounds, seconds: [2e-6, 1e-6, 6e-6][: len(calls)])
    names = ["fastrnn", "torch", "tract"]
    row = run.measure(TINY[2], names, NO_LIMITS, threads=1, seconds=0, rounds=1)
    assert row["engines"]["torch"]["agrees"] == agrees and row["engines"]["torch"]["weights"] == "int8"
    assert row["best_peer"] == "tract" and row["ratio"] == pytest.approx(3)
    assert f" 1.0{mark}" in report.line(row, names) and " 6.0 " in report.line(row, names)
    assert report.ratios_to("torch", [row]) == ([pytest.approx(0.5)] if agrees else [])
    alone = run.measure(TINY[2], names[:2], NO_LIMITS, threads=1, seconds=0, rounds=1)
    assert alone["ratio"] is None and alone["best_peer"] is None


def test_an_engine_that_cannot_run_a_workload_leaves_a_gap(monkeypatch):
    monkeypatch.setitem(ENGINES, "torch", Engine(ENGINES["torch"].build, (), lambda workload: False))
    row = run.measure(TINY[2], ["fastrnn", "torch"], NO_LIMITS, threads=1, seconds=0, rounds=1)
    assert [*row["engines"]] == ["fastrnn"]
    assert report.line(row, ["fastrnn", "torch"])[report.NAME_WIDTH + 12 :].split()[0] == "-"


# ---- The machine and its limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("isa", _core.available_isas())
@pytest.mark.parametrize("threads", [1, 2])
def test_probe_finds_positive_finite_limits(isa, threads):
    caches = [environment.Cache("L1", 2**14, 1), environment.Cache("L2", 2**16, 2)]
    limits = probe.measure(isa, threads, caches, seconds=0.001)
    assert [level.name for level in limits.levels] == ["L1", "L2", "memory"]
    assert [level.size for level in limits.levels] == [2**14 * threads, 2**16, math.inf]
    assert limits.gates.keys() == _core.PROBE_GATES.keys()
    rates = [limits.flops, *(level.bandwidth for level in limits.levels), *limits.gates.values()]
    rates += [limits.step, limits.call]
    assert all(math.isfinite(rate) and rate > 0 for rate in rates)
    assert json.loads(json.dumps(limits.to_json(), allow_nan=False))["levels"][-1]["size"] is None


@pytest.mark.parametrize("isa", _core.available_isas())
def test_probe_does_the_work_that_it_counts(isa):
    lanes, _ = _core.probe_fma(isa, 1)
    done, total = _core.probe_fma(isa, 1000)
    assert done == 1000 * lanes and total == pytest.approx(2 * lanes)
    (values,) = probe._buffers(4 * 512, 1)
    values[:] = np.arange(512)
    assert _core.probe_read(isa, values, 3) == 3 * 511 * 512 / 2
    values[:] = np.linspace(-3, 2, 512)
    sigmoids, tanhs = 1 / (1 + np.exp(-values.astype(float))), np.tanh(values.astype(float))
    for gate, each in {"sigmoid": sigmoids, "tanh": tanhs, "sigmoid*tanh": sigmoids * tanhs}.items():
        assert _core.probe_gate(isa, gate, values, 3) == pytest.approx(3 * each.sum(), rel=1e-4)
    with pytest.raises(ValueError):
        _core.probe_gate(isa, "tanh", values[:255], 1)
    with pytest.raises(ValueError):
        _core.probe_read(isa, values[1:257], 1)
    with pytest.raises(ValueError):
        _core.probe_read(isa, values[:255], 1)
    with pytest.raises(ValueError):
        _core.probe_fma("none", 1)


def test_work_counted_by_hand():
    # 16 gate rows. Layer 0 in each direction: 2*16*3 flops an input, 2*16*4 a state, over 3 + 1 steps: 896.
    # Layer 1, whose inputs are 8 wide: 2*16*(8 + 4)*4 = 1536. Weights: inputs' once, states' in each of 3 steps:
    # 4*16*(3 + 3*4) = 960 bytes, and 4*16*(8 + 3*4) = 1280.
    found = probe.bound(RAGGED, np.array([3, 1]), NO_LIMITS)
    assert (found.flops, found.bytes) == (2 * (896 + 1536), 2 * (960 + 1280))
    slow = probe.bound(RAGGED, np.array([3, 1]), Limits(1.0, NO_LIMITS.levels))
    assert (slow.seconds, slow.by) == (found.flops, "FMA")
    slow = probe.bound(RAGGED, np.array([3, 1]), Limits(math.inf, (Level("memory", math.inf, 1.0),)))
    assert (slow.seconds, slow.by) == (found.bytes, "memory")


def test_each_step_is_bound_by_the_larger_part():
    workload = Workload("one", "rnn", 1, 16, 1, 1, 8, 2, "uniform")
    # The state's product: 2*16*16 flops a row, 4*16*16 bytes a step, so 512 s a row at 1 flop/s, 1024 s at 1 byte/s:
    # with 8 rows the arithmetic counts, with 1 row the bytes. The inputs': 32 flops a row and step against 64 bytes.
    found = probe.bound(workload, np.array([2, 1, 1, 1, 1, 1, 1, 1]), Limits(1.0, (Level("memory", math.inf, 1.0),)))
    assert found.seconds == 8 * 512 + 1024 + 9 * 32
    assert found.by == "FMA"


def test_weights_are_read_from_the_smallest_level_that_holds_them():
    levels = (Level("L1", 100, 3.0), Level("L2", 200, 2.0), Level("memory", math.inf, 1.0))
    limits = Limits(1.0, levels)
    assert [limits.level(size).name for size in (1, 100, 101, 200, 201)] == ["L1", "L1", "L2", "L2", "memory"]
    # A stream goes through all weights a step, 4*5*(3 + 5) = 160 bytes; a sequence only through the state's, 100.
    stream = Workload("one", "rnn", 3, 5, 1, 1, 1, 1, "stream")
    sequence = stream._replace(lengths="full", steps=10)
    fast = Limits(math.inf, levels)
    found = [probe.bound(workload, np.array([T]), fast) for workload, T in ((stream, 1), (sequence, 10))]
    assert [each.bytes for each in found] == [160, 1060]
    assert [each.seconds for each in found] == [80, pytest.approx(60 / 2 + 1000 / 3)]
    assert [each.by for each in found] == ["L2", "L1"]


def test_gates_and_the_call_are_parts_of_the_least_time():
    gates = {"sigmoid": 2.0, "tanh": 3.0, "sigmoid*tanh": 4.0}
    limits = NO_LIMITS._replace(gates=gates, step=7.0, call=11.0)
    # 2 layers of 2 directions of 4 units, 3 + 1 steps: 64; an LSTM's gates are a sigmoid and two products.
    lstm = probe.bound(RAGGED, np.array([3, 1]), limits)
    assert lstm.parts["gates"] == pytest.approx(64 * (1 / 2 + 2 / 4)) and lstm.parts["call"] == 11
    assert lstm.by == "gates" and lstm.seconds == pytest.approx(75)
    gru = probe.bound(STREAM, np.array([1, 1]), limits)  # 2 layers of 5 units, 2 rows
    assert gru.parts["gates"] == pytest.approx(20 * (2 / 2 + 1 / 3)) and gru.parts["call"] == 7
    rnn = probe.bound(TINY[2], np.array([5, 5, 5]), limits._replace(call=1000.0))
    assert rnn.parts["gates"] == pytest.approx(9 * 15 / 3) and rnn.by == "call"


def test_caches_as_linux_tells_them(tmp_path, monkeypatch):
    for index, texts in enumerate(
        [("1", "Data", "32K", "0"), ("1", "Instruction", "64K", "0"), ("3", "Unified", "8192K", "0-2,5")]
    ):
        path = tmp_path / f"index{index}"
        path.mkdir()
        for name, text in zip(("level", "type", "size", "shared_cpu_list"), texts, strict=True):
            (path / name).write_text(text + "\n")
    monkeypatch.setattr(environment, "CACHES", tmp_path)
    assert environment.caches() == [("L1", 32 * 1024, 1), ("L3", 8 * 2**20, 4)]
    monkeypatch.setattr(environment, "CACHES", tmp_path / "nothing")
    assert [cache.name for cache in environment.caches()] == ["L1", "L2", "L3"]


def test_a_run_is_held_to_its_threads_and_set_and_the_process_gets_back_what_it_had(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("FASTRNN_ISA", raising=False)
    environ, processors, threads = dict(os.environ), environment.available_processors(), fastrnn.get_num_threads()
    for isa in _core.available_isas():
        with pytest.raises(KeyError), environment.limited(1, isa):
            assert os.environ["FASTRNN_ISA"] == isa == fastrnn.info()["isa"]
            assert os.environ["OMP_NUM_THREADS"] == "1"
            assert ("ONEDNN_MAX_CPU_ISA" in os.environ.keys() - environ.keys()) == (isa == "avx2")
            assert len(environment.available_processors()) == 1
            raise KeyError
        assert dict(os.environ) == environ
        assert (environment.available_processors(), fastrnn.get_num_threads()) == (processors, threads)


# ---- What is printed and written -------------------------------------------------------------------------------------


def test_columns():
    engine_names = ["fastrnn", "torch", "tensorflow-dynamic"]
    row = made_row("w", 2.0, 3.0) | {"gflops": 50.0, "percent_of_limit": 62.5, "bound_by": "L2"}
    head, line = report.heading(engine_names, 1, 7).splitlines()[-1], report.line(row, engine_names)
    assert head.split() == ["workload", *engine_names, "ratio", "GFLOP/s", "limit", "by"]
    assert line.split() == ["w", "2.0", "3.0", "-", "1.50", "50.0", "62%", "L2"]
    ends = [head.index(name) + len(name) for name in ("fastrnn", "torch", "ratio", "GFLOP/s", "limit")]
    assert [line[end - 4 : end].strip(" ") for end in ends] == ["2.0", "3.0", "1.50", "50.0", "62%"]


def test_comparison_with_an_older_run():
    old = made_results([made_row("w", 4.0, 8.0), made_row("v", 1.0, 3.0), made_row("gone", 1.0, 1.0)], threads=2)
    new = made_results([made_row("w", 2.0, 8.0), made_row("v", 2.0, 3.0), made_row("fresh", 1.0, 1.0)])
    text = report.compare(old, new).splitlines()
    assert "threads: 2 then, 1 now" in text[1]
    assert text[3].split() == ["w", "4.0", "2.0", "2.00", "2.00", "4.00", "2.00"]
    assert text[4].split() == ["v", "1.0", "2.0", "0.50", "3.00", "1.50", "0.50"]
    assert text[5:] == [f"{'a':12}geometric mean: faster 1.00, ahead 1.00"]


def test_comparison_without_a_peer_or_a_common_workload():
    alone = made_row("w", 4.0, 8.0) | {"ratio": None}
    text = report.compare(made_results([alone]), made_results([made_row("w", 2.0, 8.0)])).splitlines()
    assert text[2].split() == ["w", "4.0", "2.0", "2.00", "-", "4.00", "-"]
    assert text[3].endswith("faster 2.00")
    assert report.compare(made_results([alone]), made_results([])).endswith("no workload is in both")


def test_bench_writes_what_it_measured_and_reads_it_again(tiny_groups, tmp_path, capsys):
    path = tmp_path / "now.json"
    command = ["bench", "--engines", "fastrnn,torch", "--seconds", "0", "--rounds", "1"]
    assert cli.main([*command, "--json", str(path)]) == 0
    out = capsys.readouterr().out
    results = report.load(path)
    assert [row["name"] for row in results["rows"]] == [str(workload) for workload in TINY]
    assert all(name in out for name in (*map(str, TINY), "geometric mean", "p50", results["processor"], "GB/s"))
    assert results["isa"] == fastrnn.info()["isa"] and results["threads"] == 1
    assert {"fastrnn", "torch", "numpy", "python"} <= results["versions"].keys()
    for row in results["rows"]:
        assert row["percent_of_limit"] > 0 and row["engines"]["torch"]["agrees"]
        assert ("p99" in row["engines"]["torch"]) == (row["lengths"] == "stream")
        assert row["ratio"] == row["engines"]["torch"]["microseconds"] / row["engines"]["fastrnn"]["microseconds"]
    assert cli.main([*command, "other", "--compare", str(path), "--json", str(path)]) == 0
    out = capsys.readouterr().out
    assert "other       geometric mean: faster" in out and "tiny lstm" not in out
    assert cli.main([*command, "--compare", str(path)]) == 0
    assert "tiny lstm" not in capsys.readouterr().out  # the older run has only the other group


def test_markdown_says_what_the_limit_consists_of(monkeypatch):
    monkeypatch.setattr(run, "fastest", lambda calls, rounds, seconds: [4e-6])
    gates = {"sigmoid": 3e9, "tanh": 2e9, "sigmoid*tanh": 1e9}
    limits = Limits(1e11, (Level("L1", math.inf, 2e11),), gates, 1e-6, 2e-6)
    monkeypatch.setattr(probe, "measure", lambda isa, threads, caches: limits)
    results = results_of(TINY[2:], ["fastrnn"])
    about, _, head, rule, line = markdown.table(results).splitlines()
    assert "100 GFLOP/s" in about and "L1 200" in about and "tanh 2.0" in about and "step 1.00, layer 2.0" in about
    # 2*9*(7 + 9)*15 flops in 0.0432 us, but the weights' 4*9*9 bytes in each of 5 steps 0.0081; 135 tanhs in 0.0675 us
    assert line == f"| {TINY[2]} | 4 | 53 | call 95%, gates 3%, multiply-adds 2% | 1 |"
    assert head.count("|") == rule.count("|") == line.count("|")


def test_markdown_replaces_its_own_table_only(tmp_path, monkeypatch):
    monkeypatch.setattr(markdown, "table", lambda results: f"table {results['date']}")
    path = tmp_path / "limits.md"
    one, two = made_results([]), made_results([], threads=2)
    markdown.write(one, path)
    begin = "<!-- fastrnn bench, avx2, threads: {} -->"
    first = f"{begin.format(1)}\ntable 2026-01-01\n<!-- end -->\n"
    assert path.read_text() == first
    path.write_text(f"before\n\n{first}\nafter\n")
    markdown.write(two, path)
    second = f"{begin.format(2)}\ntable 2026-01-01\n<!-- end -->\n"
    assert path.read_text() == f"before\n\n{first}\nafter\n\n{second}"
    markdown.write({**one, "date": "new"}, path)
    assert path.read_text() == f"before\n\n{first.replace('2026-01-01', 'new')}\nafter\n\n{second}"


def test_bench_writes_markdown(tiny_groups, tmp_path, capsys):
    path = tmp_path / "limits.md"
    command = ["bench", "--engines", "fastrnn", "--seconds", "0", "--rounds", "1", "--markdown", str(path)]
    for _ in range(2):
        assert cli.main(command) == 0
        rows = [line for line in path.read_text().splitlines() if line.startswith("| ")]
        assert [line.split(" | ")[0][2:] for line in rows[2:]] == [str(workload) for workload in TINY]
    assert capsys.readouterr().out


def test_listing(tiny_groups, capsys):
    assert cli.main(["bench", "--list"]) == 0
    assert capsys.readouterr().out.splitlines() == [str(workload) for workload in TINY]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nonsense"], "no group 'nonsense': the groups are stream, single, "),
        (["--engines", "nonsense"], "no engine 'nonsense': the engines are fastrnn, torch, "),
        (["--threads", "0"], "threads is 0, wanted 1 to "),
        (["--threads", "100000"], "threads is 100000, wanted 1 to "),
        (["--isa", "nonsense"], "isa is 'nonsense', wanted one that runs here"),
        (["--rounds", "0"], "rounds is 0"),
        (["--compare", "nothing.json"], "No such file"),
        (["--json", "nowhere/now.json"], "--json nowhere"),
        (["--markdown", "nowhere/now.md"], "--markdown nowhere"),
    ],
)
def test_wrong_arguments_are_refused_before_anything_runs(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and message in err


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 0}'])
def test_a_file_that_no_run_wrote_is_refused(text, tmp_path, capsys):
    path = tmp_path / "old.json"
    path.write_text(text)
    assert cli.main(["bench", "--compare", str(path)]) == 2
    assert str(path) in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (["--engines", "torch"], "peers"),
        (["--engines", "mnn"], "peers"),
        (["--engines", "tract"], "peers"),
        (["--engines", "ncnn-int8"], "peers"),
        (["--engines", "tensorflow-static"], "tensorflow"),
        (["--plot", "pictures"], "plot"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(arguments, extra, monkeypatch, capsys):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert cli.main(["bench", *arguments]) == 2
    assert f"pip install '.[{extra}]'" in capsys.readouterr().err


# ---- Pictures --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_pictures_of_a_run(tmp_path, monkeypatch):
    names = ["fastrnn", "torch"]
    lengths = experiments.lengths_and_paths(RAGGED._replace(num_layers=1), rounds=1)
    assert [*lengths] == [*workloads.LENGTHS] and {*lengths["full"]} == {"dynamic", "padded", "unrolled"}
    latency = experiments.step_latency(names, 1, hidden_sizes=(1, 9), count=8)
    assert all([*times] == [1, 9] and times[9].p50 <= times[9].p99 for times in latency.values())
    build = experiments.build_time(names, steps=(2, 5), rounds=1)
    assert len(build) == 3 and all([*times] == [2, 5] for times in build.values())
    for name, found in (("lengths_and_paths", lengths), ("step_latency", latency), ("build_time", build)):
        monkeypatch.setattr(experiments, name, lambda *arguments, found=found: found)
    paths = plots.draw_all(results_of(TINY), tmp_path)
    assert {path.name for path in paths} == {"ratio.png", "roofline.png", "latency.png", "lengths.png", "build.png"}
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in paths)
    alone = plots.draw_all(results_of(TINY, ["fastrnn"]), tmp_path)
    assert "ratio.png" not in {path.name for path in alone}


def test_bench_draws(tiny_groups, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(plots, "draw_all", lambda results, directory: [directory / "one.png"])
    pictures = tmp_path / "new" / "pictures"
    assert cli.main(["bench", "--engines", "fastrnn", "--seconds", "0", "--rounds", "1", "--plot", str(pictures)]) == 0
    assert pictures.is_dir() and f"wrote {pictures / 'one.png'}" in capsys.readouterr().out


# ---- TensorFlow ------------------------------------------------------------------------------------------------------


def test_tensorflow_runs_what_its_equations_and_graphs_allow():
    for static in (True, False):
        runs = ENGINES["tensorflow-static" if static else "tensorflow-dynamic"].runs
        assert not runs(STREAM) and runs(RAGGED) and runs(RAGGED._replace(cell="rnn"))
        assert runs(RAGGED._replace(steps=1000)) == (not static)


def test_the_benchmark_needs_no_engine_to_be_imported():
    modules = ["run", "report", "plots", "experiments", "command"]
    code = "import sys\n" + "".join(f"import fastrnn.benchmark.{module}\n" for module in modules)
    code += (
        "engines = {'torch', 'onnxruntime', 'openvino', 'MNN', 'tract', 'ncnn', 'tensorflow', 'onnx', 'matplotlib'}\n"
        "sys.exit(bool(engines & sys.modules.keys()))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
