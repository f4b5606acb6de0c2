"""`fastrnn.ray.Predictor` on batches of every kind, and what it refuses; no cluster is started."""

import json

import numpy as np
import pytest

import fastrnn

pytest.importorskip("ray", reason="needs the package ray")
pa = pytest.importorskip("pyarrow", reason="needs the package pyarrow")

import fsspec  # noqa: E402

from fastrnn import ray as fray  # noqa: E402
from fastrnn.ray.model_files import fetch  # noqa: E402

LENGTHS = [3, 0, 7, 1, 3, 7, 1, 0, 2]


def random(rng, *shape):
    return rng.uniform(-0.7, 0.7, shape).astype("f4")


def gru(rng, input_size=3, hidden_size=9):
    sizes = {"weight_ih_l0": input_size, "weight_hh_l0": hidden_size}
    return fastrnn.GRU.from_state_dict({name: random(rng, 3 * hidden_size, size) for name, size in sizes.items()})


def tagger(rng, pools=False):
    ops = [fastrnn.Embedding(random(rng, 11, 4)), gru(rng, 4), fastrnn.Linear(random(rng, 5, 9))]
    return fastrnn.Sequential(*ops, *([fastrnn.Last()] if pools else []))


def lists(rows, kind):
    return pa.table({"n": list(range(len(rows))), "x": pa.array([row.tolist() for row in rows], kind)})


def same(found, wanted):
    assert len(found) == len(wanted)
    for y, expected in zip(found, wanted, strict=True):
        y = np.asarray(y, "f4").reshape(expected.shape)
        assert y.tobytes() == expected.tobytes()


@pytest.mark.parametrize("inner", ["list", "fixed", "large"])
def test_vectors_of_arrow(rng, inner):
    layer = gru(rng)
    rows = [random(rng, n, 3) for n in LENGTHS]
    number = pa.float32()
    kind = {"list": pa.list_(pa.list_(number)), "fixed": pa.list_(pa.list_(number, 3))}
    kind["large"] = pa.large_list(pa.large_list(pa.float64()))
    table = lists([random(rng, 2, 3), *rows, random(rng, 2, 3)], kind[inner]).slice(1, len(rows))
    table = pa.concat_tables([table.slice(0, 4), table.slice(4)])  # of several chunks
    result = fray.Predictor(layer, "x", "y")(table)
    assert result.column_names == ["n", "x", "y"] and result["n"] == table["n"]
    assert result.schema.field("y").type == pa.large_list(pa.list_(number, 9))
    same(result["y"].to_pylist(), [layer(row[None])[0][0] for row in rows])


def test_vectors_of_arrays_and_lists(rng):
    layer = gru(rng)
    rows = [random(rng, n, 3) for n in LENGTHS]
    wanted = [layer(row[None])[0][0] for row in rows]
    arrays = np.empty(len(rows), object)
    arrays[:] = rows
    nested = np.empty(len(rows), object)  # as Ray gives Arrow's lists of lists
    for index, row in enumerate(rows):
        nested[index] = np.empty(len(row), object)
        nested[index][:] = list(row)
    for column in (arrays, nested, [row.tolist() for row in rows]):
        batch = {"x": column, "n": np.arange(len(rows))}
        result = fray.Predictor(layer, "x", "y")(batch)
        assert list(result) == ["x", "n", "y"] and "y" not in batch
        same(result["y"], wanted)
    equal = random(rng, 4, 5, 3)
    same(fray.Predictor(layer, "x", "x")({"x": equal})["x"], [layer(row[None])[0][0] for row in equal])


def test_pandas(rng):
    pandas = pytest.importorskip("pandas")
    layer = gru(rng)
    rows = [random(rng, n, 3) for n in LENGTHS]
    frame = pandas.DataFrame({"x": rows}, index=range(7, 7 + len(rows)))
    result = fray.Predictor(layer, "x", "y")(frame)
    assert list(result.columns) == ["x", "y"] and list(frame.columns) == ["x"] and (result.index == frame.index).all()
    same(result["y"], [layer(row[None])[0][0] for row in rows])


