"""The protocol as written keeps its promises in every state of the small models, and loses one with every guard.

These are the quick searches; `make model` runs all of them.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from model.locks import Locks, out_of_order
from model.runs import RUNS, Run
from model.search import Model

pytestmark = pytest.mark.model

QUICK = [run for run in RUNS if run.quick]


@pytest.mark.scale
@pytest.mark.parametrize("run", [run for run in QUICK if run.breaks is None], ids=lambda run: run.name)
def test_every_promise_holds_in_every_state(run: Run) -> None:
    verdict = run.search()
    assert verdict.broken is None, "\n".join(verdict.path)


@pytest.mark.scale
@pytest.mark.parametrize("run", [run for run in QUICK if run.breaks], ids=lambda run: run.name)
def test_a_promise_breaks_without_its_guard(run: Run) -> None:
    verdict = run.search()
    assert run.is_as_said(verdict), verdict.broken
    assert verdict.path, "and the way there can be read"


@pytest.mark.parametrize(
    "model", sorted({run.model for run in RUNS}, key=lambda model: model.__name__), ids=lambda model: model.__name__
)
def test_every_guard_is_taken_away_by_some_search(model: type[Model]) -> None:
    taken = {guard for run in RUNS if run.model is model for guard in run.without}
    assert taken == model.GUARDS.keys()


def test_the_documentation_lists_every_search() -> None:
    """What writes the table: `PYTHONPATH=tests .venv/bin/python -m model --table`."""
    page = (Path(__file__).parents[2] / "docs" / "model.md").read_text()
    assert [run.name for run in RUNS if f"| {run.title} |" not in page] == []


def test_locks_are_taken_in_the_one_order() -> None:
    """But for T6, which takes candidates first, since nobody waits for one; and for the entries of the unique index, which
    is why one T3 runs at a time."""
    wrong = {name: out_of_order(acts) for name, acts in Locks().acts.items()}
    late = {name for name, found in wrong.items() if found}
    assert late == {"T6", "T3 of session 2"}, wrong
