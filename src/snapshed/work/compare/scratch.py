"""The folders in which masks are made, one a claim, and what becomes of those that killed workers left."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

from snapshed.db import comparisons
from snapshed.resources import Resources

_SCRATCH = "compare-"


@contextmanager
def scratch(resources: Resources, claim: UUID) -> Generator[Path]:
    """A folder for the masks of a batch, named after the claim, so that `sweep_scratch` knows whose it is."""
    folder = resources.settings.data / "scratch" / f"{_SCRATCH}{claim}"
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_scratch(resources: Resources) -> int:
    """Remove what killed workers were making: masks show images that may be deleted by now. Returns how many folders.

    A claim is committed before its folder is made, so a folder without a living claim is nobody's.
    """
    found = {UUID(folder.name.removeprefix(_SCRATCH)): folder for folder in _folders(resources)}
    if not found:
        return 0
    with resources.database.transaction() as tx:
        living = comparisons.living_claims(tx, list(found), resources.now())
    for claim in found.keys() - living:
        shutil.rmtree(found[claim], ignore_errors=True)
    return len(found.keys() - living)


def _folders(resources: Resources) -> list[Path]:
    return list((resources.settings.data / "scratch").glob(f"{_SCRATCH}*"))
