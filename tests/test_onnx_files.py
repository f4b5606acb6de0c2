"""Files of ONNX: tensors in other files, and files that are damaged or made to harm."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

import onnx_cases as cases  # noqa: E402
from onnx_cases import node, port  # noqa: E402

import fastrnn  # noqa: E402
from fastrnn.files import protobuf  # noqa: E402

ALLOWED = (ValueError, TypeError, OSError, NotImplementedError)

# Tensors in other files


def in_three_parts(rng):
    """A graph in three parts, each with weights."""
    tensors = cases.weights(rng, "GRU", 4, 3)
    tensors |= {"V": rng.standard_normal((4, 4)).astype("f4"), "K": np.eye(3, dtype="f4")}
    nodes = [
        node("MatMul", ["x", "V"], ["a"]),
        node("Sin", ["a"], ["b"]),
        node("GRU", ["b", "W", "R", "B"], ["c"], hidden_size=3),
        node("MatMul", ["c", "K"], ["d"]),
        node("Sin", ["d"], ["y"]),
    ]
    return cases.model(nodes, [port("x", ["T", "B", 4])], ["y"], tensors)


def moved_out(tensor, location, data):
    """Put a tensor's bytes behind those of another file."""
    for key, value in (("location", location), ("offset", len(data)), ("length", len(tensor.raw_data))):
        tensor.external_data.add(key=key, value=str(value))
    data += tensor.raw_data
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")


def outside(made, location="weights.bin"):
    """The model with all constants in another file, and that file's bytes."""
    copy = onnx.ModelProto.FromString(made.SerializeToString())
    data = bytearray(b"some bytes before")
    for tensor in copy.graph.initializer:
        moved_out(tensor, location, data)
    return copy, data


@pytest.fixture
def example(rng):
    made = in_three_parts(rng)
    x = rng.standard_normal((5, 2, 4)).astype("f4")
    return made, x, cases.theirs(made, {"x": x})


@pytest.mark.parametrize(
    "location", ["weights.bin", "below/weights.bin", "below/../weights.bin", "link.bin", "hard.bin"]
)
def test_tensors_in_another_file(tmp_path, example, location):
    """In the folder of the model or below; also a link that stays inside, and another name of a file."""
    made, x, answers = example
    moved, data = outside(made, location)
    (tmp_path / "below").mkdir()
    if location in ("link.bin", "hard.bin"):
        (tmp_path / "below" / "real.bin").write_bytes(data)
        if location == "link.bin":
            (tmp_path / location).symlink_to(Path("below") / "real.bin")
        else:
            os.link(tmp_path / "below" / "real.bin", tmp_path / location)
    else:
        (tmp_path / location).write_bytes(data)
    cases.agree(cases.load(tmp_path, moved).run(None, {"x": x}), answers)
    assert cases.load(tmp_path, moved, prefix="c").hidden_size == 3


def test_in_the_working_directory(tmp_path, example, monkeypatch):
    made, x, answers = example
    moved, data = outside(made)
    (tmp_path / "weights.bin").write_bytes(data)
    (tmp_path / "model.onnx").write_bytes(moved.SerializeToString())
    monkeypatch.chdir(tmp_path)
    cases.agree(fastrnn.load("model.onnx").run(None, {"x": x}), answers)


