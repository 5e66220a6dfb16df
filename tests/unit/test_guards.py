"""The list of guards that `make mutants` takes out keeps up with the source."""

from __future__ import annotations

from pathlib import Path

import pytest
from mutants.guards import GUARDS, Guard

SOURCE = Path(__file__).parents[2] / "src" / "snapshed"


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
def test_every_guard_stands_where_the_list_says(guard: Guard) -> None:
    text = (SOURCE / guard.file).read_text()
    for old, new in ((guard.old, guard.new), *guard.also):
        assert text.count(old) == 1
        assert old != new
