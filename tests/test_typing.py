"""The declared types of public functions, checked by mypy."""

from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_cases(tmp_path):
    """Every assert_type holds, and every line marked as an error is one."""
    api = pytest.importorskip("mypy.api")
    arguments = ["--config-file", ROOT / "pyproject.toml", "--cache-dir", tmp_path, ROOT / "tests" / "typing_cases.py"]
    report, errors, status = api.run([str(argument) for argument in arguments])
    assert status == 0, report + errors