def test_tensors_of_bodies_and_attributes(tmp_path, rng, example):
    """They are put inside, as onnxruntime would look for them in the working directory."""
    made, x, _ = example
    value = onnx.numpy_helper.from_array(np.ones(3, "f4"), "value")
    branch = onnx.helper.make_graph([node("Add", ["c", "inner"], ["s"])], "b", [], [port("s", None)], [])
    branch.initializer.append(onnx.numpy_helper.from_array(rng.standard_normal(3).astype("f4"), "inner"))
    others = [
        node("Constant", [], ["constant"], value=value),
        node("ReduceMax", ["constant"], ["one"], keepdims=0),
        node("Cast", ["one"], ["which"], to=onnx.TensorProto.BOOL),
        node("If", ["which"], ["e"], then_branch=branch, else_branch=branch),
    ]
    before, after = [*made.graph.node[:3]], [*made.graph.node[3:]]
    after[0].input[0] = "e"
    del made.graph.node[:]
    made.graph.node.extend([*before, *others, *after])
    answers = cases.theirs(made, {"x": x})
    data = bytearray()
    for tensor in (
        made.graph.node[3].attribute[0].t,
        *(attribute.g.initializer[0] for attribute in made.graph.node[6].attribute),
    ):
        moved_out(tensor, "w.bin", data)
    (tmp_path / "w.bin").write_bytes(data)
    cases.agree(cases.load(tmp_path, made).run(None, {"x": x}), answers)
    (tmp_path / "w.bin").write_bytes(data[:-1])
    with pytest.raises(ValueError, match=r"tensor 'inner' in a node has bytes 24 to 36 of 'w\.bin', which has 35"):
        cases.load(tmp_path, made)


