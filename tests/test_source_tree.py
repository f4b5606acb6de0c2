"""A source tree without the compiled module, as after an install that is not editable."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import fastrnn

#: An editable install finds the modules of its own clone wherever the package is imported from.
BEGINNING = """import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "__editable__" not in getattr(finder, "__module__", "")]
"""


@pytest.fixture
def tree(tmp_path):
    """A copy of the package's Python files."""
    copy = tmp_path / "fastrnn"
    without = shutil.ignore_patterns("*.so", "*.pyd", "core", "__pycache__")
    shutil.copytree(Path(fastrnn.__file__).parent, copy, ignore=without)
    return copy


def failure(tree, statement):
    """The last line on stderr when Python runs a statement in the folder above the tree."""
    done = subprocess.run(
        [sys.executable, "-c", BEGINNING + statement], capture_output=True, text=True, cwd=tree.parent
    )
    assert done.returncode == 1, done.stderr
    return done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("statement", ["import fastrnn", "from fastrnn.layers import LSTM", "import fastrnn.cli"])
def test_a_tree_without_the_compiled_module_says_what_to_do(tree, statement):
    line = failure(tree, statement)
    assert line.startswith("ImportError: ") and str(tree) in line
    assert "no compiled module" in line and "pip install -e ." in line and "another folder" in line


def test_a_fault_inside_the_compiled_module_is_not_hidden(tree):
    """The error of a module that exists and cannot be loaded is not replaced."""
    (tree / "_core.py").write_text("import a_module_that_nobody_has\n")
    assert failure(tree, "import fastrnn") == "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"
