"""The promises, looked for in the real rows and the real store: after every step, and at rest.

What they are compared with is what clients were told (`history`), never what the product's own views say.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from uuid import UUID

from fixtures.world import World
from property.history import Artifact, Deletion, History
from property.weather import WeatheredStore

from snapshed.db import blobs, snapshots
from snapshed.db.pool import Tx
from snapshed.domain import keys
from snapshed.work import receipts


class Promises:
    def __init__(self, world: World, store: WeatheredStore, history: History, rows: Tx) -> None:
        self._world = world
        self._rows = rows
        self._store = store
        self._history = history
        self._journaled: dict[UUID, list[str]] = {}
        self._newly_complete: list[Deletion] = []
        self._learned = ""
        self._checked: tuple[str, set[str]] | None = None

    def check(self, images: list[str]) -> None:
        """Everything that must hold at any moment. When neither a row nor the store has changed, it still does."""
        assert not self._store.complaints, self._store.complaints
        stored = self._store.stored()
        if (self._last_write(), stored) == self._checked:
            return
        self.learn()
        kept = self._kept()
        self._nothing_stored_is_unknown(stored)
        self._live_snapshots_are_whole(stored)
        self._gone_snapshots_are_gone()
        self._images_are_read_by_right_only(stored, images)
        self._told_images_stand(stored)
        self._complete_deletions_left_nothing(stored, kept)
        self._journal_knows_them()
        self._receipts_balance()
        self._checked = (self._last_write(), stored)

    def _last_write(self) -> str:
        """Changes whenever some transaction has written or locked something."""
        (row,) = self._rows.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").fetchall()
        return row[0]

    # --- what has become of verbs nobody heard the end of ---------------------------------------------------------------

    def learn(self) -> None:
        written = self._last_write()
        if written != self._learned:
            self._learn_artifacts()
            self._learn_private_objects()
            self._learn_deletions()
            self._learn_sessions()
            self._learned = written

    def _learn_artifacts(self) -> None:
        history, project = self._history, self._world.project
        for number in sorted(self._listed() - history.artifacts.keys()):
            row = self._rows.execute("SELECT id, request_hash FROM session WHERE number = %s", [number]).fetchone()
            assert row is not None, f"{number} was made by no session"
            assert number > max(history.artifacts, default=0), "a number is never issued twice"
            if row[1].startswith("build:"):
                history.artifacts[number] = Artifact(None)
                continue
            request = next((item for item in history.requests if self._hash(item.body) == row[1]), None)
            assert request is not None, f"snapshot {number} was asked for by nobody"
            request.made[number] = self._world.clock()
            history.artifacts[number] = Artifact(request)
            if session := history.sessions.get(row[0]):
                session.is_over = True
        held = self._rows.execute(
            "SELECT a.number FROM hold h JOIN artifact a ON a.id = h.artifact_id WHERE a.project_id = %s", [project.id]
        ).fetchall()
        for number, artifact in history.artifacts.items():
            artifact.is_held = (number,) in held

    def _listed(self) -> set[int]:
        """The numbers that pages and listings show: snapshots and builds."""
        built = self._rows.execute(
            """
            SELECT a.number FROM artifact a JOIN build d ON d.artifact_id = a.id
             WHERE a.project_id = %s AND a.deletion_id IS NULL
            """,
            [self._world.project.id],
        ).fetchall()
        listed = {
            line.number
            for line in snapshots.listed(self._rows, [self._world.project.id], snapshots.Filter(), None, 1000)
        }
        return listed | {number for (number,) in built}

    def _hash(self, body: bytes) -> str:
        return hashlib.sha256(f"{self._world.project.id}\n".encode() + body).hexdigest()

    def _learn_private_objects(self) -> None:
        """Manifests, reports and masks, and whose they are."""
        found = self._rows.execute(
            """
            SELECT s.manifest_id, a.number FROM snapshot s JOIN artifact a ON a.id = s.artifact_id
             WHERE a.project_id = %(project)s
            UNION ALL
            SELECT x.id, a.number
              FROM (SELECT artifact_id, manifest_id AS id FROM build UNION ALL SELECT artifact_id, file_id FROM build) x
              JOIN artifact a ON a.id = x.artifact_id
             WHERE a.project_id = %(project)s
            UNION ALL
            SELECT x.id, a.number
              FROM (SELECT report_id AS id, head_id, base_id FROM comparison
                    UNION ALL SELECT i.mask_id, c.head_id, c.base_id
                      FROM comparison_image i JOIN comparison c ON c.id = i.comparison_id) x
              JOIN artifact a ON a.id IN (x.head_id, x.base_id)
             WHERE a.project_id = %(project)s AND x.id IS NOT NULL
            """,
            {"project": self._world.project.id},
        ).fetchall()
        for blob_id, number in found:
            if artifact := self._history.artifacts.get(number):
                artifact.private.add(blob_id)

    def _learn_deletions(self) -> None:
        """What was asked for, and what is complete since the last look."""
        history = self._history
        rows = self._rows.execute(
            "SELECT id, snapshots, artifacts, urgent, state, journaled_at, target FROM deletion WHERE project_id = %s",
            [self._world.project.id],
        ).fetchall()
        for deletion_id, numbers, artifacts, is_urgent, state, journaled_at, target in rows:
            if deletion_id not in history.deletions:
                self._learn_deletion(deletion_id, set(numbers), target.get("image"), is_urgent=is_urgent)
            deletion = history.deletions[deletion_id]
            if journaled_at is not None:
                self._journaled.setdefault(deletion_id, [str(item) for item in artifacts])
            if state == "complete" and not deletion.is_complete:
                deletion.is_complete = True
                self._newly_complete.append(deletion)
        history.doubt_sessions()

    def _learn_deletion(self, deletion_id: UUID, numbers: set[int], image: str | None, *, is_urgent: bool) -> None:
        history = self._history
        assert numbers <= history.live().keys(), "what is marked stays with its deletion"
        assert not numbers & history.held(), "a held snapshot is deleted"
        if image is None:
            images = {shown for number in numbers for shown in history.artifacts[number].images}
            takes = {key for number in numbers for key in history.takes.get(number, ())}
            for number in numbers:
                history.artifacts[number].is_gone = True
        else:
            assert numbers == history.naming(image), "an image is withdrawn from every snapshot that shows it"
            images, takes = {image}, history.takes.get(image, set())
            for number in numbers:
                history.artifacts[number].withdrawn.add(image)
        history.deletions[deletion_id] = Deletion(numbers, images, takes, is_urgent, is_withdrawal=image is not None)

    def _learn_sessions(self) -> None:
        sessions = self._history.sessions
        found = self._rows.execute("SELECT id, state FROM session WHERE id = ANY(%s)", [list(sessions)]).fetchall()
        for session_id, state in found:
            session = sessions[session_id]
            if state != "open" and not session.is_over:
                assert state != "expired" or self._world.clock() > session.ends_at, "a session ended before its time"
                assert state != "cancelled" or session.is_doubtful, "a session was cancelled for no urgent deletion"
                session.is_over = True

    # --- at any moment -------------------------------------------------------------------------------------------------

    def _kept(self) -> set[str]:
        """The keys of everything that live snapshots need."""
        found = self._rows.execute(
            """
            WITH alive AS (SELECT id FROM artifact WHERE number = ANY(%(live)s)),
            pair AS (SELECT id, report_id FROM comparison
                      WHERE head_id IN (SELECT id FROM alive) AND base_id IN (SELECT id FROM alive))
            SELECT b.storage_key FROM blob b JOIN (
                SELECT image_id AS id FROM snapshot_image WHERE artifact_id IN (SELECT id FROM alive)
                UNION SELECT manifest_id FROM snapshot WHERE artifact_id IN (SELECT id FROM alive)
                UNION SELECT manifest_id FROM build WHERE artifact_id IN (SELECT id FROM alive)
                UNION SELECT file_id FROM build WHERE artifact_id IN (SELECT id FROM alive)
                UNION SELECT report_id FROM pair
                UNION SELECT mask_id FROM comparison_image WHERE comparison_id IN (SELECT id FROM pair)) needed
                ON needed.id = b.id
            """,
            {"live": list(self._history.live())},
        ).fetchall()
        return {key for (key,) in found}

    def _nothing_stored_is_unknown(self, stored: set[str]) -> None:
        known = self._rows.execute(
            "SELECT storage_key FROM blob UNION ALL SELECT storage_key FROM tombstone"
        ).fetchall()
        assert stored <= {key for (key,) in known}, "I4: every stored object is named by a row"

    def _live_snapshots_are_whole(self, stored: set[str]) -> None:
        for number, artifact in self._history.snapshots().items():
            found = snapshots.find(self._rows, number)
            assert found is not None, f"snapshot {number} cannot be read though nobody deleted it"
            images = snapshots.images(self._rows, found.artifact_id)
            assert {image.name: image.digest for image in images} == artifact.names
            for image in images:
                if image.digest in artifact.withdrawn:
                    assert image.storage_key is None, "I8: a withdrawn image is shown"
                else:
                    assert image.storage_key in stored, "I1: a live snapshot has a hole"

    def _gone_snapshots_are_gone(self) -> None:
        history = self._history
        assert self._listed() == history.live().keys(), "I8: the list shows what is live, and nothing else"
        for number in history.gone():
            assert snapshots.find(self._rows, number) is None, "I8: a deleted snapshot can be read"
            for blob_id in history.artifacts[number].private:
                found = blobs.readable_by_id(self._rows, self._world.project.id, blob_id)
                assert found is None, "I8: a manifest, report or mask of a deleted snapshot can be read"

    def _images_are_read_by_right_only(self, stored: set[str], images: list[str]) -> None:
        named, project_id = self._history.named(), self._world.project.id
        for image in images:
            found = blobs.readable(self._rows, project_id, image, None)
            assert (found is not None) == (image in named), "I8: an image is read through live snapshots only"
            assert found is None or found.storage_key in stored, "I1: an image that may be read is not there"
        surely_open = self._history.surely_open(self._world.clock())
        for session in self._history.sessions.values():
            for image in session.touched - named:
                found = blobs.readable(self._rows, project_id, image, session.owner.session_id)
                if found is not None:
                    assert image in session.may_have_stored, "I8: a session reads what it never stored"
                    assert not session.is_over, "I8: a session that is over reads"
                elif session in surely_open:
                    assert session.promised.get(image) != "stored", "a session cannot read what it has stored"

    def _told_images_stand(self, stored: set[str]) -> None:
        for session in self._history.surely_open(self._world.clock()):
            pinned = self._rows.execute(
                "SELECT b.digest, b.storage_key FROM pin p JOIN blob b ON b.id = p.blob_id WHERE p.session_id = %s",
                [session.owner.session_id],
            ).fetchall()
            standing = {digest for digest, key in pinned if key in stored}
            assert session.promised.keys() <= standing, "I2: an image that a session was promised does not stand"

    def _complete_deletions_left_nothing(self, stored: set[str], kept: set[str]) -> None:
        newly_complete, self._newly_complete = self._newly_complete, []
        for deletion in newly_complete:
            assert not (deletion.takes & stored) - kept, (
                "I12: complete, and bytes it took stand without a live snapshot"
            )
        deletions = self._history.deletions.values()
        answered_for = {key for deletion in deletions if not deletion.is_complete for key in deletion.takes}
        for deletion in deletions:
            if deletion.is_complete:
                left = (deletion.takes & stored) - kept - answered_for
                assert not left, "I12: bytes of a complete deletion stand, and no open one answers for them"

    def _journal_knows_them(self) -> None:
        for deletion_id, artifacts in self._journaled.items():
            if artifacts:
                entry = self._store.inner.get(keys.journal_entry(deletion_id))
                assert entry is not None, "I13: noted as journaled, and the journal has no entry"
                said = json.loads(entry)
                assert (said["artifacts"] or [artifact for artifact, _ in said["images"]]) == artifacts
                self._journaled[deletion_id] = []

    def _receipts_balance(self) -> None:
        for deletion_id, deletion in self._history.deletions.items():
            if not deletion.is_complete:
                document = self._world.receipt(deletion_id)
                went = set() if deletion.is_withdrawal else deletion.numbers
                assert set(document["snapshots"]) == {str(number) for number in went}
                self._balances(document)

    def _balances(self, document: dict[str, Any]) -> None:
        for kind, count in document["objects"].items():
            parts = count["removed"] + count["kept_shared"] + count["kept_pinned"] + count["waiting"]
            assert count["released"] == parts, f"I9: {kind} does not balance"

    # --- at rest -------------------------------------------------------------------------------------------------------

    def check_at_rest(self) -> None:
        """No upload and no deletion is under way: what is stored is exactly what live snapshots need."""
        world, history = self._world, self._history
        assert [d for d in history.deletions.values() if not d.is_complete] == [], "I10: a deletion never completes"
        stored = self._store.stored()
        kept = self._kept()
        assert self._told(stored - kept) == [], "I3: at rest something is stored that no live snapshot needs"
        assert self._told(kept - stored) == [], "I3: at rest something is not stored that a live snapshot needs"
        rows = self._rows.execute("SELECT storage_key FROM blob").fetchall()
        assert {key for (key,) in rows} == stored, "I3: at rest every row has its object"
        images = sorted(key.rsplit("/", 1)[-1].split(".")[0] for key in stored)
        for image in history.named():
            assert images.count(image) == 1, "I3: an image is stored once in a project"
        left = self._rows.execute(
            """
            SELECT (SELECT count(*) FROM pin), (SELECT count(*) FROM candidate), (SELECT count(*) FROM tombstone),
                   (SELECT count(*) FROM trace_removal WHERE removed_at IS NULL)
            """
        ).fetchall()
        assert left == [(0, 0, 0, 0)], "at rest a queue is not empty"
        assert world.disagreements() == []
        for deletion_id in history.deletions:
            verified = receipts.verify(world.resources, world.project.org_id, deletion_id)
            assert verified.signed, "a receipt is not signed"
            assert verified.standing == [], "a receipt says gone of what stands"
            self._balances(world.receipt(deletion_id))

    def _told(self, keys_: set[str]) -> list[Any]:
        """What the rows say about some keys, for whoever reads a failure."""
        return self._rows.execute(
            """
            SELECT k.key, b.kind, b.state, b.made_of, t.kind, t.not_final_before
              FROM unnest(%s::text[]) k (key)
              LEFT JOIN blob b ON b.storage_key = k.key LEFT JOIN tombstone t ON t.storage_key = k.key
            """,
            [sorted(keys_)],
        ).fetchall()
