"""The page, in headless Chromium, driven by its DevTools protocol over a WebSocket."""

import json
import re
import shutil
import struct
import subprocess
import time

import numpy as np
import pytest
import serving
from websockets.sync.client import connect

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

TOKEN = "a token: ü/+"


class Page:
    """A tab of a browser."""

    def __init__(self, address):
        self.socket = connect(address, max_size=None, compression=None)
        self._number = 0
        self._session = None
        self.faults = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        self.socket.send(json.dumps(message))
        while True:
            answer = json.loads(self.socket.recv(30))
            entry = answer.get("params", {}).get("entry", {})
            if answer.get("method") == "Runtime.exceptionThrown" or entry.get("level") == "error":
                self.faults.append(answer["params"])
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]

    def run(self, script):
        """The value of an expression of JavaScript."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script, pattern):
        """Wait until the value of an expression matches."""
        deadline = time.monotonic() + 20
        while not re.search(pattern, str(value := self.run(script))):
            assert time.monotonic() < deadline, value
            time.sleep(0.02)
        return value

    def open(self, url):
        self.call("Page.navigate", url=url)
        self.wait_for("document.readyState + location.href", f"^complete{re.escape(url)}")

    def mouse(self, kind, x, y):
        button = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, buttons=1, **button)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed; .ci/run installs it")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run"]
    profile = f"--user-data-dir={tmp_path_factory.mktemp('profile')}"
    process = subprocess.Popen([CHROMIUM, *options, profile, "about:blank"], stderr=subprocess.PIPE, text=True)
    try:
        for line in process.stderr:
            if match := re.search(r"listening on (ws://\S+)", line):
                page = Page(match[1])
                page.call(
                    "Emulation.setDeviceMetricsOverride", width=1000, height=1500, deviceScaleFactor=1, mobile=False
                )
                yield page
                page.socket.close()
                break
        else:
            pytest.fail("the browser does not start")
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    return serving.save(tmp_path_factory.mktemp("models"), ["tones", "tags"])


@pytest.fixture(scope="module")
def server(models, tmp_path_factory):
    tokens = tmp_path_factory.mktemp("tokens") / "tokens"
    tokens.write_text("token-of.the_page~1\n")
    with serving.Server(*models[1], "--token-file", tokens) as server:
        yield server


def start(page, model, token="token-of.the_page~1"):
    page.run(f"element('model').value = {model!r}; element('token').value = {token!r}")
    page.run("element('chunk').value = 7; element('rate').value = 100000; element('start').click()")


def results(page):
    """The curve, and the outputs (T, P) that the page has plotted."""
    curve, outputs = json.loads(page.run("JSON.stringify([Array.from(curve), outputs])"))
    return np.array(curve, "f4"), np.array(outputs, "f4").T


def test_a_drawn_curve_is_streamed_and_plotted(browser, server, models):
    browser.open(f"http://{server.http}/?model=tones")
    assert browser.run("element('model').value") == "tones"
    before = browser.run("Array.from(curve)")
    box = json.loads(browser.run("JSON.stringify(element('draw').getBoundingClientRect())"))
    y = box["y"] + box["height"] / 4
    browser.mouse("mousePressed", box["x"] + 20, y)
    browser.mouse("mouseMoved", box["x"] + 400, y)
    browser.mouse("mouseReleased", box["x"] + 400, y)
    drawn = browser.run("Array.from(curve)")
    assert drawn != before and abs(drawn[100] - 0.5) < 0.05 and drawn[-1] == before[-1]
    empty = browser.run("element('plot').toDataURL()")
    start(browser, "tones")
    browser.wait_for("element('status').textContent", "^Done: 86 frames$")
    curve, outputs = results(browser)
    wanted = models[0]["tones"](np.repeat(curve[:, None], 3, axis=1)[None])[0][0]
    assert outputs.tobytes() == wanted[:, :16].tobytes()
    assert browser.run("element('plot').toDataURL()") != empty
    assert not browser.faults


@pytest.mark.parametrize(("tag", "bits"), [(1, 8), (1, 16), (1, 24), (1, 32), (3, 32)])
def test_a_wav_file(browser, server, models, tag, bits):
    samples = np.sin(np.arange(50) / 5) * 0.9
    if tag == 3:
        data = samples.astype("<f4").tobytes()
    elif bits == 8:
        data = (samples * 128 + 128).astype("u1").tobytes()
    else:
        whole = (samples * 2 ** (bits - 1)).astype("<i4")
        data = b"".join(struct.pack("<i", n)[: bits // 8] for n in whole.tolist())
    form = struct.pack("<HHIIHH", tag, 1, 8000, 8000 * bits // 8, bits // 8, bits)
    chunks = (
        b"fmt " + struct.pack("<I", 16) + form + b"LIST\x03\0\0\0abc\0" + b"data" + struct.pack("<I", len(data)) + data
    )
    wav = b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks
    browser.open(f"http://{server.http}/")
    browser.run(
        f"files = new DataTransfer(); files.items.add(new File([Uint8Array.from({list(wav)})], 'a.wav'));"
        "element('wav').files = files.files; element('wav').dispatchEvent(new Event('change'))"
    )
    browser.wait_for("element('status').textContent", "^50 samples at 8000 Hz$")
    assert browser.run("element('rate').value + ' ' + element('chunk').value") == "8000 160"
    start(browser, "tones")
    browser.wait_for("element('status').textContent", "^Done: 8 frames$")
    curve, outputs = results(browser)
    np.testing.assert_allclose(curve, samples, atol=0.01)
    wanted = models[0]["tones"](np.repeat(curve[:, None], 3, axis=1)[None])[0][0]
    assert outputs.tobytes() == wanted[:, :16].tobytes()
    assert not browser.faults


def test_ids_are_streamed(browser, server, models):
    browser.open(f"http://{server.http}/")
    start(browser, "tags")
    browser.wait_for("element('status').textContent", "^Done")
    curve, outputs = results(browser)
    wanted = models[0]["tags"]((curve > 0).astype("i8")[None])[0]
    assert outputs.tobytes() == wanted.tobytes()


def test_refusals_are_shown(browser, server):
    browser.open(f"http://{server.http}/")
    start(browser, "tones", TOKEN)
    browser.wait_for("element('status').className + element('status').textContent", "^errorRefused")
    start(browser, "none")
    browser.wait_for("element('status').className + element('status').textContent", "^errorRefused")
    browser.run("files = new DataTransfer(); files.items.add(new File(['no sound'], 'a.wav'))")
    browser.run("element('wav').files = files.files; element('wav').dispatchEvent(new Event('change'))")
    browser.wait_for("element('status').textContent", "^this is no WAV file$")
    browser.faults.clear()  # the browser logs the refused handshakes
