"""Tests of the C core in C: tests/capi/run.sh compiles and runs them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

RUN = Path(__file__).parent / "capi" / "run.sh"


@pytest.mark.slow
def test_core_and_example():
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: CC is not set, and neither gcc nor cc is on the path")
    done = subprocess.run(
        ["bash", RUN, "plain"], env={**os.environ, "CC": compiler}, capture_output=True, text=True, check=False
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    counts = re.search(r"^(\d+) passed, (\d+) failed$", output, re.MULTILINE)
    assert counts and int(counts[1]) > 0 and int(counts[2]) == 0, output
    assert "no error" in output.splitlines(), output
