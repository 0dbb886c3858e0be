"""What packages and people read about the project says the same in every place."""

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
import yaml

import maqd
from maqd.cli import main
from maqd.optional import EXTRAS, remedy
from maqd.runtime.native import native_module

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_there_is_one_version():
    assert importlib.metadata.version("maqd") == maqd.__version__
    assert PROJECT["dynamic"] == ["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == maqd.__version__


def test_version_says_what_was_compiled(capsys: pytest.CaptureFixture[str]):
    assert main(["--version"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"maqd {maqd.__version__} (native engine: ")
    assert ("native engine: not built" in line) == (native_module() is None)


def test_every_remedy_names_an_extra_that_there_is():
    extras = PROJECT["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)
    for module, extra in EXTRAS.items():
        assert f"[{extra}]" in remedy(module)


def test_remedy_of_a_checkout_installs_the_checkout():
    assert remedy("torch") == f'pip install --editable "{ROOT}[train]"'


def test_names_that_are_imported_late_are_listed_and_there():
    assert set(maqd.__all__) <= set(dir(maqd))
    assert [name for name in maqd.__all__ if not hasattr(maqd, name)] == []


def test_workflows_call_what_the_makefile_has():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for file in (ROOT / ".github" / "workflows").glob("*.yml"):
        assert yaml.safe_load(file.read_text())["jobs"], file
        assert set(re.findall(r"make ([a-z-]+)", file.read_text())) <= targets
