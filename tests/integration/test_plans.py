"""Hot statements stay cheap however many sibling snapshots there are: what the planner chooses, on enough rows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, LiteralString
from uuid import uuid4

import pytest
from fixtures.world import World, digest

from snapshed.db import rows, tombstones
from snapshed.db.pool import Tx

SHARED = [f"shared {number}".encode() for number in range(40)]


@pytest.fixture
def crowded(world: World) -> World:
    """Sixty snapshots that share their images, multiplied in the database so that the planner has something to avoid."""
    images = {f"{number}.png": image for number, image in enumerate(SHARED)}
    world.upload(images)
    with world.resources.database.transaction() as tx:
        tx.execute(
            """
            INSERT INTO artifact (id, project_id, kind, app_id, created_at)
            SELECT gen_random_uuid(), project_id, kind, app_id, created_at FROM artifact, generate_series(1, 400)
            """
        )
        tx.execute(
            """
            INSERT INTO snapshot (artifact_id, manifest_id, image_count, selective, created_by)
            SELECT a.id, s.manifest_id, s.image_count, false, 'test' FROM artifact a, snapshot s
             WHERE NOT EXISTS (SELECT FROM snapshot x WHERE x.artifact_id = a.id)
            """
        )
        tx.execute(
            """
            INSERT INTO snapshot_image (artifact_id, name, image_id, digest, width, height)
            SELECT s.artifact_id, i.name, i.image_id, i.digest, 8, 8 FROM snapshot s, snapshot_image i
             WHERE NOT EXISTS (SELECT FROM snapshot_image x WHERE x.artifact_id = s.artifact_id)
            """
        )
    return world


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan] + [node for child in plan.get("Plans", []) for node in nodes(child)]


@pytest.mark.parametrize("analysed", [False, True], ids=["fresh", "analysed"])
def test_whether_an_image_may_be_read_is_looked_up_from_the_image(crowded: World, analysed: bool) -> None:
    """Every image on a page asks this. Started from the artifacts it would cost more with every snapshot."""
    with crowded.resources.database.transaction() as tx:
        if analysed:
            tx.execute("ANALYZE")
        row = tx.execute(
            """
            EXPLAIN (FORMAT json)
            SELECT b.id FROM blob b
             WHERE b.project_id = %s AND b.kind = 'image' AND b.state = 'live' AND b.digest = %s
               AND EXISTS (SELECT FROM live_reference r WHERE r.blob_id = b.id OFFSET 0)
            """,
            [crowded.project.id, digest(SHARED[0])],
        ).fetchone()
    assert row is not None
    plan = row[0][0]["Plan"] if not isinstance(row[0], str) else json.loads(row[0])[0]["Plan"]
    found = nodes(plan)
    scanned = [node.get("Relation Name") for node in found if node["Node Type"] == "Seq Scan"]
    assert not {"artifact", "snapshot_image"} & set(scanned), plan
    indexes = {node.get("Index Name") for node in found}
    assert "snapshot_image_blob" in indexes, indexes


def test_a_claim_looks_for_due_tombstones_once(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is empty most of the time, so the planner takes it for tiny. Ten thousand tombstones must not be
    looked through again for each of them."""
    plans: list[dict[str, Any]] = []
    run = rows.many

    def explained(tx: Tx, row: type[Any], sql: LiteralString, values: Mapping[str, Any] | None = None) -> list[Any]:
        with tx.transaction(force_rollback=True):
            found = tx.execute("EXPLAIN (ANALYZE, FORMAT json) " + sql, values).fetchone()
        assert found is not None
        plans.append(found[0][0]["Plan"])
        return run(tx, row, sql, values)

    with world.resources.database.transaction() as tx:
        tx.execute("ANALYZE tombstone")
        tx.execute(
            """
            INSERT INTO tombstone (storage_key, blob_id, project_id, kind, digest, bytes, made_of, condemned_at,
                                   not_final_before, next_at)
            SELECT n::text, gen_random_uuid(), 1, 'image', repeat('0', 64), 1, '{}', now(), now(), now()
              FROM generate_series(1, 200) n
            """
        )
    now = world.clock() + timedelta(days=1)
    monkeypatch.setattr(rows, "many", explained)
    with world.resources.database.transaction() as tx:
        claimed = tombstones.claim_tombstones(tx, uuid4(), now, now + timedelta(seconds=15), 100, again=False)

    assert len(claimed) == 100
    looked = [node["Actual Loops"] for node in nodes(plans[0]) if node["Node Type"] == "LockRows"]
    assert looked == [1]