@pytest.fixture
def folder(tmp_path):
    """A folder for the model, beside files that are not the model's."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder2").mkdir()
    for place in (tmp_path / "secret", tmp_path / "folder2" / "secret"):
        place.write_bytes(bytes(4096))
    (tmp_path / "folder" / "link").symlink_to(tmp_path / "secret")
    (tmp_path / "folder" / "way").symlink_to(tmp_path)
    return tmp_path / "folder"


@pytest.mark.parametrize(
    "location",
    [
        "../secret",
        "below/../../secret",
        "link",
        "way/secret",
        "../folder2/secret",
        "absolute",
        "/etc/hostname",
        ".",
        "way",
    ],
)
def test_leaving_the_folder_is_refused(folder, example, location):
    (folder / "inside").write_bytes(bytes(4096))
    location = str(folder / "inside") if location == "absolute" else location
    moved, _ = outside(example[0], location)
    with pytest.raises(
        ValueError, match=r"tensor 'W' is in '.*', wanted a file in the folder of the model: it leads to"
    ):
        cases.load(folder, moved)


def test_the_tensors_of_a_linked_model_are_beside_the_link(tmp_path, example):
    made, x, answers = example
    moved, data = outside(made)
    for name in ("real", "links"):
        (tmp_path / name).mkdir()
    (tmp_path / "real" / "model.onnx").write_bytes(moved.SerializeToString())
    (tmp_path / "links" / "weights.bin").write_bytes(data)
    (tmp_path / "links" / "model.onnx").symlink_to(tmp_path / "real" / "model.onnx")
    cases.agree(fastrnn.load(tmp_path / "links" / "model.onnx").run(None, {"x": x}), answers)
    with pytest.raises(ValueError, match="No such file"):
        fastrnn.load(tmp_path / "real" / "model.onnx")


BROKEN = {
    "a number that is none": ({"offset": "0x10"}, "has offset '0x10' in another file, wanted a number of at least 0"),
    "a negative number": ({"offset": "-1"}, "has offset '-1' in another file"),
    "a number in other digits": ({"length": "\u0661"}, "has length '\u0661' in another file"),
    "a huge number": ({"length": "9" * 30}, "has length '9{30}' in another file"),
    "beyond the end": ({"offset": str(2**60)}, "has bytes 1152921504606846976 to"),
    "another length": ({"length": "16"}, r"has 16 bytes in 'weights\.bin', but float32 of shape \(1, 9, 4\) has 144"),
    "no length": ({"length": None}, r"has 424 bytes in 'weights\.bin', but float32 of shape"),
    "no name": ({"location": ""}, "is in the file '', wanted a name"),
    "no location": ({"location": None}, "is in the file '', wanted a name"),
    "a name with a zero": ({"location": "a\0b"}, r"is in the file 'a\\x00b', wanted a name"),
    "a missing file": ({"location": "missing"}, "tensor 'W' .*No such file or directory"),
    "a folder": ({"location": "below"}, "tensor 'W' .*(Is a directory|which is no regular file)"),
    "a pipe": ({"location": "pipe"}, "is in 'pipe', which is no regular file"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_other_files_that_do_not_fit(tmp_path, example, name):
    changes, reason = BROKEN[name]
    moved, data = outside(example[0])
    (tmp_path / "weights.bin").write_bytes(data)
    (tmp_path / "below").mkdir()
    os.mkfifo(tmp_path / "pipe")
    tensor = next(item for item in moved.graph.initializer if item.name == "W")
    entries = {item.key: item.value for item in tensor.external_data} | changes
    tensor.ClearField("external_data")
    for key, value in entries.items():
        if value is not None:
            tensor.external_data.add(key=key, value=value)
    with pytest.raises(ValueError, match=reason):
        cases.load(tmp_path, moved)


def test_bytes_that_many_tensors_share(tmp_path, rng):
    moved, _ = outside(in_three_parts(rng))
    (tmp_path / "weights.bin").write_bytes(rng.bytes(400))
    moved.graph.initializer.extend([*moved.graph.initializer])
    for index, tensor in enumerate(moved.graph.initializer):
        del tensor.external_data[1:]
        tensor.name, tensor.dims[:] = f"t{index}", [100]
    with pytest.raises(ValueError, match="tensor 't4' and others share the bytes of other files more than 4 times"):
        cases.load(tmp_path, moved)


# Damaged files


def layer_file():
    """A small file without parts for onnxruntime: a constant behind a Transpose, a Cast of lengths, and the node."""
    tensors = cases.weights(np.random.default_rng(0), "GRU", 2, 2)
    tensors["V"] = np.ascontiguousarray(tensors.pop("W").transpose(2, 1, 0))
    attributes = {"hidden_size": 2, "clip": 1.0, "activations": ["Elu", "Tanh"]}
    nodes = [
        node("Transpose", ["V"], ["W"], perm=[2, 1, 0]),
        node("Cast", ["lens"], ["short"], to=onnx.TensorProto.INT32),
        node("GRU", ["x", "W", "R", "B", "short"], ["y"], name="rnn", **attributes),
    ]
    ports = [port("x", ["T", "B", 2]), port("lens", ["B"], np.int64)]
    return cases.model(nodes, ports, ["y"], tensors).SerializeToString()


def loads(path, data):
    """Whether a file loads; if not, by an error that is allowed and says something."""
    path.write_bytes(data)
    try:
        fastrnn.load(path)
    except ALLOWED as error:
        assert str(error)
        return False
    return True


def test_truncated_at_every_byte(tmp_path):
    data = layer_file()
    assert loads(tmp_path / "cut", data)
    assert not any(loads(tmp_path / "cut", data[:length]) for length in range(len(data)))


@pytest.mark.parametrize("flip", [0xFF, 0x01])
def test_every_byte_flipped(tmp_path, flip):
    data = bytearray(layer_file())
    taken = 0
    for position in range(len(data)):
        data[position] ^= flip
        taken += loads(tmp_path / "flipped", bytes(data))
        data[position] ^= flip
    assert 0 < taken < len(data) * 0.7  # weights and names may be anything


# Files that are made to harm


def varint(number):
    low, number = number & 127, number >> 7
    return bytes([low | 128]) + varint(number) if number else bytes([low])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def raw_model(graph):
    """A file with any bytes as its graph."""
    return b"\x08\x08" + field(7, graph) + field(8, b"\x10\x11")


def nested(depth):
    """A graph in a body in a graph, and so on."""
    data = b""
    for _ in range(depth):
        data = field(1, field(5, field(6, data)))
    return raw_model(data)


def computed(*nodes, **tensors):
    """An RNN whose weight W is computed by nodes."""
    found = cases.weights(np.random.default_rng(0), "RNN", 4, 3) | tensors
    found.pop("W")
    layer = node("RNN", ["x", "W", "R", "B"], ["y"], name="rnn")
    return cases.model([*nodes, layer], [port("x", [None, None, 4])], ["y"], found)


def repeated(op, count, first, *others, **attributes):
    """A weight out of the same node again and again, from v0 on."""
    nodes = [node(op, [f"v{index}", *others], [f"v{index + 1}"], **attributes) for index in range(count)]
    return [*nodes, node("Identity", [f"v{count}"], ["W"])], {"v0": first}


def with_many(op, count, first, *others, tensors=(), **attributes):
    nodes, own = repeated(op, count, first, *others, **attributes)
    return computed(*nodes, **own, **dict(tensors))


def lying(**changes):
    """A weight whose description says something else than its bytes."""
    tensors = cases.weights(np.random.default_rng(0), "RNN", 4, 3)
    made = cases.model([node("RNN", ["x", "W", "R", "B"], ["y"])], [port("x", [None, None, 4])], ["y"], tensors)
    tensor = made.graph.initializer[0]
    for name, value in changes.items():
        tensor.ClearField(name)
        if isinstance(value, list):
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return made


def twice():
    made = lying()
    made.graph.initializer.extend([*made.graph.initializer])
    return made


def doubling():
    nodes = [node("Concat", [f"v{index}", f"v{index}"], [f"v{index + 1}"], axis=2) for index in range(40)]
    return computed(*nodes, node("Identity", ["v40"], ["W"]), v0=np.zeros((1, 3, 64), "f4"))


def many_layers(count):
    """Nodes that differ in an attribute, so that each has prepared weights of its own."""
    tensors = cases.weights(np.random.default_rng(0), "RNN", 400, 300)
    nodes = [node("RNN", ["x", "W", "R", "B"], [f"y{index}"], clip=1.0 + index) for index in range(count)]
    return cases.model(nodes, [port("x", [None, None, 400])], [f"y{index}" for index in range(count)], tensors)


def no_text():
    data = layer_file()
    at = data.index(b"short")
    return data[:at] + b"\xff\xfe\xfd\xfc\xfb" + data[at + 5 :]


HUGE = np.array([1 << 40, 1 << 40])

HOSTILE = {
    "many empty nodes": (lambda: raw_model(b"\x0a\x00" * 1_000_000), "in a GraphProto, it has more than .* messages"),
    "deep bodies": (lambda: nested(200), "its messages are nested more than 60 deep"),
    "a length beyond the end": (lambda: raw_model(b"\x0a" + varint(1 << 62)), "is 4611686018427387904 bytes long, but"),
    "a length without an end": (lambda: raw_model(b"\x0a" + b"\xff" * 30), "a number has no end"),
    "an unknown wire type": (lambda: raw_model(b"\x0b"), "field 1 is of wire type 3, which is not used"),
    "a graph that is cut": (lambda: b"\x08\x08\x3a" + varint(1 << 40) + b"\x00", "is 1099511627776 bytes long, but"),
    "no graph": (lambda: b"\x08\x08\x12\x04name", "begins with"),
    "nothing in the graph": (lambda: raw_model(b""), "the graph has no outputs"),
    "no operators": (lambda: b"\x08\x08" + field(7, b""), "it names 0 versions of ONNX's operators, wanted one"),
    "operators twice": (lambda: raw_model(b"") + field(8, b"\x10\x11"), "it names 2 versions of ONNX's operators"),
    "names that are no text": (no_text, "in a NodeProto, 'utf-8' codec can't decode byte 0xff"),
    "huge shape": (lambda: lying(dims=[1 << 40, 1 << 20]), r"tensor 'W' has 48 bytes, but float32 of shape .* has \d+"),
    "negative shape": (lambda: lying(dims=[-3, -4]), "wanted up to 64 sizes of at least 0"),
    "many axes": (lambda: lying(dims=[1] * 1000), "wanted up to 64 sizes of at least 0"),
    "no axes": (lambda: lying(dims=[]), r"tensor 'W' has 48 bytes, but float32 of shape \(\) has 4"),
    "another type": (lambda: lying(data_type=11), "tensor 'W' has 48 bytes, but float64 of shape"),
    "halves of bytes": (lambda: lying(data_type=22), "tensor 'W' is of type INT4, wanted plain numbers"),
    "texts": (lambda: lying(data_type=8), "tensor 'W' is of type STRING, wanted plain numbers"),
    "an unknown type": (lambda: lying(data_type=99), "tensor 'W' is of type 99, wanted plain numbers"),
    "a list of another type": (lambda: lying(raw_data=b"", int64_data=[1] * 12), "tensor 'W' has 0 bytes, but"),
    "constants that double": (doubling, "Concat node 'v.*' cannot be computed: it would take .* bytes"),
    "a long chain": (lambda: with_many("Identity", 9000, np.zeros((1, 3, 5), "f8")), "R is float32, but W is float64"),
    "a huge constant": (lambda: computed(node("ConstantOfShape", ["s"], ["W"]), s=HUGE), "it would take"),
    "a constant of negative shape": (
        lambda: computed(node("ConstantOfShape", ["s"], ["W"]), s=np.array([-4, -4])),
        "wanted sizes of at least 0",
    ),
    "an expanded constant": (
        lambda: computed(node("Expand", ["v", "s"], ["W"]), v=np.zeros(1, "f4"), s=HUGE // (1 << 20)),
        "it would take",
    ),
    "a gathered constant": (
        lambda: with_many("Gather", 6, np.zeros((1, 100), "f4"), "s", tensors={"s": np.zeros((100, 100), int)}, axis=1),
        "it would take",
    ),
    "splits without end": (
        lambda: computed(node("Split", ["v"], ["W", *map(str, range(50))], axis=0), v=np.zeros((2, 2), "f4")),
        "Split node 'W' cannot be computed",
    ),
    "two weights of one name": (twice, "constants have the same name"),
    "many layers of the same weights": (lambda: many_layers(100), "all that is computed from the file too many"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_refused_with_the_reason(tmp_path, name):
    build, reason = HOSTILE[name]
    with pytest.raises(ValueError, match=reason):
        cases.load(tmp_path, build())


#: Loads each file that it is told of, and prints by how much the most memory ever used went up, in bytes.
MEASURE = """
import gc, sys
import fastrnn
def high():
    return int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
