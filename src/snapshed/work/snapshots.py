"""Creating a snapshot (T4), deciding about it, and reading it. All or nothing: a refused create leaves nothing behind.

Which base a new snapshot is compared with is written down in the same transaction, in both orders of arrival.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from uuid import UUID

from snapshed.db import access, ancestry, blobs, comparisons, outbox, reviews, sessions, shards, snapshots
from snapshed.db.access import Project
from snapshed.db.comparisons import Comparison
from snapshed.db.outbox import Due
from snapshed.db.pool import Tx
from snapshed.db.reviews import Decision, ImageDecision
from snapshed.db.sessions import Session
from snapshed.db.snapshots import Filter, Image, Listed, Offered, Snapshot
from snapshed.domain import ids, manifest
from snapshed.domain.ancestry import PassedOver
from snapshed.domain.manifest import Manifest
from snapshed.domain.report import Result
from snapshed.errors import Conflict, Invalid, MissingImages, NotFound, SessionOver, SnapshedError, StoreUnavailable
from snapshed.ledger import Draft, ForSession, end_sessions, give_up, sha256, store
from snapshed.resources import Resources, raise_mark

REPEAT = timedelta(minutes=10)
"""Within this time the same request is answered with the same snapshot: clients retry a create after a lost answer."""


@dataclass(frozen=True, slots=True)
class Created:
    """The public number of a snapshot and how many images it names."""

    number: int
    image_count: int


@dataclass(frozen=True, slots=True)
class Plan:
    """What a create is going to do: answer with an old snapshot, or commit with an open session. `number` is the old
    snapshot's, or was drawn for the new one."""

    number: int
    session: Session | None


def create(
    resources: Resources,
    project: Project,
    principal: str,
    body: bytes,
    session_id: UUID | None = None,
    *,
    is_whole_group: bool = False,
) -> Created:
    """Create the snapshot that `body`, a JSON manifest, describes, in the client's session if it says which that is;
    the session of a group of shards takes only the manifest of all of them. Raises Invalid, MissingImages or Conflict, with nothing made, and Unavailable."""
    wanted = manifest.parse(body)
    request_hash = hashlib.sha256(f"{project.id}\n".encode() + body).hexdigest()

    def decide(tx: Tx) -> Plan:
        if session_id is not None:
            if not is_whole_group and shards.find(tx, session_id) is not None:
                raise Invalid("This upload session belongs to a group of shards; say which shard this is.")
            return _decide_in(tx, project, session_id, request_hash)
        return _decide(resources, tx, project, principal, wanted, request_hash)

    decided = resources.database.run(decide)
    number, session = decided.number, decided.session
    if session is None:
        return Created(number, len(wanted.images))
    try:
        _commit_with(resources, project, principal, wanted, request_hash, session, number)
    except SessionOver:
        # The same request, sent twice and overlapping: the other one has committed with this session meanwhile.
        with resources.database.transaction() as tx:
            made = sessions.remembered_of(tx, session.id, request_hash)
        if made is None:
            raise
        if not made.present:
            raise _deleted_since(made.number) from None
        number = made.number
    return Created(number, len(wanted.images))


def made(resources: Resources, project: Project, number: int) -> Created:
    """What a client that asks again is told of the snapshot it made. Raises NotFound."""
    found = find(resources, [project.id], number)
    return Created(number, found.image_count)


def _decide_in(tx: Tx, project: Project, session_id: UUID, request_hash: str) -> Plan:
    """For a client that names its session nothing has to be guessed."""
    before = sessions.remembered_of(tx, session_id, request_hash)
    if before and before.present:
        return Plan(before.number, None)
    if before:
        raise _deleted_since(before.number)
    session = sessions.find(tx, session_id)
    if session is None or session.project_id != project.id:
        raise NotFound("This upload session does not exist; ask for new upload options.")
    if session.state != "open":
        raise SessionOver(session.state)
    return Plan(snapshots.next_number(tx), session)


def _deleted_since(number: int) -> Conflict:
    return Conflict(
        f"This request made snapshot {number}, which has been deleted since; nothing was made. "
        "Upload again to make a new snapshot."
    )


def _decide(
    resources: Resources, tx: Tx, project: Project, principal: str, wanted: Manifest, request_hash: str
) -> Plan:
    """For a client that does not say which session is its own. The order matters: asking for a session before the memory would let a retry close another job's session."""
    now = resources.now()
    before = sessions.remembered(tx, project.id, request_hash, now - REPEAT)
    if before and before.present:
        return Plan(before.number, None)
    session_id = sessions.matching(tx, project.id, wanted.digests)
    if session_id is not None:
        return Plan(snapshots.next_number(tx), sessions.find(tx, session_id))
    if before:
        raise _deleted_since(before.number)
    session = Session(
        id=resources.new_id(),
        project_id=project.id,
        principal=principal,
        artifact_id=resources.new_id(),
        state="open",
        opened_at=now,
        ends_at=now + resources.settings.session_ttl,
    )
    # No session holds them all. What is missing is told as the session sees it that holds most of them.
    nearest = sessions.closest(tx, project.id, wanted.digests) or session.id
    found = {image.digest for image in blobs.nameable(tx, project.id, nearest, wanted.digests)}
    if missing := [digest for digest in wanted.digests if digest not in found]:
        raise MissingImages(missing)
    sessions.add(tx, session)
    return Plan(snapshots.next_number(tx), session)


def _commit_with(
    resources: Resources,
    project: Project,
    principal: str,
    wanted: Manifest,
    request_hash: str,
    session: Session,
    number: int,
) -> None:
    owner = ForSession(session.id, project.org_id, project.id)
    now = resources.now()
    text = manifest.stored(wanted, session.artifact_id, number, now, principal)
    (stored,) = store(resources, owner, [Draft("manifest", sha256(text), text)], stored="snapshot.stored")

    def commit(tx: Tx) -> None:
        _commit(resources, tx, project, principal, wanted, request_hash, session.id, number, stored.id)

    try:
        resources.database.run(commit)
    except SnapshedError:
        give_up(resources, [stored.id], settled=True)
        raise
    resources.failpoints.reach("snapshot.committed")
    # So that a database restored from before this is known to be older; should it fail, a worker does it.
    with suppress(StoreUnavailable):
        raise_mark(resources)


def _commit(
    resources: Resources,
    tx: Tx,
    project: Project,
    principal: str,
    wanted: Manifest,
    request_hash: str,
    session_id: UUID,
    number: int,
    manifest_id: UUID,
) -> None:
    """T4: references to locked live blobs, all or nothing; then the session ends and the comparisons begin."""
    if access.lock_project_shared(tx, project.id) != "active":
        raise NotFound("This project does not exist.")
    session = sessions.lock(tx, session_id)
    if session is None or session.state != "open":
        raise SessionOver("unknown" if session is None else session.state)
    found = {image.digest: image.id for image in blobs.nameable(tx, project.id, session_id, wanted.digests)}
    if missing := [digest for digest in wanted.digests if digest not in found]:
        raise MissingImages(missing)
    if not blobs.make_live(tx, [manifest_id]):
        raise SessionOver("over")
    now = resources.now()
    artifact_id = session.artifact_id
    snapshots.add(tx, artifact_id, project.id, wanted.app_id, number, now)
    snapshots.fill(tx, artifact_id, wanted, manifest_id, principal, found)
    sessions.commit(tx, session_id, request_hash, number, now)
    end_sessions(resources, tx, [session_id])
    facts = {
        "project": project.slug,
        "app_id": wanted.app_id,
        "images": len(wanted.images),
        "selective": wanted.selective,
        "head_sha": wanted.commit.head_sha,
        "branch": wanted.commit.head_ref,
    }
    outbox.announce(tx, artifact_id, Due(resources.new_id(), ids.trace_id(artifact_id), "snapshot", now, facts))
    _start_comparisons(resources, tx, project, wanted, artifact_id)


