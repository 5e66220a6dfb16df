"""Every guard of the protocol, and what the code is without it.

Each entry takes one guard out of a copy of the source: `old` becomes `new` in one file under src/snapshed. The tests that
`killed_by` names must then fail; a guard without which everything passes is either not needed or not tested.
"""

from __future__ import annotations

from dataclasses import dataclass

DELETION, RACES, SCHEMA = "test_deletion.py", "test_races.py", "test_schema.py"
FAILURES, LYING = "test_failures.py", "test_lying_store.py"
WITHDRAWAL, HOLDS, COMMITS = "test_withdrawal.py", "test_holds.py", "test_commits.py"
RETENTION = "test_retention.py"
FROZEN = "test_frozen.py"
REUSE, BASES = "test_reuse.py", "test_bases.py"
REBUILD, CATCHING_UP = "test_rebuild.py", "test_catching_up.py"
OBJECTS, OBJECTS_WIRE = "test_objects.py", "test_objects_wire.py"


@dataclass(frozen=True, slots=True)
class Guard:
    """One guard: what it is for, where it stands, and how it looks without it."""

    name: str
    file: str
    old: str
    new: str
    killed_by: tuple[str, ...]
    also: tuple[tuple[str, str], ...] = ()
    """Further replacements in the same file, where a guard is spelled twice."""


_NO_REFERENCE = "               AND NOT EXISTS (SELECT FROM blob_reference r WHERE r.blob_id = b.id OFFSET 0)\n"
_NO_PIN = "               AND NOT EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id)\n"
_TALLIED = (
    "                            WHEN EXISTS (SELECT FROM live_reference l WHERE l.blob_id = r.blob_id OFFSET 0) "
    "THEN 'kept_shared'\n"
)
_PINNED = "                            WHEN EXISTS (SELECT FROM pin p WHERE p.blob_id = r.blob_id OFFSET 0) THEN 'kept_pinned'\n"

