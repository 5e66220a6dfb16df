"""What the documentation says is what the code does."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from snapshed import failpoints

ROOT = Path(__file__).parents[2]


def test_the_reference_pages_are_what_the_code_would_write() -> None:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    reference = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reference)
    for name, write in reference.PAGES.items():
        assert (ROOT / "docs" / name).read_text("utf-8") == write(), f"run python docs/reference.py for {name}"


def test_the_crash_table_has_a_line_for_every_failpoint() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8").split("## Crash table", 1)[1]
    assert set(re.findall(r"^\| `([a-z.]+)` \|", text, re.MULTILINE)) == set(failpoints.NAMES)


def test_the_map_names_every_room() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8")
    rooms = {path.stem for path in (ROOT / "src" / "snapshed").iterdir() if not path.name.startswith("_")}
    missing = {room for room in rooms if f"`{room}" not in text}
    assert not missing


def test_every_decision_is_listed() -> None:
    folder = ROOT / "docs" / "adr"
    listed = (folder / "README.md").read_text("utf-8")
    for page in folder.glob("0*.md"):
        assert page.name in listed


def test_every_dependency_has_its_sentence() -> None:
    wanted = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text("utf-8"), re.S | re.M)
    assert wanted is not None
    page = (ROOT / "docs" / "adr" / "0002-parts.md").read_text("utf-8")
    for name in re.findall(r'"([a-z0-9-]+)', wanted[1]):
        assert f"`{name}`" in page, name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 150
