"""Every command the README shows exists, with every flag it shows."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from snapshed.cli import app

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)
LINES = [line.split("  #")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
OURS = [line for line in LINES if line.startswith(".venv/bin/snapshed ")]
GROUPS = {"token", "project", "hold", "key", "retention", "webhook"}


@pytest.mark.parametrize("line", OURS)
def test_a_command_of_the_readme_exists_with_its_flags(line: str) -> None:
    words = shlex.split(line.replace("$(", "").replace(")", ""))[1:]
    command = words[:2] if words[0] in GROUPS else words[:1]
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for flag in (word for word in words if word.startswith("--")):
        assert flag in shown.output, f"{' '.join(command)} has no {flag}"


def test_every_make_target_of_the_readme_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    shown = {shlex.split(line)[1] for line in LINES if line.startswith("make ")}
    assert shown
    assert shown <= targets


def test_the_readme_shows_the_whole_job() -> None:
    text = " ".join(LINES)
    for command in ("demo", "serve", "sentry-cli snapshots upload", "upload", "wait", "delete", "receipt", "reconcile"):
        assert command in text