def test_single_numbers_are_steps_of_width_1(rng):
    layer = gru(rng, 1)
    rows = [random(rng, n) for n in LENGTHS]
    result = fray.Predictor(layer, "x", "y")(lists(rows, pa.list_(pa.float32())))
    same(result["y"].to_pylist(), [layer(row[None, :, None])[0][0] for row in rows])


@pytest.mark.parametrize("pools", [False, True])
def test_ids_and_strings(rng, tmp_path, pools):
    model = tagger(rng, pools)
    rows = [rng.integers(0, 11, n) for n in LENGTHS]
    texts = ["".join("abcdefghijk"[number] for number in row) for row in rows]
    vocabulary = {token: number for number, token in enumerate("abcdefghijk")}
    wanted = [model(row[None])[0] for row in rows]
    result = fray.Predictor(model, "x", "y")(lists(rows, pa.list_(pa.int32())))
    same(result["y"].to_pylist(), wanted)
    if pools:
        assert result.schema.field("y").type == pa.list_(pa.float32(), 5)
    (tmp_path / "vocabulary.json").write_text(json.dumps(vocabulary))
    for source in (vocabulary, list(vocabulary), tmp_path / "vocabulary.json", f"file://{tmp_path}/vocabulary.json"):
        predictor = fray.Predictor(model, "x", "y", vocabulary=source)
        same(predictor(pa.table({"x": texts}))["y"].to_pylist(), wanted)
    same(predictor({"x": np.array(texts)})["y"], wanted)
    same(predictor(pa.table({"x": pa.array([list(text) for text in texts])}))["y"].to_pylist(), wanted)
    unknown = fray.Predictor(model, "x", "y", vocabulary=vocabulary, unknown="c")
    same(unknown({"x": ["a-b"]})["y"], [model(np.array([[0, 2, 1]]))[0]])


def test_a_file_and_its_options(rng, tmp_path):
    layer = gru(rng)
    np.savez(
        tmp_path / "two.npz",
        **{
            f"{end}.{name}": random(rng, 27, size)
            for end in "ab"
            for name, size in (("weight_ih_l0", 3), ("weight_hh_l0", 9))
        },
    )
    layer.save(tmp_path / "layer.safetensors")
    rows = [random(rng, n, 3) for n in LENGTHS]
    for path in (tmp_path / "layer.safetensors", f"file://{tmp_path}/layer.safetensors"):
        same(fray.Predictor(path, "x", "y")({"x": rows})["y"], [layer(row[None])[0][0] for row in rows])
    options = {"prefix": "b", "weight_dtype": "float16"}
    second = fastrnn.load(tmp_path / "two.npz", **options)
    found = fray.Predictor(tmp_path / "two.npz", "x", "y", **options)({"x": rows})["y"]
    same(found, [second(row[None])[0][0] for row in rows])


def test_a_function_gets_the_longest_row_first():
    calls = []

    def make():
        return lambda rows: (calls.append(list(rows)), [row.upper() for row in rows])[1]

    result = fray.Predictor(make, "x", "y")(pa.table({"x": ["bb", "", "ccc", "aa", "d"]}))
    assert calls == [["ccc", "bb", "aa", "d", ""]]
    assert result["y"].to_pylist() == ["BB", "", "CCC", "AA", "D"]


def test_tensors_of_arrow(rng):
    """Ray's tensors of one shape and of several, and Arrow's own."""
    extensions = pytest.importorskip("ray.data.extensions")
    layer = gru(rng)
    equal, ragged = random(rng, 4, 5, 3), np.empty(3, object)
    ragged[:] = [random(rng, n, 3) for n in (2, 7, 1)]
    columns = [
        (extensions.ArrowTensorArray.from_numpy(equal), equal),
        (extensions.ArrowVariableShapedTensorArray.from_numpy(ragged), ragged),
        (pa.FixedShapeTensorArray.from_numpy_ndarray(equal), equal),
    ]
    for column, rows in columns:
        table = pa.table({"x": pa.chunked_array([column.slice(0, 1), column.slice(1)])})
        same(fray.Predictor(layer, "x", "y")(table)["y"].to_pylist(), [layer(row[None])[0][0] for row in rows])


def test_strings_of_every_arrow_type(rng):
    model, texts = tagger(rng), ["ab", "", "cab", "ab"]
    wanted = fray.Predictor(model, "x", "y", vocabulary=list("abc"))({"x": texts})["y"]
    columns = [
        pa.array(texts, pa.large_string()),
        pa.array(texts, pa.string_view()),
        pa.array(texts).dictionary_encode(),
    ]
    columns += [pa.array([list(text) for text in texts], kind(pa.string())) for kind in (pa.large_list, pa.list_view)]
    for column in columns:
        result = fray.Predictor(model, "x", "y", vocabulary=list("abc"))(pa.table({"x": column}))
        same(result["y"].to_pylist(), wanted)


def test_rows_without_steps_alone(rng):
    layer, model = gru(rng), tagger(rng)
    kinds = [pa.list_(pa.list_(pa.float32())), pa.list_(pa.list_(pa.float32(), 3)), pa.list_(pa.null())]
    for column in (*(pa.array([[], []], kind) for kind in kinds), pa.chunked_array([[[]], [[]]])):
        result = fray.Predictor(layer, "x", "y")(pa.table({"x": column}))
        assert result["y"].to_pylist() == [[], []] and result.schema.field("y").type.value_type.list_size == 9
    assert [y.shape for y in fray.Predictor(model, "x", "y", vocabulary=["a"])({"x": ["", ""]})["y"]] == [(0, 5)] * 2


def test_a_file_of_another_file_system(rng, tmp_path):
    """The content tells the format: the copy has another name."""
    layer = gru(rng)
    weights = {name: random(rng, 27, size) for name, size in (("weight_ih_l0", 3), ("weight_hh_l0", 9))}
    layer.save(tmp_path / "a.safetensors")
    np.savez(tmp_path / "b.npz", **weights)
    rows = [random(rng, n, 3) for n in LENGTHS]
    for name, model in (("a.safetensors", layer), ("b.npz", fastrnn.GRU.from_state_dict(weights))):
        address = f"memory://{tmp_path.name}/{name}"
        fsspec.filesystem("memory").put(str(tmp_path / name), address)
        same(fray.Predictor(address, "x", "y")({"x": rows})["y"], [model(row[None])[0][0] for row in rows])
        path = fetch(address)
        assert path == fetch(address) and not path.endswith(name)
        fsspec.filesystem("memory").pipe_file(address, b"another")
        assert fetch(address) != path  # another version


def test_no_rows(rng):
    predictor = fray.Predictor(gru(rng), "x", "y")
    assert len(predictor({"x": np.empty(0, object)})["y"]) == 0
    assert predictor(lists([], pa.list_(pa.list_(pa.float32())))).num_rows == 0