for path in sys.argv[1:]:
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")
    before = high()
    try:
        fastrnn.load(path)
    except (ValueError, TypeError, OSError, NotImplementedError):
        pass
    print(high() - before)
"""


def test_hostile_files_take_little_memory(tmp_path):
    if not Path("/proc/self/clear_refs").exists():
        pytest.skip("needs Linux")
    contents = [layer_file()]
    for build, _ in HOSTILE.values():
        made = build()
        contents.append(made if isinstance(made, bytes) else made.SerializeToString())
    paths = [tmp_path / str(number) for number in range(len(contents))]
    for path, data in zip(paths, contents, strict=True):
        path.write_bytes(data)
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    taken = list(map(int, done.stdout.split()))[1:]  # the first one takes what the packages need
    for name, data, most in zip(HOSTILE, contents[1:], taken, strict=True):
        assert most < 8 * len(data) + (32 << 20), (name, len(data), most)


def test_recognized_by_content(tmp_path):
    """Not by the name, nor without the graph and the version of the format; its fields may be in any order."""
    (tmp_path / "model.pt").write_bytes(layer_file())
    assert isinstance(fastrnn.load(tmp_path / "model.pt"), fastrnn.Sequential)
    for data in (
        b":" + b"text" * 40,
        b"\x08\x08",
        b"\x08\x08\x12\x02ab",
        b"\x08\x08\xfa\x0f\x02ab",
        b"\x0a\x02ab\x3a\x00",
    ):
        (tmp_path / "other").write_bytes(data)
        with open(tmp_path / "other", "rb") as file:
            assert not protobuf.is_onnx(file, len(data))
        with pytest.raises(ValueError, match="begins with"):
            fastrnn.load(tmp_path / "other")
    model = onnx.ModelProto.FromString(layer_file())
    data = field(7, model.graph.SerializeToString()) + b"\x08\x08" + field(8, b"\x10\x11")
    (tmp_path / "other").write_bytes(data)
    assert isinstance(fastrnn.load(tmp_path / "other"), fastrnn.Sequential)