def _start_comparisons(resources: Resources, tx: Tx, project: Project, wanted: Manifest, artifact_id: UUID) -> None:
    """Compare with the base if it is here, and be the base of those that wait for this commit."""
    commit = wanted.commit
    snapshots.lock_commits(tx, project.id)
    pairs: list[tuple[UUID, UUID, tuple[PassedOver, ...]]] = []
    if commit.base_sha:
        repo = commit.base_repo_name or commit.head_repo_name
        choice = ancestry.choice(tx, project.id, artifact_id, wanted.app_id, commit.base_sha, repo)
        if choice.base_id is not None:
            pairs.append((artifact_id, choice.base_id, choice.passed_over))
    if commit.head_sha:
        heads = snapshots.waiting_heads(
            tx, project.id, wanted.app_id, commit.head_sha, commit.head_repo_name, artifact_id
        )
        # They ask for the same commit, app and repository, so that all of them pass over the same ones.
        repo = commit.head_repo_name
        passed = (
            ancestry.choice(tx, project.id, None, wanted.app_id, commit.head_sha, repo).passed_over if heads else ()
        )
        pairs += [(head, artifact_id, passed) for head in heads]
    # All at once and in id order, as deletions lock them.
    unmarked = set(snapshots.lock_unmarked_of(tx, sorted({side for pair in pairs for side in pair[:2]})))
    for head_id, base_id, passed_over in pairs:
        if not {head_id, base_id} <= unmarked:
            continue  # a deletion was faster; a new upload of that side starts the comparison again
        comparison_id = comparisons.add(tx, resources.new_id(), head_id, base_id, passed_over, resources.now())
        if comparison_id is not None:
            resources.queue.defer(tx, "compare", {"comparison_id": str(comparison_id)})


# --- Reading and deciding ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Details:
    """A snapshot as people and programs look at it. `base` is None while there is nothing to compare with;
    `base_images` are those of its images that `results` speak of."""

    snapshot: Snapshot
    images: list[Image]
    comparison: Comparison | None
    results: list[Result]
    base: Snapshot | None
    base_images: list[Image]
    decisions: list[Decision]
    image_decisions: list[ImageDecision]
    passed_over: tuple[PassedOver, ...]


def find(resources: Resources, project_ids: list[int], number: int) -> Snapshot:
    """The snapshot of that number within these projects. Raises NotFound, also when it is marked for deletion."""
    with resources.database.transaction() as tx:
        return _find(tx, project_ids, number)


def _find(tx: Tx, project_ids: list[int], number: int) -> Snapshot:
    snapshot = snapshots.find(tx, number) if number < 2**63 else None
    if snapshot is None or snapshot.project_id not in project_ids:
        raise NotFound("Snapshot not found")
    return snapshot


def details(resources: Resources, project_ids: list[int], number: int) -> Details:
    """Everything about one snapshot, read in one transaction. Raises NotFound."""
    with resources.database.transaction() as tx:
        snapshot = _find(tx, project_ids, number)
        comparison = comparisons.newest(tx, snapshot.artifact_id)
        compared = comparison is not None and comparison.state == "done"
        base = snapshots.find_by_artifact(tx, comparison.base_id) if comparison else None
        results = comparisons.results(tx, comparison.id) if comparison and compared else []
        # Of ten thousand images of a base most are never spoken of.
        spoken_of = [result.previous_name or result.name for result in results]
        return Details(
            snapshot=snapshot,
            images=snapshots.images(tx, snapshot.artifact_id),
            comparison=comparison,
            results=results,
            base=base,
            base_images=snapshots.images_named(tx, base.artifact_id, spoken_of) if base and spoken_of else [],
            decisions=reviews.decisions(tx, snapshot.artifact_id),
            image_decisions=reviews.image_decisions(tx, snapshot.artifact_id),
            passed_over=_passed_over(tx, snapshot, comparison),
        )


