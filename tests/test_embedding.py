"""Programs in C, C++ and Cython against the installed library: the examples, and the one of docs/embedding.md."""

import re
import shutil
import subprocess
import sys
import tarfile
import threading
import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.lib.stride_tricks import sliding_window_view

import fastrnn

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
STRICT = ["-O2", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]

pytestmark = pytest.mark.skipif(sys.platform == "win32" or not shutil.which("gcc"), reason="needs gcc")


def build(source, to, compiler="gcc", standard="c11"):
    """Compile a program and link it with the package's library."""
    libraries = [fastrnn.get_library(), "-lm", "-pthread"]
    command = [compiler, f"-std={standard}", *STRICT, source, f"-I{fastrnn.get_include()}", *libraries, "-o", to]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return to


def run(*command, code=0, text=None):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, input=text, timeout=120, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    return done


def write_sound(path, samples):
    with wave.open(str(path), "wb") as sound:
        sound.setparams((1, 2, 16000, 0, "NONE", ""))
        sound.writeframes(np.round(samples * 32768).astype("<i2").tobytes())


@pytest.fixture(scope="module")
def speech_activity(tmp_path_factory):
    return build(EXAMPLES / "c" / "speech_activity.c", tmp_path_factory.mktemp("c") / "speech_activity")


def frames_of(samples):
    padded = np.pad(samples, (64, -len(samples) % 512))
    return sliding_window_view(padded, 576)[::512]


def test_speech_activity_with_random_weights(rng, tmp_path, speech_activity):
    """The program's transform, encoder and stream are those of NumPy and of the models in Python."""

    def draw(*shape):
        return (rng.uniform(-1, 1, shape) / np.sqrt(np.prod(shape[1:]))).astype("f4")

    layers = []
    for inputs, outputs, stride in ((129, 128, 1), (128, 64, 2), (64, 64, 2), (64, 128, 1)):
        layers += [fastrnn.Conv1d(draw(outputs, inputs, 3), draw(outputs), stride=stride, padding=1), "relu"]
    encoder = fastrnn.Sequential(*layers, fastrnn.Last())
    lstm = fastrnn.LSTM.from_state_dict({"weight_ih_l0": draw(512, 128), "weight_hh_l0": draw(512, 128)})
    detector = fastrnn.Sequential(lstm, "relu", fastrnn.Linear(60 * draw(1, 128)), "sigmoid")
    encoder.save(tmp_path / "encoder")
    detector.save(tmp_path / "detector")
    samples = (rng.uniform(-1, 1, 20 * 512 + 100) * 32768).round().clip(-32768, 32767) / 32768
    write_sound(tmp_path / "sound.wav", samples)
    done = run(speech_activity, tmp_path / "encoder", tmp_path / "detector", tmp_path / "sound.wav")
    assert re.search(r"^21 frames, 0\.7 s of sound in .* times as fast as the sound$", done.stderr, re.MULTILINE)
    padded = np.pad(frames_of(samples), ((0, 0), (0, 64)), "reflect")
    windows = sliding_window_view(padded, 256, axis=1)[:, ::128] * (
        0.5 - 0.5 * np.cos(2 * np.pi * np.arange(256) / 256)
    )
    magnitudes = abs(np.fft.rfft(windows)).astype("f4")
    expected = detector(encoder(magnitudes)[None])[0, :, 0]
    found = np.array(done.stdout.split(), "f8")
    assert expected.std() > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_speech_activity_says_what_is_wrong(tmp_path, speech_activity):
    assert "usage:" in run(speech_activity, code=2).stderr
    assert run(speech_activity, "none", "none", "none", code=1).stderr == "none cannot be opened\n"


def silero():
    """The folder with silero-vad's files, and its speech; skips without them."""
    from importlib.util import find_spec

    pytest.importorskip("onnx")
    package = find_spec("silero_vad")
    sources = sorted(Path(ROOT).glob("silero_vad-*.tar.gz"))
    if package is None or not sources:
        pytest.skip("needs the package silero_vad, and its sources beside the clone's README.md")
    return Path(package.submodule_search_locations[0]) / "data", sources[-1]


