"""What is searched: every model as written, and every guard taken away, with the promise that must then break.

A guard whose absence breaks nothing is either superfluous or not modelled; the table says which guards back each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from model.blobs import Blobs
from model.derived import Derived
from model.disaster import Disaster
from model.locks import Locks
from model.search import Model, Verdict, search
from model.withdrawal import Withdrawal


@dataclass(frozen=True, slots=True)
class Run:
    """One search. `breaks` is the promise that must break, None if all must hold; `quick` ones run with the tests."""

    model: type[Model]
    without: tuple[str, ...] = ()
    breaks: str | None = None
    bounds: Mapping[str, int] = field(default_factory=dict[str, int])
    quick: bool = True

    @property
    def name(self) -> str:
        """What is searched, in words short enough for a test's name."""
        bounds = ", ".join(f"{name} {value}" for name, value in self.bounds.items())
        guards = "without " + " + ".join(self.without) if self.without else "as written"
        return f"{self.model.__name__} {guards}" + (f" ({bounds})" if bounds else "")

    @property
    def title(self) -> str:
        """The same as a row of the table in docs/model.md."""
        if not self.without:
            return f"**{self.name}**"
        return f"{self.model.__name__}, not: " + "; nor: ".join(self.model.GUARDS[guard] for guard in self.without)

    def search(self) -> Verdict:
        # A promise that breaks on the way to another one is looked past, so that each guard shows its own.
        return search(self.model(self.without, **self.bounds), self.breaks or "")

    def is_as_said(self, verdict: Verdict) -> bool:
        return verdict.broken is None if self.breaks is None else (verdict.broken or "").startswith(self.breaks)


def _each(model: type[Model], breaks: Mapping[str, str], *, quick: bool = True, **bounds: int) -> list[Run]:
    return [Run(model, (guard,), promise, bounds, quick) for guard, promise in breaks.items()]


AS_WRITTEN = [
    Run(Blobs, bounds={"keys": 1}),
    Run(Blobs, bounds={"keys": 1, "urgent": 1}),
    Run(Blobs, quick=False),
    Run(Blobs, bounds={"urgent": 1}, quick=False),
    Run(Blobs, bounds={"passer_by": 1}, quick=False),
    Run(Derived),
    Run(Withdrawal, bounds={"uploader": 0, "both": 0}),
    Run(Withdrawal, bounds={"uploader": 1, "both": 0, "claims": 0}),
    Run(Withdrawal, bounds={"uploader": 1, "both": 0, "claims": 1}, quick=False),
    Run(Withdrawal, bounds={"uploader": 0, "both": 1, "claims": 2}, quick=False),
    Run(Withdrawal, bounds={"uploader": 1, "both": 1, "claims": 1}, quick=False),
    Run(Disaster, bounds={"twin": 0}),
    Run(Disaster, quick=False),
    Run(Disaster, bounds={"backups": 1, "twin": 0}, quick=False),
    Run(Disaster, bounds={"numbers": 1, "twin": 0}, quick=False),
    Run(Locks),
    Run(Locks, bounds={"together": 3}, quick=False),
]

BLOBS = [
    *_each(Blobs, {
        "row before bytes": "I4", "own key": "I2", "put deadline": "I4", "fence": "I4", "fence when sent": "I4",
        "pins": "I5", "enqueue on end": "I3", "memory": "I8", "memory answers": "I5", "memory first": "I5",
        "reads skip marked": "I8", "reads need a name": "I8", "told is no read": "I8", "T1 needs a name": "I8",
        "T4 needs a name": "I8", "session open": "I5", "T9 after release": "I12", "T9 sees tombstones": "I12",
        "T9 needs live names": "I12", "T9 sees pins": "I12", "T9 one statement": "I12", "release shared": "I12",
    }),
    *_each(Blobs, {
        "condemn before remove": "I2", "loser pinned": "I5", "T9 any tombstone": "I12", "release same digest": "I12",
        "enqueue on release": "I10",
    }, quick=False),
    Run(Blobs, ("second look", "foreign key"), "I1", quick=False),
    Run(Blobs, ("T6 sees pins", "foreign key"), "I1", quick=False),
    Run(Blobs, ("T6 sees marked", "foreign key"), "I1"),
    Run(Blobs, ("pins", "foreign key"), "I1"),
    Run(Blobs, ("session open", "foreign key"), "I1"),
    Run(Blobs, ("second look",), None, quick=False),
    Run(Blobs, ("session open", "refusals count"), None, quick=False),
    Run(Blobs, ("T9 lets named go",), "I10", {"passer_by": 1}, quick=False),
    Run(Blobs, ("urgent looks on",), "I10", {"urgent": 1}, quick=False),
    Run(Blobs, ("urgent stays queued",), "I10", {"urgent": 1}, quick=False),
]  # fmt: skip

DERIVED = [
    *_each(Derived, {
        "reads skip marked": "I8", "mask has owner": "I12", "claim counts": "I3", "next run condemns": "I3",
        "failure condemns": "I3", "release announced": "I12", "release made of": "I12", "fence": "I12",
    }),
    Run(Derived, ("starts unmarked",), None, quick=False),
    Run(Derived, ("starts unmarked", "foreign key"), "I1"),
]  # fmt: skip

WITHDRAWAL = [
    *_each(Withdrawal, {
        "project lock": "I8", "same digest": "I12", "release shared": "I12", "marked left alone": "I12",
        "enqueue": "I10", "T9 needs live names": "I12", "T9 sees pins": "I12",
    }, uploader=1, both=0, claims=0),
    *_each(Withdrawal, {
        "masks at once": "I8", "masks of marked": "I12", "made of": "I12", "reset": "I8", "lock comparisons": "I8",
        "condemn announced": "I12", "claim counts": "I8",
    }, uploader=0, both=0),
    Run(Withdrawal, ("next run condemns",), "I3", {"uploader": 0, "both": 0}),
    Run(Withdrawal, ("next run condemns", "finished too"), "I10", {"uploader": 0, "both": 0}),
    Run(Withdrawal, ("made of",), "I12", {"uploader": 0, "both": 1, "claims": 1}, quick=False),
    Run(Withdrawal, ("T4 holds",), None, {"uploader": 1, "both": 0, "claims": 0}, quick=False),
    Run(Withdrawal, ("project lock", "T4 holds", "foreign key"), "I1", {"uploader": 1, "both": 0, "claims": 0}),
]  # fmt: skip

DISASTER = [
    *_each(Disaster, {
        "journal before answer": "I13", "T7 waits": "I13", "T7 waits for all": "I13", "replay": "I13", "wait": "I1",
        "whole only": "I1", "one artifact": "I13", "adopt": "I4", "adopted delay": "I12",
    }),
    *_each(Disaster, {"newer manifests": "I13", "pending judged": "I13", "sessions end": "I1"}, backups=1, twin=0),
    Run(Disaster, ("epoch",), "I6", {"backups": 1, "numbers": 1, "twin": 0}),
]  # fmt: skip

LOCKS = [
    *_each(Locks, {
        "T4 in id order": "L1", "T5a in id order": "L1", "project first": "L1", "artifacts before comparisons": "L1",
        "pending in id order": "L1", "one finalise": "L1", "hold locks": "L2", "look under lock": "L2",
    }),
    Run(Locks, ("T4 bases first",), None),
]  # fmt: skip

RUNS = [*AS_WRITTEN, *BLOBS, *DERIVED, *WITHDRAWAL, *DISASTER, *LOCKS]
