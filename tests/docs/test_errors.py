"""Every error can be built and printed, and the documentation knows its code."""

from __future__ import annotations

from pathlib import Path

import pytest

from snapshed import errors
from snapshed.errors import SnapshedError

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"

SAMPLES: dict[type[SnapshedError], tuple[object, ...]] = {
    errors.MissingImages: (["ab" * 32],),
    errors.SessionOver: ("expired",),
    errors.Held: (12, "release 4.0"),
    errors.PlanChanged: ("ab" * 32, {"snapshots": ["1"]}),
}


def every_error() -> list[type[SnapshedError]]:
    return [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, SnapshedError)]


@pytest.mark.parametrize("kind", every_error(), ids=lambda kind: kind.__name__)
def test_an_error_prints_one_sentence_and_its_code_is_documented(kind: type[SnapshedError]) -> None:
    error = kind(*SAMPLES.get(kind, ("One sentence.",)))
    assert str(error).strip()
    assert "\n" not in str(error)
    assert f"`{kind.code}`" in DOCUMENT.read_text("utf-8")