def test_speech_activity_of_silero(tmp_path, speech_activity):
    onnxruntime = pytest.importorskip("onnxruntime")
    folder, sources = silero()
    model = folder / "silero_vad_16k_sequence.onnx"
    files = [tmp_path / "encoder", tmp_path / "detector"]
    run(sys.executable, EXAMPLES / "c" / "convert_silero.py", *files, model)
    with tarfile.open(sources) as archive:
        (member,) = (item for item in archive if item.name.endswith("tests/data/test.wav"))
        (tmp_path / "sound.wav").write_bytes(archive.extractfile(member).read())
    found = np.array(run(speech_activity, *files, tmp_path / "sound.wav").stdout.split(), "f8")
    with wave.open(str(tmp_path / "sound.wav")) as sound:
        samples = np.frombuffer(sound.readframes(-1), "<i2").astype("f4") / 32768
    zeros = np.zeros((1, 1, 128), "f4")
    session = onnxruntime.InferenceSession(model)
    (own,) = session.run(["speech_probs"], {"input": np.ascontiguousarray(frames_of(samples)), "h": zeros, "c": zeros})
    assert len(own) == 1875 and abs(own.mean() - 0.7783314) < 1e-6
    np.testing.assert_allclose(found, own, atol=1e-5)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++")
def test_audio_blocks(tmp_path):
    program = build(EXAMPLES / "cpp" / "audio_blocks.cpp", tmp_path / "audio_blocks", "g++", "c++11")
    lines = run(program).stdout.splitlines()
    assert lines[0] == "1500 blocks of 64 samples; a block lasts 1333 us"
    assert re.fullmatch(r"mean [\d.]+ us, [\d.]+% of it; the longest [\d.]+ us", lines[1])


@pytest.mark.slow
def test_cython_streams(rng, tmp_path):
    pytest.importorskip("Cython")
    for path in (EXAMPLES / "cython").iterdir():
        if path.suffix in (".pyx", ".py"):
            shutil.copy(path, tmp_path)
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    sys.path.insert(0, str(tmp_path))
    try:
        import streams
    finally:
        sys.path.remove(str(tmp_path))
    weights = {"weight_ih_l0": rng.standard_normal((12, 3)), "weight_hh_l0": rng.standard_normal((12, 4))}
    gru = fastrnn.GRU.from_state_dict({name: array.astype("f4") for name, array in weights.items()})
    model = fastrnn.Sequential(gru, fastrnn.Linear(rng.standard_normal((2, 4)).astype("f4")))
    model.save(tmp_path / "model")
    batch = streams.Streams(str(tmp_path / "model").encode(), 5)
    x, y = rng.standard_normal((7, 5, 3)).astype("f4"), np.empty((7, 5, 2), "f4")
    thread = threading.Thread(target=batch.run, args=(x, y))
    thread.start()
    thread.join()
    np.testing.assert_array_equal(y, model(x.transpose(1, 0, 2)).transpose(1, 0, 2))
    with pytest.raises(ValueError, match="cannot be opened"):
        streams.Streams(b"none", 1)
    with pytest.raises(ValueError, match="x has 4 rows of 3, wanted 5 of 3"):
        batch.run(x[:, :4].copy(), y)


def test_the_program_of_the_guide(rng, tmp_path):
    """docs/embedding.md's program in C prints what its model gives in Python."""
    guide = (ROOT / "docs" / "embedding.md").read_text()
    (program,) = re.findall(r"^```c\n(.*?)^```", guide, re.MULTILINE | re.DOTALL)
    (tmp_path / "program.c").write_text(program)
    build(tmp_path / "program.c", tmp_path / "program")

    def draw(*shape):
        return rng.standard_normal(shape).astype("f4")

    gru = fastrnn.GRU.from_state_dict({"weight_ih_l0": draw(12, 2), "weight_hh_l0": draw(12, 4)})
    model = fastrnn.Sequential(gru, fastrnn.Linear(draw(3, 4)), fastrnn.Softmax())
    model.save(tmp_path / "model.safetensors")
    x = draw(6, 2)
    text = "".join(f"{a:.9g} {b:.9g}\n" for a, b in x)
    done = run(tmp_path / "program", tmp_path / "model.safetensors", text=text)
    found = np.array(done.stdout.split(), "f4").reshape(6, 3)
    np.testing.assert_array_equal(found, model(x))
    assert run(tmp_path / "program", "none", code=1).stderr == "none cannot be opened\n"
