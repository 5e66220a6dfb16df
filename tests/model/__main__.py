"""Searches everything and says what it found: `python -m model`, or `make model`. Fails if anything is not as said.

Names of models search only these. With `--table` it writes the table of docs/model.md instead of the ways to the broken
promises.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from model.runs import RUNS, Run
from model.search import Verdict


def main(arguments: list[str]) -> int:
    """Search, print, and return how many searches were not as said."""
    surprises = 0
    as_table = "--table" in arguments
    names = {argument for argument in arguments if not argument.startswith("--")}
    runs = [run for run in RUNS if not names or run.model.__name__ in names]
    if as_table:
        sys.stdout.write("| Searched | States | Outcome |\n|---|---|---|\n")
    with ProcessPoolExecutor(2) as processes:
        for run, verdict in zip(runs, processes.map(_search, runs), strict=True):
            surprises += not run.is_as_said(verdict)
            lines = _row(run, verdict) if as_table else _told(run, verdict)
            sys.stdout.write("\n".join(lines) + "\n")
            sys.stdout.flush()
    if surprises:
        sys.stderr.write(f"{surprises} of {len(runs)} searches did not end as model/runs.py says.\n")
    return surprises


def _search(run: Run) -> Verdict:
    return run.search()


def _told(run: Run, verdict: Verdict) -> Iterator[str]:
    yield f"{run.name}: {verdict.states:,} states, {verdict.seconds:.1f} s"
    for guard in run.without:
        yield f"  taken away: {run.model.GUARDS[guard]}"
    yield f"  {verdict.broken or 'every promise holds'}"
    if not run.is_as_said(verdict):
        yield f"  UNEXPECTED: {run.breaks or 'no promise'} was to break"
    for number, words in enumerate(verdict.path, 1):
        yield f"  {number:3} {words}"


def _row(run: Run, verdict: Verdict) -> Iterator[str]:
    yield f"| {run.title} | {verdict.states:,} | {verdict.broken or 'holds'} |"


if __name__ == "__main__":
    sys.exit(1 if main(sys.argv[1:]) else 0)
