"""Pages name files that there are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = (ROOT, ROOT / "src" / "maqd")
PLACEHOLDERS = re.compile(r"[<>*]|NAME")


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/architecture.md"])
def test_every_file_that_a_page_names_exists(page: str):
    text = (ROOT / page).read_text()
    named = re.findall(r"`((?:[\w.-]+/)+(?:[\w.-]+\.(?:py|cpp|c|h|md))?)`", text)
    named += re.findall(r"`((?:[\w.-]+/)*[\w-]+\.(?:py|cpp|c|h|md|toml|txt))`", text)
    assert len(named) > 10
    files = {path.name for path in ROOT.rglob("*") if ".venv" not in path.parts and "build" not in path.parts}
    missing = [
        name
        for name in dict.fromkeys(named)
        if not PLACEHOLDERS.search(name)
        and not any((folder / name).exists() for folder in FOLDERS)
        and not ("/" not in name and name in files)
    ]
    assert not missing
