"""What the store tells without a database, and what of it comes back: decided here, carried out by `work/recovery`. Pure.

A manifest comes back unless the journal names its artifact, one for each artifact, and only if the store has everything
it names. Nothing else is ever served again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal
from uuid import UUID

from snapshed.domain import ids
from snapshed.domain.keys import Place

Row = Literal["none", "pending", "live", "lost", "tombstone"]
"""What the database says about a key, if there is one that says anything."""

UNCONFIRMED = timedelta(hours=7)
"""What a create stored and never confirmed is gone this long after: the longest session, and time to remove it."""


@dataclass(frozen=True, slots=True)
class Stored:
    """One stored object of ours; `size` in bytes. `kind` is None where only the bytes could tell."""

    key: str
    size: int
    place: Place
    kind: str | None
    row: Row

    @property
    def id(self) -> UUID:
        return self.place.blob_id

    @property
    def project_id(self) -> int:
        return self.place.project_id


@dataclass(frozen=True, slots=True)
class ToldManifest:
    """A manifest that was read: whose it is, and what must be there for it to come back. `file` is a build's digest and
    size in bytes."""

    stored: Stored
    artifact_id: UUID
    kind: str
    number: int | None
    created_at: datetime
    digests: frozenset[str]
    file: tuple[str, int] | None
    is_held: bool


@dataclass(frozen=True, slots=True)
class ToldReport:
    """A comparison's report that was read: its sides with their numbers, and the masks it names."""

    stored: Stored
    head_id: UUID
    head_number: int
    base_id: UUID
    base_number: int
    masks: frozenset[UUID]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A manifest that does not come back, and the digests that the store does not have."""

    manifest: ToldManifest
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """`chosen` come back, with the number each is known by, if any. `unconfirmed` are those of them whose create may never
    have been answered."""

    chosen: tuple[ToldManifest, ...]
    numbers: Mapping[UUID, int]
    left_out: tuple[LeftOut, ...]
    journaled: tuple[ToldManifest, ...]
    unconfirmed: tuple[ToldManifest, ...]


@dataclass(slots=True)
class Shelf:
    """What is stored, by what may be asked for. Filled once, then read."""

    by_id: dict[UUID, Stored] = field(default_factory=dict[UUID, Stored])
    _by_digest: dict[tuple[int, str], list[UUID]] = field(default_factory=dict[tuple[int, str], list[UUID]])

    def add(self, stored: Stored) -> None:
        """Put an object on the shelf."""
        self.by_id[stored.id] = stored
        self._by_digest.setdefault((stored.project_id, stored.place.digest), []).append(stored.id)

    def image(self, project_id: int, digest: str) -> Stored | None:
        """The object that stands for an image: one the database knows as live, else the newest."""
        found = [one for one in self._found(project_id, digest) if one.kind in (None, "image")]
        return max(found, key=lambda one: (one.row == "live", one.id), default=None)

    def file(self, project_id: int, digest: str, size: int, beside: UUID, taken: Collection[UUID]) -> Stored | None:
        """The object that stands for a build's file: each belongs to one build only, the one announced with it."""
        at = ids.minted_at(beside)
        found = [
            one
            for one in self._found(project_id, digest)
            if one.kind in (None, "file") and one.size == size and one.id not in taken
        ]
        return min(found, key=lambda one: (abs(ids.minted_at(one.id) - at), one.id), default=None)

    def _found(self, project_id: int, digest: str) -> Iterable[Stored]:
        found = (self.by_id[one] for one in self._by_digest.get((project_id, digest), ()))
        # What is condemned is never named again, and what is marked as lost only a person or an upload makes whole.
        return (one for one in found if one.row not in ("tombstone", "lost"))


def plan(
    manifests: Sequence[ToldManifest],
    reports: Sequence[ToldReport],
    journaled: Collection[UUID],
    withdrawn: Collection[tuple[UUID, str]],
    known: Collection[UUID],
    shelf: Shelf,
    before_number: int,
) -> Plan:
    """What comes back of what is not `known` yet. Numbers are kept where a manifest or a report tells one below `before_number`, each once."""
    by_artifact: dict[UUID, list[ToldManifest]] = {}
    doomed: list[ToldManifest] = []
    for told in manifests:
        if told.artifact_id in journaled:
            doomed.append(told)
        elif told.artifact_id not in known:
            by_artifact.setdefault(told.artifact_id, []).append(told)
    chosen: list[ToldManifest] = []
    left_out: list[LeftOut] = []
    for versions in by_artifact.values():
        # A hold leaves two for a short while, and so do two attempts of one create: the newest that is whole.
        versions.sort(key=lambda told: told.stored.id, reverse=True)
        lacking = [(told, _missing(told, withdrawn, shelf)) for told in versions]
        whole = next((told for told, missing in lacking if not missing), None)
        if whole is None:
            left_out.append(LeftOut(*lacking[0]))
        else:
            chosen.append(whole)
    chosen.sort(key=lambda told: (told.created_at, told.artifact_id))
    return Plan(
        chosen=tuple(chosen),
        numbers=_numbers(chosen, reports, before_number),
        left_out=tuple(sorted(left_out, key=lambda item: item.manifest.created_at)),
        journaled=tuple(doomed),
        unconfirmed=tuple(_unconfirmed(chosen, reports, shelf)),
    )


def _missing(told: ToldManifest, withdrawn: Collection[tuple[UUID, str]], shelf: Shelf) -> tuple[str, ...]:
    project = told.stored.project_id
    missing = [
        digest
        for digest in told.digests
        if (told.artifact_id, digest) not in withdrawn and shelf.image(project, digest) is None
    ]
    if told.file is not None and shelf.file(project, *told.file, told.stored.id, ()) is None:
        missing.append(told.file[0])
    return tuple(sorted(missing))


def _numbers(chosen: Sequence[ToldManifest], reports: Sequence[ToldReport], before: int) -> dict[UUID, int]:
    told: dict[UUID, int] = {}
    for report in reports:
        told[report.head_id], told[report.base_id] = report.head_number, report.base_number
    numbers: dict[UUID, int] = {}
    used: set[int] = set()
    for manifest in chosen:
        number = told.get(manifest.artifact_id) if manifest.number is None else manifest.number
        if number is not None and 0 < number < before and number not in used:
            numbers[manifest.artifact_id] = number
            used.add(number)
    return numbers


def _unconfirmed(chosen: Sequence[ToldManifest], reports: Sequence[ToldReport], shelf: Shelf) -> Iterable[ToldManifest]:
    """Stored shortly before the end, and nothing that was made later tells of them."""
    if not shelf.by_id:
        return
    last = ids.minted_at(max(shelf.by_id))
    proven = {side for report in reports for side in (report.head_id, report.base_id)}
    for told in chosen:
        is_late = last - ids.minted_at(told.stored.id) < UNCONFIRMED
        if is_late and told.artifact_id not in proven and not told.is_held:
            yield told


def readable_masks(
    results: Iterable[tuple[str | None, str | None, UUID | None]],
    report_id: UUID,
    withdrawn: Mapping[str, datetime],
) -> set[UUID]:
    """Masks of a report, given head's and base's digest with each, that may be shown: not those of images withdrawn since
    the report was made."""
    made = ids.minted_at(report_id)
    return {
        mask
        for head, base, mask in results
        if mask is not None and not any(digest and withdrawn.get(digest, made) > made for digest in (head, base))
    }
