"""Takes the guards of the protocol out one by one and demands that the tests notice.

    PYTHONPATH=tests python -m mutants.run [WORD …]      only guards whose name contains one of the words

Each guard is taken out of a copy of the source; the tests that must notice run against the copy until the first fails.
Prints a line a guard; exit 1 if one was not noticed, or no longer stands where the list says.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from mutants.guards import GUARDS, Guard

ROOT = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns("__pycache__", "browser", "crash", "mutants")


def main(words: list[str]) -> int:
    """Try the guards whose name contains one of the words, or all."""
    chosen = [guard for guard in GUARDS if not words or any(word in guard.name for word in words)]
    unnoticed = [guard for guard in chosen if not _is_noticed(guard)]
    sys.stdout.write(f"{len(chosen) - len(unnoticed)} of {len(chosen)} guards are necessary.\n")
    return 1 if unnoticed else 0


def _is_noticed(guard: Guard) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "tests"):
            shutil.copytree(ROOT / name, copy / name, ignore=_LEFT_OUT)
        shutil.copy(ROOT / "pyproject.toml", copy)
        if not take_out(guard, copy):
            return _say("GONE", guard, "it no longer stands where the list says")
        started = time.monotonic()
        failed = _first_failure(guard, copy)
        took = f"{time.monotonic() - started:.0f} s"
    return _say("noticed", guard, f"{took}, {failed}") if failed else _say("UNNOTICED", guard, took)


def take_out(guard: Guard, root: Path) -> bool:
    """Take a guard out of the source under `root`; False if it does not stand there exactly once."""
    file = root / "src" / "snapshed" / guard.file
    text = file.read_text()
    stands = True
    for old, new in ((guard.old, guard.new), *guard.also):
        stands = stands and text.count(old) == 1
        text = text.replace(old, new)
    file.write_text(text)
    return stands


def _first_failure(guard: Guard, copy: Path) -> str | None:
    """The first test that fails without the guard, or None."""
    tests = [f"tests/integration/{name}" for name in guard.killed_by]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header", *tests]
    done = subprocess.run(
        command,
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == 0:
        return None
    named = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if done.returncode != 1 or not named:
        raise SystemExit(f"The tests did not run without the guard {guard.name!r}:\n{done.stdout}{done.stderr}")
    return named[0].split(" - ")[0].rpartition("::")[2]


def _say(word: str, guard: Guard, how: str) -> bool:
    sys.stdout.write(f"{word:10} {guard.name} ({how})\n")
    sys.stdout.flush()
    return word == "noticed"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
