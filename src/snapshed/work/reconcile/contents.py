"""Level 2: every object read and hashed; every manifest and report compared with the rows it tells about."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from uuid import UUID

from snapshed.db import documents
from snapshed.db.documents import Reported, Stored
from snapshed.domain import manifest, report
from snapshed.domain.disagreement import Disagreement, Kind
from snapshed.ledger import sha256
from snapshed.resources import Resources
from snapshed.work.reconcile.objects import damaged, live_pages
from snapshed.work.reconcile.rows import digest_of

_PAGE = 100
_FIRST = UUID(int=0)
_DOCUMENTS = ("manifest", "comparison")

Tell = Callable[[str, int], None]


def altered(resources: Resources, tell: Tell) -> Iterator[Disagreement]:
    """Objects whose bytes do not have the digest they were stored with."""
    done = 0
    for page in live_pages(resources):
        wrong: dict[UUID, tuple[Kind, str]] = {}
        for row in page:
            found = resources.store.head(row.storage_key)
            if found is None or found.size != row.size:
                continue  # told by level 1, or removed meanwhile
            if digest_of(resources.store, row.storage_key) not in (None, row.digest):
                kind: Kind = "edited" if row.kind in _DOCUMENTS else "altered"
                wrong[row.id] = (kind, f"the {row.kind}'s bytes are not what was stored")
            done += 1
            if done % 100 == 0:
                tell("objects read", done)
        yield from damaged(resources, [row for row in page if row.id in wrong], wrong)


def contradictions(resources: Resources, tell: Tell) -> Iterator[Disagreement]:
    """Manifests and reports whose bytes are as stored and that say something else than the rows do."""
    after, done = _FIRST, 0
    while True:
        with resources.database.transaction() as tx:
            page = documents.artifacts_after(tx, after, _PAGE)
        if not page:
            return
        for artifact_id in page:
            yield from _manifest(resources, artifact_id)
            yield from _reports(resources, artifact_id)
        after, done = page[-1], done + len(page)
        tell("snapshots compared with their rows", done)


def _manifest(resources: Resources, artifact_id: UUID) -> Iterator[Disagreement]:
    # Looked at again when it differs: a hold may have been written into it between the two readings.
    first = _contradicting_manifest(resources, artifact_id)
    if first is not None and _contradicting_manifest(resources, artifact_id) == first:
        yield Disagreement(
            "contradicting",
            first.storage_key,
            f"the manifest of {first.number} is as it was stored and its rows say something else; nothing mends this, "
            "compare the two and report it",
            (first.number,),
            first.blob_id,
        )


def _contradicting_manifest(resources: Resources, artifact_id: UUID) -> Stored | None:
    with resources.database.transaction() as tx:
        stored = documents.manifest_of(tx, artifact_id)
        expected = documents.written_anew(tx, artifact_id, resources.now())
    text = None if stored is None else resources.store.get(stored.storage_key)
    # What is gone, or edited, is told elsewhere.
    if stored is None or expected is None or text is None or sha256(text) != stored.digest:
        return None
    return stored if manifest.contradicts(text, expected) else None


def _reports(resources: Resources, artifact_id: UUID) -> Iterator[Disagreement]:
    first = _contradicting_reports(resources, artifact_id)
    again = _contradicting_reports(resources, artifact_id) if first else []
    for reported in first:
        if reported in again:
            yield Disagreement(
                "contradicting",
                reported.storage_key,
                f"the report of {reported.head_number} against {reported.base_number} is as it was stored and its rows "
                "say something else; nothing mends this, compare the two and report it",
                (reported.head_number,),
                reported.blob_id,
            )


def _contradicting_reports(resources: Resources, artifact_id: UUID) -> list[Reported]:
    with resources.database.transaction() as tx:
        found = documents.reports_of(tx, artifact_id)
    return [reported for reported in found if _contradicts(resources, reported)]


def _contradicts(resources: Resources, reported: Reported) -> bool:
    with resources.database.transaction() as tx:
        results = documents.results_of(tx, reported.id)
    text = resources.store.get(reported.storage_key)
    if text is None or sha256(text) != reported.digest:
        return False
    head, base = reported.sides
    return report.contradicts(text, head, base, reported.algorithm, reported.counts, results)
