"""Reads everything the store tells about itself: its journal, the names of projects, every object's key, and what
manifests and reports say. Reads only, and believes no listing that ended early."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any, cast
from uuid import UUID

from snapshed.blobs import Found
from snapshed.db import inventory
from snapshed.domain import build, ids, journal, keys, manifest, names, report
from snapshed.domain.journal import Entry
from snapshed.domain.names import Names
from snapshed.domain.recovery import Row, Shelf, Stored, ToldManifest, ToldReport
from snapshed.errors import Invalid
from snapshed.resources import Resources

Tell = Callable[[str, int], None]
"""Is told what is being done, and how much of it is."""

_TOLD = (keys.JOURNAL, keys.RECEIPTS, keys.PROJECTS, keys.RULES, keys.HOLDS)
_PAGE = 1000
_THREADS = 16
_DOCUMENTS = ("manifest", "comparison")
_BEGINNINGS = {b'{"artifact_id":': "manifest", b'{"head_artifact_id":': "comparison"}
"""How documents begin, for objects of earlier releases, whose ids tell no kind."""

_LONGEST = max(map(len, _BEGINNINGS))


@dataclass(slots=True)
class Survey:
    """What the store told."""

    shelf: Shelf = field(default_factory=Shelf)
    manifests: list[ToldManifest] = field(default_factory=list[ToldManifest])
    reports: list[ToldReport] = field(default_factory=list[ToldReport])
    entries: dict[UUID, Entry] = field(default_factory=dict[UUID, Entry])
    receipts: dict[UUID, dict[str, Any]] = field(default_factory=dict[UUID, dict[str, Any]])
    notes: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """By key, what the store was told of rules and of holds of branches."""
    names: dict[int, Names] = field(default_factory=dict[int, Names])
    foreign: list[str] = field(default_factory=list[str])
    halves: list[str] = field(default_factory=list[str])
    unreadable: dict[str, str] = field(default_factory=dict[str, str])
    """By key, what is wrong with it."""

    @property
    def journaled(self) -> set[UUID]:
        """Artifacts whose deletion is in the journal."""
        return {artifact for entry in self.entries.values() for artifact in entry.artifacts}

    @property
    def withdrawn(self) -> dict[tuple[UUID, str], UUID]:
        """The deletion that withdrew each image from each artifact."""
        return {pair: entry.deletion_id for entry in self.entries.values() for pair in entry.images}


def survey(resources: Resources, tell: Tell) -> Survey:
    """List the store once and read what documents there are. Raises StoreUnavailable."""
    told = Survey()
    done = 0
    listing = resources.store.listing()
    with ThreadPoolExecutor(_THREADS, "survey") as threads:
        while page := list(islice(listing, _PAGE)):
            _read_own(resources, told, [found.key for found in page if found.key.startswith(keys.SYSTEM)], threads)
            objects = list(_objects(resources, told, [item for item in page if not item.key.startswith(keys.SYSTEM)]))
            for stored, text in threads.map(partial(_looked_into, resources), objects):
                told.shelf.add(stored)
                if text is not None:
                    _read(told, stored, text)
            done += len(page)
            tell("objects listed", done)
    return told


# --- Our own --------------------------------------------------------------------------------------------------------


def _read_own(resources: Resources, told: Survey, own: Sequence[str], threads: ThreadPoolExecutor) -> None:
    wanted = [key for key in own if key.startswith(_TOLD)]
    for key, text in zip(wanted, threads.map(resources.store.get, wanted), strict=True):
        if text is None or resources.store.half_of(key) is not None:
            continue
        if key.startswith((keys.RULES, keys.HOLDS)):
            told.notes[key] = text
            continue
        if key.startswith(keys.PROJECTS):
            _read_names(told, key, text)
            continue
        try:
            deletion_id = UUID(key.rpartition("/")[2].removesuffix(".json"))
        except ValueError:
            told.unreadable[key] = "its name is no deletion's"
            continue
        if key.startswith(keys.JOURNAL):
            entry = journal.read(deletion_id, text)
            told.entries[deletion_id] = entry
            if not entry.is_whole:
                told.unreadable[key] = journal.damaged_sentence(entry, entry.artifacts)
        else:
            _read_receipt(told, key, deletion_id, text)


def _read_names(told: Survey, key: str, text: bytes) -> None:
    found = names.read(text)
    if found is None:
        told.unreadable[key] = "the names of this project cannot be read; it gets others"
    else:
        told.names[found.project_id] = found


def _read_receipt(told: Survey, key: str, deletion_id: UUID, text: bytes) -> None:
    try:
        found = cast("dict[str, Any]", json.loads(text))
        if found["id"] == str(deletion_id) and found["state"] == "complete" and found["completed_at"]:
            told.receipts[deletion_id] = found
            return
    except (ValueError, KeyError, TypeError):
        pass
    told.unreadable[key] = "this receipt cannot be read; its deletion is finished once more"


# --- Objects --------------------------------------------------------------------------------------------------------


def _objects(resources: Resources, told: Survey, page: Sequence[Found]) -> Iterator[Stored]:
    with resources.database.transaction() as tx:
        known = {row.storage_key: row for row in inventory.known(tx, [found.key for found in page])}
    for found in page:
        place = keys.place_of(found.key)
        if resources.store.half_of(found.key) is not None:
            told.halves.append(found.key)
        elif place is None or place.blob_id in told.shelf.by_id:
            told.foreign.append(found.key)
        else:
            row = known.get(found.key)
            state: Row = "none" if row is None else "lost" if row.is_lost else row.state
            kind = ids.kind_of(place.blob_id) if row is None else row.kind
            yield Stored(found.key, found.size, place, kind, state)


def _looked_into(resources: Resources, stored: Stored) -> tuple[Stored, bytes | None]:
    """An object, and its bytes if it is a document. One of an earlier release is taken for one if it begins so."""
    if stored.row == "tombstone":
        return stored, None
    if stored.kind is None and stored.size >= _LONGEST:
        begins = b"".join(resources.store.stream(stored.key, (0, _LONGEST)) or ())
        stored = replace(
            stored, kind=next((kind for text, kind in _BEGINNINGS.items() if begins.startswith(text)), None)
        )
    return stored, resources.store.get(stored.key) if stored.kind in _DOCUMENTS else None


def _read(told: Survey, stored: Stored, text: bytes) -> None:
    if hashlib.sha256(text).hexdigest() != stored.place.digest:
        told.unreadable[stored.key] = f"the bytes of this {stored.kind} are not those it was stored with"
        return
    try:
        if stored.kind == "manifest":
            told.manifests.append(_manifest(stored, text))
        else:
            told.reports.append(_report(stored, text))
    except Invalid as problem:
        told.unreadable[stored.key] = str(problem).removesuffix(".")


def _manifest(stored: Stored, text: bytes) -> ToldManifest:
    said = manifest.read_stored(text)
    if said.kind == "build":
        file = build.of_build(said)
        digests, wanted = frozenset[str](), (file.digest, file.size)
    else:
        digests, wanted = frozenset(map(sys.intern, manifest.of_snapshot(said).digests)), None
    return ToldManifest(
        stored, said.artifact_id, said.kind, said.number, said.created_at, digests, wanted, is_held=bool(said.holds)
    )


def _report(stored: Stored, text: bytes) -> ToldReport:
    said = report.read_stored(text)
    masks = frozenset(result.mask_id for result in said.results if result.mask_id)
    return ToldReport(stored, said.head.artifact_id, said.head.number, said.base.artifact_id, said.base.number, masks)
