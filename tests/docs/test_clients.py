"""The client guide shows commands, flags and options that exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.testing import CliRunner

from snapshed.cli import app

ROOT = Path(__file__).parents[2]
GUIDE = (ROOT / "docs" / "clients.md").read_text("utf-8")
OURS = re.findall(r"^(?:\.venv/bin/|\s+- (?:run: )?)snapshed (.+)$", GUIDE, re.MULTILINE)


@pytest.mark.parametrize("line", OURS)
def test_a_command_of_the_guide_exists_with_its_flags(line: str) -> None:
    words = shlex.split(line.replace("$(", "").replace(")", ""))
    command = words[:2] if words[0] in {"token", "project", "hold", "key", "webhook"} else words[:1]
    shown = CliRunner().invoke(app, [*command, "--help"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0, shown.output
    for flag in (word for word in words if word.startswith("--")):
        assert flag in shown.output, f"{' '.join(command)} has no {flag}"


def test_the_options_of_the_plugin_are_the_ones_the_guide_shows() -> None:
    assert OURS
    plugin = (ROOT / "src" / "snapshed" / "pytest_plugin.py").read_text("utf-8")
    for option in set(re.findall(r"--snapshed(?:-[a-z-]+)?|snapshed_app_id", GUIDE)):
        assert f'"{option}"' in plugin, option