def test_what_is_refused(rng, tmp_path):
    layer, model = gru(rng), tagger(rng)

    def refused(kind, message, *arguments, rows=([[0.0] * 3],), **options):
        with pytest.raises(kind, match=message):
            fray.Predictor(*arguments, **options)({"x": list(rows)})

    refused(KeyError, "no column 'z', only 'x'", layer, "z", "y")
    refused(TypeError, "inputs is 3", layer, 3, "y")
    refused(TypeError, "model is int", 3, "x", "y")
    refused(TypeError, "prefix given", layer, "x", "y", prefix="a")
    refused(TypeError, r"model\(\) is int", lambda: 3, "x", "y")
    refused(ValueError, "2 results for 1 rows", lambda: lambda rows: [1, 2], "x", "y")
    refused(ValueError, r"x\[1\] is missing", layer, "x", "y", rows=[[[0.0] * 3], None])
    refused(
        ValueError, r"x\[1\] has shape \(2, 4\), wanted \(T, 3\)", layer, "x", "y", rows=[[[0.0] * 3], [[0.0] * 4] * 2]
    )
    refused(TypeError, r"x\[0\] is complex128", layer, "x", "y", rows=[np.zeros((2, 3), complex)])
    refused(TypeError, r"x\[0\] has strings, but there is no vocabulary", model, "x", "y", rows=["abc"])
    refused(ValueError, r"x\[1\] has ids from 3 to 11, wanted 0 to 10", model, "x", "y", rows=[[3, 10], [3, 11, 4, 5]])
    refused(TypeError, r"x\[0\] is of type float64, wanted integers", model, "x", "y", rows=[[0.5]])
    refused(ValueError, r"x\[0\] has 'z' at 1", model, "x", "y", rows=["az"], vocabulary=["a", "b"])
    refused(TypeError, r"x\[0\] is .*wanted a string", model, "x", "y", rows=[[1, 2]], vocabulary=["a", "b"])
    refused(ValueError, "unknown is 'z', which is not in", model, "x", "y", vocabulary=["a"], unknown="z")
    refused(ValueError, "there is no vocabulary", model, "x", "y", unknown="z")
    refused(ValueError, "a token twice", model, "x", "y", vocabulary=["a", "a"])
    refused(TypeError, "wanted a string and an integer", model, "x", "y", vocabulary={"a": 0.5})
    refused(TypeError, r"has \['a'\]: 0, wanted a string", model, "x", "y", vocabulary=[["a"]])
    for number in (-1, 1 << 63):
        refused(ValueError, "wanted an id from 0", model, "x", "y", vocabulary={"a": number})
    refused(TypeError, r"x\[1\] is 0.5, wanted a sequence", layer, "x", "y", rows=[[], 0.5])
    refused(TypeError, r"x\[0\] is nan, wanted a sequence", model, "x", "y", rows=[float("nan")], vocabulary=["a"])
    refused(TypeError, r"x\[0\] is {'a': 1}, wanted a sequence", layer, "x", "y", rows=[{"a": 1}])
    refused(ValueError, r"x\[0\] has steps of unequal widths", layer, "x", "y", rows=[[[0.0] * 3, [0.0]]])
    (tmp_path / "vocabulary.json").write_text("{")
    path = tmp_path / "vocabulary.json"
    refused(ValueError, r"vocabulary.json, which is no JSON: ", model, "x", "y", vocabulary=path)
    table = pa.table({"x": pa.array([[[0.0] * 3], [[0.0] * 4]])})
    with pytest.raises(ValueError, match="x has steps of 3 and of 4 numbers"):
        fray.Predictor(layer, "x", "y")(table)
    with pytest.raises(ValueError, match=r"x\[1\] is missing"):
        fray.Predictor(layer, "x", "y")(pa.table({"x": pa.array([[[0.0] * 3], None])}))
    with pytest.raises(ValueError, match=r"x\[1\] is missing"):
        fray.Predictor(layer, "x", "y")(pa.table({"x": pa.chunked_array([[[[0.0] * 3]], [None, [[0.0] * 3]]])}))
    for rows in ([[[0.0] * 3], [[0.0, None, 1.0]]], [[[0.0] * 3], [[0.0] * 3, None]]):
        for column in (pa.array(rows), pa.chunked_array([rows[:1], rows[1:]])):
            with pytest.raises(ValueError, match=r"x\[1\] has a value that is missing"):
                fray.Predictor(layer, "x", "y")(pa.table({"x": column}))
    with pytest.raises(ValueError, match=r"x\[1\] has steps of 2 and of 3 numbers"):
        fray.Predictor(layer, "x", "y")(pa.table({"x": pa.array([[[0.0] * 3], [[0.0] * 3, [0.0] * 2]])}))