GUARDS = (
    # --- T1: promises ------------------------------------------------------------------------------------------------
    Guard(
        "T1 promises only what a live snapshot names or the session stored",
        "db/blobs.py",
        """               AND (EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
                    OR EXISTS (SELECT FROM pin p
                                WHERE p.blob_id = b.id AND p.session_id = %(session)s AND p.how = 'stored'))
""",
        "",
        (DELETION,),
    ),
    Guard(
        "T1 pins what it promises",
        "db/blobs.py",
        "            SELECT %(session)s, id, 'told' FROM promised ORDER BY id\n",
        "            SELECT %(session)s, id, 'told' FROM promised WHERE false ORDER BY id\n",
        (DELETION, RACES),
    ),
    # --- T2, T3: announced, finalised ---------------------------------------------------------------------------------
    Guard(
        "T3 looks whether its session is open",
        "ledger.py",
        '    if session is None or session.state != "open":\n        tombstones.condemn_pending(tx, sorted(mine)',
        "    if session is None:\n        tombstones.condemn_pending(tx, sorted(mine)",
        (RACES, DELETION),
    ),
    Guard(
        "T3 pins the winner for the loser",
        "ledger.py",
        "sorted([*winners.values(), *won])",
        "sorted(won)",
        (COMMITS,),
    ),
    Guard(
        "a mask is announced only under its comparison, both sides unmarked",
        "ledger.py",
        "            if not snapshots.lock_unmarked(tx, sides) or not comparisons.lock_claimed(",
        "            if False and not comparisons.lock_claimed(",
        (RACES, DELETION),
    ),
    Guard(
        "the next claim condemns what a dead worker had announced",
        "work/compare/__init__.py",
        "    tombstones.condemn_pending(tx, tombstones.pending_of_comparison(tx, comparison_id), now, settled=False)\n",
        "",
        (FROZEN,),
    ),
    Guard(
        "a mask to be shared is looked at again in the commit",
        "work/compare/__init__.py",
        "    if gone := set(shared) - blobs.lock_named(tx, sorted(shared)):\n        raise _MasksGone(gone)\n",
        "",
        (REUSE,),
    ),
    Guard(
        "what only a marked snapshot shows is not taken over",
        "db/comparisons.py",
        "                       AND h.project_id = %(project)s AND h.deletion_id IS NULL AND b.deletion_id IS NULL\n",
        "                       AND h.project_id = %(project)s\n",
        (REUSE,),
    ),
    Guard(
        "a result whose mask was withdrawn is not taken over",
        "db/comparisons.py",
        " AND (i.changed_pixels = 0 OR i.mask_id IS NOT NULL)\n",
        "\n",
        (REUSE,),
    ),
    Guard(
        "of an inherited image no mask is kept",
        "work/compare/decoding.py",
        "yield replace(report.decoded(pair, found, None), detail=told)",
        "yield replace(report.decoded(pair, found, mask_id), detail=told)",
        (BASES,),
        ((" and done.name not in self._sides.inherited:", ":"),),
    ),
    # --- T4: commit ----------------------------------------------------------------------------------------------------
    Guard(
        "T4 names only what the session pinned or a live snapshot names",
        "db/blobs.py",
        """           AND (EXISTS (SELECT FROM pin p WHERE p.blob_id = b.id AND p.session_id = %(session)s)
                OR EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0))
""",
        "",
        (DELETION, RACES),
    ),
    Guard(
        "T4 share-locks the project",
        "db/access.py",
        '"SELECT state FROM project WHERE id = %(id)s FOR SHARE"',
        '"SELECT state FROM project WHERE id = %(id)s"',
        (COMMITS,),
    ),
    Guard(
        "a repeated create of a deleted snapshot is refused",
        "work/snapshots.py",
        "    if before:\n        raise _deleted_since(before.number)\n    session = Session(",
        "    session = Session(",
        (COMMITS,),
    ),
    Guard(
        "one commit at a time looks for its base",
        "work/snapshots.py",
        "    snapshots.lock_commits(tx, project.id)\n",
        "",
        (RACES,),
    ),
    # --- T5a: mark --------------------------------------------------------------------------------------------------------
    Guard(
        "a filter is evaluated under the project's lock",
        "work/deletion/marking.py",
        "        access.lock_project(tx, order.projects[0].id)\n",
        "        pass\n",
        (RACES,),
    ),
    Guard(
        "a held snapshot refuses the whole deletion",
        "work/deletion/marking.py",
        "    if held := holds.barring(tx, artifact_ids, now):\n        raise Held(held[0].number, held[0].reason)\n",
        "",
        (HOLDS,),
    ),
    Guard(
        "a hold is placed under the artifact's lock",
        "work/holds.py",
        "    if not holds.lock_artifact(tx, held.artifact_id):\n",
        "    if False:\n",
        (HOLDS, RACES),
    ),
    Guard(
        "a branch is held under the locks of its artifacts",
        "work/branch_holds.py",
        "        branch_holds.lock_branch(tx, project.id, branch)\n",
        "",
        (HOLDS,),
    ),
    Guard(
        "a hold of a branch keeps its artifacts",
        "db/holds.py",
        "                WHERE r.project_id = a.project_id AND r.branch = coalesce(s.head_ref, d.head_ref)\n",
        "                WHERE false\n",
        (HOLDS,),
    ),
    Guard(
        "what a rule deletes is chosen under the project's lock",
        "work/deletion/ruling.py",
        "        access.lock_project(tx, project.id)\n",
        "",
        (RETENTION,),
    ),
    Guard(
        "a rule is planned again in the transaction that marks",
        "work/retention/running.py",
        "return [number for number in numbers if decided.get(number)]",
        "return numbers",
        (RETENTION,),
    ),
    # --- T5b: release -------------------------------------------------------------------------------------------------------
    Guard(
        "T5b releases every blob, whoever else names it",
        "db/releases.py",
        "JOIN (SELECT blob_id FROM named UNION SELECT blob_id FROM made) x ON x.blob_id = b.id\n",
        "JOIN (SELECT blob_id FROM named UNION SELECT blob_id FROM made) x ON x.blob_id = b.id\n"
        "             WHERE NOT EXISTS (SELECT FROM snapshot_image i JOIN artifact a ON a.id = i.artifact_id\n"
        "                                WHERE i.image_id = b.id AND a.deletion_id IS NULL)\n",
        (DELETION,),
    ),
    Guard(
        "T5b releases standing tombstones of the same digest",
        "db/releases.py",
        "FROM tombstone t JOIN digests d ON d.project_id = t.project_id AND d.digest = t.digest",
        "FROM tombstone t JOIN digests d ON false",
        (DELETION,),
    ),
    Guard(
        "T5b releases what was condemned of what is made of the target",
        "db/releases.py",
        "FROM tombstone t WHERE t.made_of <> '{}' AND t.made_of && %(artifacts)s::uuid[]",
        "FROM tombstone t WHERE false",
        (DELETION, RACES),
    ),
    Guard(
        "T5b condemns what was announced for the target",
        "work/deletion/releasing.py",
        "        pending = releases.pending_derived(tx, artifact_ids, compared)\n",
        "        pending = []\n",
        (RACES, DELETION, HOLDS),
    ),
    # --- Withdrawal ------------------------------------------------------------------------------------------------------------
    Guard(
        "a withdrawal takes unfinished comparisons from their workers",
        "work/deletion/marking.py",
        "    withdrawals.restart(tx, unfinished)\n",
        "",
        (WITHDRAWAL,),
    ),
    Guard(
        "a withdrawal condemns what unfinished comparisons announced",
        "work/deletion/marking.py",
        "    pending = releases.pending_derived(tx, [], unfinished)\n",
        "    pending = []\n",
        (WITHDRAWAL,),
    ),
    Guard(
        "a withdrawal releases the masks that show the image",
        "db/withdrawals.py",
        "             WHERE id = %(image)s OR id IN (SELECT mask_id FROM masks) OR comparison_id",
        "             WHERE id = %(image)s OR comparison_id",
        (WITHDRAWAL,),
    ),
    Guard(
        "a withdrawal releases tombstones of the same digest",
        "db/withdrawals.py",
        "             WHERE t.project_id = %(project)s AND t.digest = %(digest)s\n",
        "             WHERE false\n",
        (WITHDRAWAL,),
    ),
    # --- T6: condemn ---------------------------------------------------------------------------------------------------------------
    Guard(
        "T6 looks at pins again under its locks",
        "db/tombstones.py",
        f"{_NO_REFERENCE}{_NO_PIN}            RETURNING",
        f"{_NO_REFERENCE}            RETURNING",
        (RACES,),
    ),
    Guard(
        "T6 spares what marked snapshots still name",
        "db/tombstones.py",
        f"{_NO_REFERENCE}{_NO_PIN}            RETURNING",
        f"{_NO_REFERENCE.replace('blob_reference', 'live_reference')}{_NO_PIN}            RETURNING",
        (RACES,),
    ),
    Guard(
        "T6 passes over rows that somebody holds",
        "db/tombstones.py",
        '"SELECT id FROM blob WHERE id = ANY(%(ids)s) ORDER BY id FOR UPDATE SKIP LOCKED"',
        '"SELECT id FROM blob WHERE id = ANY(%(ids)s) ORDER BY id"',
        (RACES,),
    ),
    Guard(
        "a skipped row keeps its candidate",
        "work/condemn.py",
        "    skipped = (set(free) - set(locked)) | sessions.urgently_wanted(tx, ids)\n",
        "    skipped = set()\n",
        (RACES,),
    ),
    Guard(
        "T6 cancels the session that alone keeps a blob from an urgent deletion",
        "work/condemn.py",
        "    if cancelled := sessions.cancel_for_urgent(tx, ids):\n        end_sessions(resources, tx, cancelled)\n",
        "",
        (DELETION, RACES),
    ),
    Guard(
        "the end of a pin enqueues what it held",
        "db/migrations/0001_protocol.sql",
        "CREATE TRIGGER pin_deleted AFTER DELETE ON pin\n"
        "    REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION enqueue_blob_id();\n",
        "",
        (SCHEMA, DELETION),
    ),
    # --- T7: remove -------------------------------------------------------------------------------------------------------------------
    Guard(
        "T7 waits for the journal of every deletion that released the blob",
        "db/tombstones.py",
        """               AND NOT EXISTS (SELECT FROM release r JOIN deletion d ON d.id = r.deletion_id
                                WHERE r.blob_id = t.blob_id AND d.journaled_at IS NULL)
""",
        "",
        (DELETION,),
    ),
    Guard(
        "a removal sent while a PUT may land does not close its tombstone",
        "db/tombstones.py",
        "DELETE FROM tombstone WHERE storage_key = ANY(%(keys)s) AND not_final_before <= %(sent_at)s\n"
        "        RETURNING blob_id",
        "DELETE FROM tombstone WHERE storage_key = ANY(%(keys)s)\n        RETURNING blob_id",
        (DELETION, RACES),
    ),
    # --- T8, T9 --------------------------------------------------------------------------------------------------------------------------
    Guard(
        "the end of a session condemns what it had only announced",
        "ledger.py",
        "    tombstones.condemn_pending(tx, tombstones.pending_of_sessions(tx, session_ids), "
        "resources.now(), settled=False)\n",
        "",
        (COMMITS,),
    ),
    Guard(
        "what a dead hold announced is condemned",
        "work/expire.py",
        "        tombstones.condemn_pending(tx, overdue, now, settled=True)\n",
        "        pass\n",
        (HOLDS,),
    ),
    Guard(
        "T9 asks about pins",
        "db/releases.py",
        f"{_TALLIED}{_PINNED}",
        _TALLIED,
        (DELETION,),
    ),
    Guard(
        "T9 does not take a marked snapshot for a live one",
        "db/releases.py",
        f"{_TALLIED}",
        _TALLIED.replace("live_reference", "blob_reference"),
        (WITHDRAWAL, DELETION, RACES),
        also=(
            (
                "                        AND NOT EXISTS (SELECT FROM live_reference l WHERE l.blob_id = r.blob_id OFFSET 0)))",
                "                        AND NOT EXISTS (SELECT FROM blob_reference l WHERE l.blob_id = r.blob_id OFFSET 0)))",
            ),
        ),
    ),
    Guard(
        "T9 counts the condemned as standing",
        "db/releases.py",
        "                             AND NOT EXISTS (SELECT FROM tombstone t WHERE t.blob_id = r.blob_id OFFSET 0) "
        "THEN 'removed'\n                            WHEN",
        "                             THEN 'removed'\n                            WHEN",
        (DELETION,),
        also=(
            (
                "               AND (EXISTS (SELECT FROM tombstone t WHERE t.blob_id = r.blob_id OFFSET 0)\n",
                "               AND (false\n",
            ),
        ),
    ),
    Guard(
        "T9 waits until nothing marked is left",
        "work/receipts.py",
        "    if deletion.journaled_at is None or deletions.marked_left(tx, deletion.id):\n",
        "    if deletion.journaled_at is None:\n",
        (DELETION, RACES),
    ),
    Guard(
        "T9 asks the store a second time",
        "work/receipts.py",
        "    if standing:\n",
        "    if False:\n",
        (LYING,),
    ),
    Guard(
        "T9 asks whether the store is still the one that was founded",
        "work/receipts.py",
        "return resources.now() if resources.store.answers() else None",
        "return resources.now()",
        (LYING,),
    ),
    Guard(
        "what stands again waits longer each time",
        "work/receipts.py",
        "attempts = times.get(item.blob_id, 1)",
        "attempts = 1",
        (LYING,),
    ),
    Guard(
        "trace rows are counted once no writer can add",
        "db/outbox.py",
        "AND not_final_before <= %(sent_at)s",
        "",
        (DELETION,),
    ),
    # --- A store that fails ------------------------------------------------------------------------------------------
    Guard(
        "an unmounted disk confirms nothing",
        "blobs/disk.py",
        "        elif self._was_founded:\n            return True\n",
        "",
        (FAILURES,),
    ),
    Guard(
        "a full disk gives up its reserve for the journal",
        "blobs/disk.py",
        "            self._reserve.unlink(missing_ok=True)\n",
        "",
        (FAILURES,),
    ),
    Guard(
        "uploads leave room for journal entries",
        "blobs/disk.py",
        "if self._was_founded and not self._keep_reserve():",
        "if False:",
        (FAILURES,),
    ),
    Guard(
        "what failed before shares no request with what did not",
        "db/tombstones.py",
        "               AND (t.attempts > 0) = %(again)s\n",
        "               AND %(again)s IS NOT NULL\n",
        (FAILURES,),
    ),
    Guard(
        "a store that does not answer is seen to be away",
        "blobs/removal.py",
        "            failure = failure.of_the_store()\n",
        "",
        (FAILURES,),
    ),
    Guard(
        "what failed in an outage is due soon after",
        "work/remove.py",
        "_LONGEST_OUTAGE if failure.store_is_down else _LONGEST",
        "_LONGEST",
        (FAILURES,),
    ),
    Guard(
        "a store that has refused everything is not asked about the rest",
        "blobs/removal.py",
        " or in_a_row >= _PATIENCE[failure.kind]",
        "",
        (FAILURES,),
    ),
    Guard(
        "a failure that names no key is taken apart",
        "blobs/removal.py",
        "            if len(part) > 1:\n",
        "            if False:\n",
        (LYING,),
    ),
    Guard(
        "a panic of the library is an answer like any other",
        "blobs/remote.py",
        'if type(error).__name__ != "PanicException":',
        "if True:",
        (LYING,),
    ),
    Guard(
        "a trace writer is refused once its artifact is marked",
        "traces/postgres.py",
        "                 WHERE a.deletion_id IS NULL\n",
        "",
        (FAILURES,),
    ),
    # --- Objects -----------------------------------------------------------------------------------------------------
    Guard(
        "nobody reads an object that has expired",
        "db/objects.py",
        "           AND (o.expires_at IS NULL OR o.expires_at > %(now)s)\n           AND b.lost_at IS NULL\n",
        "           AND b.lost_at IS NULL\n",
        (OBJECTS,),
    ),
    Guard(
        "a replaced object's bytes are let go of",
        "db/migrations/0005_objects.sql",
        "     WHERE NOT EXISTS (SELECT FROM come c WHERE c.blob_id = g.blob_id);\n",
        "     WHERE false;\n",
        (OBJECTS,),
    ),
    Guard(
        "a reader who saw an earlier object does not push the end of the next",
        "db/objects.py",
        "                ON s.key = o.key AND s.expires_at = o.expires_at\n",
        "                ON s.key = o.key\n",
        (OBJECTS,),
    ),
    Guard(
        "a key's patterns bound what it signs",
        "domain/key_tokens.py",
        "    if not any(namespaces.matches(pattern, scopes) for pattern in grant.key.scopes):\n",
        "    if False:\n",
        (OBJECTS_WIRE,),
    ),
    Guard(
        "a key's permissions bound what it signs",
        "domain/key_tokens.py",
        "KeyGrant(key, permissions & frozenset(key.permissions), use_case, scopes)",
        "KeyGrant(key, permissions, use_case, scopes)",
        (OBJECTS_WIRE,),
    ),
    Guard(
        "a token carries no wildcard",
        "domain/key_tokens.py",
        "    if namespaces.ANY in (use_case, *scopes.values()):\n",
        "    if False:\n",
        (OBJECTS_WIRE,),
    ),
    Guard(
        "a revoked key is no key",
        "db/keys.py",
        'WHERE kid = %(kid)s AND revoked_at IS NULL\n        """,\n        {"kid": kid},',
        'WHERE kid = %(kid)s\n        """,\n        {"kid": kid},',
        (OBJECTS_WIRE,),
    ),
    Guard(
        "a rebuild brings back nothing the journal names",
        "domain/recovery.py",
        "        if told.artifact_id in journaled:\n",
        "        if False:\n",
        (REBUILD,),
    ),
    Guard(
        "a manifest comes back only if its images are there",
        "domain/recovery.py",
        "        whole = next((told for told, missing in lacking if not missing), None)\n",
        "        whole = lacking[0][0]\n",
        (REBUILD,),
    ),
    Guard(
        "a manifest has the bytes it was stored with",
        "work/recovery/survey.py",
        "    if hashlib.sha256(text).hexdigest() != stored.place.digest:\n",
        "    if False:\n",
        (REBUILD,),
    ),
    Guard(
        "an id tells the kind, whatever the bytes look like",
        "work/recovery/survey.py",
        "            kind = ids.kind_of(place.blob_id) if row is None else row.kind\n",
        "            kind = None if row is None else row.kind\n",
        (REBUILD,),
    ),
    Guard(
        "a reopened deletion answers for what stands in its project",
        "work/recovery/adopting.py",
        "    recoveries.release_standing(tx, deletion_id)\n",
        "",
        (REBUILD,),
    ),
    Guard(
        "the store is listed after the wait",
        "work/recovery/__init__.py",
        "        wait(mine.settings.put_limit)\n        return _recover(mine, tell, withdraw)\n",
        "        told = _recover(mine, tell, withdraw)\n        wait(mine.settings.put_limit)\n        return told\n",
        (REBUILD,),
    ),
    Guard(
        "numbers begin above those of every epoch before",
        "db/installation.py",
        '        {"number": ids.first_number(epoch), "row": ids.first_row(epoch)},\n',
        '        {"number": 1, "row": ids.first_row(epoch)},\n',
        (REBUILD,),
    ),
    Guard(
        "nobody opens a database that is being rebuilt",
        "resources.py",
        "    if known.recovering:\n",
        "    if False:\n",
        (REBUILD,),
    ),
    Guard(
        "what was deleted since the backup is deleted again",
        "work/recovery/catching_up.py",
        "        deletions.mark(tx, deletion.id, shown)\n",
        "",
        (CATCHING_UP,),
    ),
    Guard(
        "a finished deletion of what an older database shows is not finished",
        "work/recovery/replaying.py",
        "        if receipt is not None and not self._is_shown(tx, entry):\n",
        "        if receipt is not None:\n",
        (CATCHING_UP,),
    ),
    Guard(
        "what was announced is judged by the manifests before its session ends",
        "work/recovery/__init__.py",
        "    ended = end_every_session(resources)\n",
        "    ended = 0\n",
        (CATCHING_UP,),
    ),
    Guard(
        "a database older than its store is not opened",
        "resources.py",
        '    if told.get("epoch") == known.epoch and told.get("mark", 0) > known.mark:\n',
        "    if False:\n",
        (CATCHING_UP,),
    ),
    Guard(
        "a mask of a withdrawn image does not come back",
        "domain/recovery.py",
        "        if mask is not None and not any(digest and withdrawn.get(digest, made) > made for digest in (head, base))\n",
        "        if mask is not None\n",
        (REBUILD,),
    ),
)