def _passed_over(tx: Tx, snapshot: Snapshot, comparison: Comparison | None) -> tuple[PassedOver, ...]:
    """As it was when the base was chosen; without a comparison, as it would be now."""
    if comparison is not None:
        return tuple(PassedOver(one["number"], one["reason"]) for one in comparison.passed_over)
    return ancestry.base_of(tx, snapshot).passed_over


@dataclass(frozen=True, slots=True)
class ImageDetail:
    """One image of a snapshot and what the newest finished comparison says of it; `status` is None without one."""

    org_slug: str
    project_slug: str
    name: str
    status: str | None
    head: Image | None
    base: Image | None
    result: Result | None
    manifest_threshold: float | None


def image_detail(resources: Resources, project_ids: list[int], number: int, identifier: str) -> ImageDetail:
    """One image by name or digest: of the snapshot itself, else one that its base has and it has not. Raises NotFound."""
    with resources.database.transaction() as tx:
        snapshot = _find(tx, project_ids, number)
        if "\0" in identifier:
            raise NotFound("Image not found in snapshot")
        named = snapshots.images_named(tx, snapshot.artifact_id, [identifier])
        head = named[0] if named else snapshots.image_of_digest(tx, snapshot.artifact_id, identifier)
        comparison = comparisons.newest(tx, snapshot.artifact_id)
        if comparison is not None and comparison.state != "done":
            comparison = None
        wanted = head.name if head else identifier
        result = comparisons.result_about(tx, comparison.id, wanted) if comparison else None
        if head is None and (result is None or result.category not in ("removed", "skipped")):
            raise NotFound("Image not found in snapshot")
        name = head.name if head else result.name if result else identifier
        base = None
        if comparison is not None and (result is None or result.category != "added"):
            old_name = result.previous_name if result and result.previous_name else name
            found = snapshots.images_named(tx, comparison.base_id, [old_name])
            base = found[0] if found else None
        status = None if comparison is None else result.category if result else "unchanged"
        return ImageDetail(
            snapshot.org_slug, snapshot.project_slug, name, status, head, base, result, snapshot.diff_threshold
        )


def newest_base(resources: Resources, project_ids: list[int], app_id: str, branch: str | None) -> Details:
    """The newest snapshot of an app that has no base itself. Raises NotFound."""
    with resources.database.transaction() as tx:
        number = snapshots.newest_base(tx, project_ids, app_id, branch)
    if number is None:
        raise NotFound("No snapshot found")
    return details(resources, project_ids, number)


def newest_of_commit(resources: Resources, project_ids: list[int], head_sha: str, app_id: str | None) -> int:
    """The number of the newest snapshot of a commit. Raises NotFound."""
    with resources.database.transaction() as tx:
        number = snapshots.newest_by_head(tx, project_ids, head_sha, app_id)
    if number is None:
        raise NotFound("No snapshot of this commit found")
    return number


def page(resources: Resources, project_ids: list[int], wanted: Filter, before: int | None, limit: int) -> list[Listed]:
    """A page of snapshots, newest first; `before` is the last number of the page before."""
    if "\0" in f"{wanted.app_id}{wanted.branch}{wanted.commit}":  # which PostgreSQL cannot even be asked for
        return []
    with resources.database.transaction() as tx:
        return snapshots.listed(tx, project_ids, wanted, before, limit)


def offered(resources: Resources, project_ids: list[int], limit: int) -> list[Offered]:
    """The apps and branches there are to filter by."""
    with resources.database.transaction() as tx:
        return snapshots.offered(tx, project_ids, limit)


def image_key(resources: Resources, project_id: int, image: str) -> str | None:
    """The storage key of an image by digest, or of any live object of the project by blob id."""
    with resources.database.transaction() as tx:
        try:
            stored = blobs.readable_by_id(tx, project_id, UUID(image)) if len(image) == 36 else None
        except ValueError:
            stored = None
        stored = stored or blobs.readable(tx, project_id, image, None)
        return stored.storage_key if stored else None
