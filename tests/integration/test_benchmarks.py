"""The benchmarks run, in sizes that tell nothing about speed. What they measure is beside the point here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.mark.parametrize(
    "words",
    [["deletion.py", "--tiny", "--store", "disk"], ["soak.py", "--deletions", "20"]],
    ids=" ".join,
)
@pytest.mark.scale
def test_a_benchmark_runs(words: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / words[0], *words[1:]], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout
