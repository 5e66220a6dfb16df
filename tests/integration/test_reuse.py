"""No pair of images is decoded twice: what a comparison found is taken over, masks are shared, and deletions know it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any
from uuid import UUID

import pytest
from fixtures.world import World, digest
from test_withdrawal import COMMIT, NEXT, picture

from snapshed.db import comparisons
from snapshed.domain.report import Result
from snapshed.domain.verdict import verdict
from snapshed.engine import DiffResult, DiffTask, Engine
from snapshed.work import compare, deletion, snapshots

BASE, HEAD, OTHER = picture("white"), picture("white", "red"), picture("white", "green")
SECOND = {"head_sha": "c" * 40, "head_repo_name": "shop/web"}
SECOND_NEXT = {"head_sha": "d" * 40, "base_sha": "c" * 40, "head_repo_name": "shop/web"}


class Counting(Engine):
    """An engine that remembers which pairs it was asked to decode."""

    asked: list[str]

    def diff(self, tasks: Iterable[DiffTask]) -> Iterator[DiffResult]:
        taken = list(tasks)
        self.asked += [task.name for task in taken]
        return super().diff(taken)


@pytest.fixture(scope="module")
def children() -> Iterator[Counting]:
    made = Counting(workers=1, seconds_per_pair=30, memory_bytes=2**30, max_pixels=10**6)
    yield made
    made.close()


@pytest.fixture
def engine(children: Counting) -> Counting:
    children.asked = []
    return children


def compared(world: World, engine: Engine) -> None:
    for comparison_id in compare.unclaimed(world.resources, 100):
        compare.compare(world.resources, engine, comparison_id, lambda: False)


def results(world: World, number: int) -> dict[str, Result]:
    found = snapshots.details(world.resources, [world.project.id], number)
    return {result.name: result for result in found.results}


def a_pair(world: World, engine: Engine, first: dict[str, Any], second: dict[str, Any], **more: Any) -> tuple[int, int]:
    base = world.upload({"a.png": BASE}, **first)
    head = world.upload({"a.png": HEAD}, **second, **more)
    compared(world, engine)
    return base, head


def readable(world: World, mask_id: UUID | None) -> bool:
    return snapshots.image_key(world.resources, world.project.id, str(mask_id)) is not None


def test_the_same_build_again_decodes_nothing_and_names_the_same_mask(world: World, engine: Counting) -> None:
    _, head = a_pair(world, engine, COMMIT, NEXT)
    assert engine.asked == ["a.png"]
    _, again = a_pair(world, engine, SECOND, SECOND_NEXT)
    assert engine.asked == ["a.png"]
    first, second = results(world, head)["a.png"], results(world, again)["a.png"]
    assert first == second
    assert first.mask_id is not None
    assert first.regions == [[2, 2, 3, 3]]
    assert first.fingerprint
    assert world.disagreements() == []


def test_each_comparison_judges_by_its_own_threshold(world: World, engine: Counting) -> None:
    a_pair(world, engine, COMMIT, NEXT)
    _, lenient = a_pair(world, engine, SECOND, SECOND_NEXT, diff_threshold=0.5)
    assert engine.asked == ["a.png"]
    found = results(world, lenient)["a.png"]
    assert (found.category, found.threshold, found.threshold_from) == ("unchanged", 0.5, "manifest")
    assert found.mask_id is not None


def test_equal_pairs_of_one_comparison_are_decoded_once_however_many_there_are(world: World, engine: Counting) -> None:
    names = [f"{number:03}.png" for number in range(150)]
    world.upload(dict.fromkeys(names, BASE), **COMMIT)
    head = world.upload(dict.fromkeys(names, HEAD), **NEXT)
    compared(world, engine)
    assert engine.asked == ["000.png"]
    assert len({result.mask_id for result in results(world, head).values()}) == 1


def test_deleting_who_made_a_mask_leaves_it_to_who_shares_it(world: World, engine: Counting) -> None:
    base, head = a_pair(world, engine, COMMIT, NEXT)
    other_base, other_head = a_pair(world, engine, SECOND, SECOND_NEXT)
    mask = results(world, other_head)["a.png"].mask_id
    previewed = deletion.preview(world.resources, world.order(snapshots=[head]))
    assert previewed["objects"]["mask"]["kept_shared"] == 1
    receipt = world.delete(head)
    world.tidy()
    told = world.receipt(receipt)
    assert told["state"] == "complete"
    assert told["objects"]["mask"] == {"released": 1, "removed": 0, "waiting": 0, "kept_shared": 1, "kept_pinned": 0}
    assert readable(world, mask)
    assert results(world, other_head)["a.png"].mask_id == mask
    # Whoever is the last to name it answers for it, and it is gone when that receipt says so.
    world.delete(base)
    world.tidy()
    assert readable(world, mask)
    last = world.delete(other_base)
    world.tidy()
    told = world.receipt(last)
    assert told["state"] == "complete"
    assert told["objects"]["mask"] == {"released": 1, "removed": 1, "waiting": 0, "kept_shared": 0, "kept_pinned": 0}
    assert not readable(world, mask)
    assert world.disagreements() == []
    assert snapshots.details(world.resources, [world.project.id], other_head).comparison is None


def test_withdrawing_one_of_two_images_takes_the_mask_from_everybody_and_it_is_not_taken_over_again(
    world: World, engine: Counting
) -> None:
    _, head = a_pair(world, engine, COMMIT, NEXT)
    _, other = a_pair(world, engine, SECOND, SECOND_NEXT)
    mask = results(world, head)["a.png"].mask_id
    receipt = world.withdraw(HEAD)
    assert not readable(world, mask)
    world.tidy()
    assert world.receipt(receipt)["objects"]["mask"]["removed"] == 1
    assert {results(world, number)["a.png"].mask_id for number in (head, other)} == {None}
    third = {"head_sha": "e" * 40, "base_sha": "c" * 40, "head_repo_name": "shop/web"}
    session = world.begin()
    world.keep(session, HEAD)
    back = world.create({"a.png": HEAD}, **third)
    compared(world, engine)
    assert engine.asked == ["a.png", "a.png"]
    found = results(world, back)["a.png"]
    assert found.mask_id not in (None, mask)
    assert world.disagreements() == []


def test_what_only_a_marked_snapshot_shows_is_not_taken_over(world: World, engine: Counting) -> None:
    _, head = a_pair(world, engine, COMMIT, NEXT)
    with world.resources.database.transaction() as tx:  # a mark without its release, as a large deletion leaves it
        deletion_id = world.resources.new_id()
        tx.execute(
            """
            INSERT INTO deletion (id, org_id, target, requested_by, snapshots, artifacts, rows, requested_at)
            VALUES (%s, %s, '{}', 'test', '{}', '{}', '{}', now())
            """,
            [deletion_id, world.project.org_id],
        )
        tx.execute("UPDATE artifact SET deletion_id = %s WHERE number = %s", [deletion_id, head])
        assert not comparisons.known(tx, world.project.id, Engine.ALGORITHM, [(digest(HEAD), digest(BASE))])
    _, again = a_pair(world, engine, SECOND, SECOND_NEXT)
    assert engine.asked == ["a.png", "a.png"]
    assert results(world, again)["a.png"].mask_id is not None


def test_a_mask_that_goes_between_look_up_and_commit_is_made_again(world: World, engine: Counting) -> None:
    """The maker is deleted, and the mask's bytes with it, while another comparison is about to name the mask."""
    _, head = a_pair(world, engine, COMMIT, NEXT)
    mask = results(world, head)["a.png"].mask_id
    world.upload({"a.png": BASE, "b.png": BASE}, **SECOND)
    again = world.upload({"a.png": HEAD, "b.png": OTHER}, **SECOND_NEXT)

    class DeletingMeanwhile(Counting):
        def diff(self, tasks: Iterable[DiffTask]) -> Iterator[DiffResult]:
            found = list(super().diff(tasks))
            if len(self.asked) == 1:
                world.delete(head)
                world.tidy()
                assert not readable(world, mask)
            return iter(found)

    meanwhile = DeletingMeanwhile(workers=1, seconds_per_pair=30, memory_bytes=2**30, max_pixels=10**6)
    meanwhile.asked = []
    with meanwhile:
        compared(world, meanwhile)
    assert meanwhile.asked == ["b.png", "a.png"]
    found = results(world, again)
    assert found["a.png"].mask_id != mask
    assert all(readable(world, result.mask_id) for result in found.values())
    world.tidy()
    assert world.disagreements() == []


def test_another_project_decodes_for_itself(world: World, engine: Counting) -> None:
    a_pair(world, engine, COMMIT, NEXT)
    with world.resources.database.transaction() as tx:
        tx.execute("INSERT INTO project (org_id, slug, created_at) SELECT org_id, 'elsewhere', now() FROM project")
    with world.resources.database.transaction() as tx:
        pair = [(digest(HEAD), digest(BASE))]
        assert comparisons.known(tx, world.project.id, Engine.ALGORITHM, pair)
        assert not comparisons.known(tx, world.project.id + 1, Engine.ALGORITHM, pair)
        assert not comparisons.known(tx, world.project.id, "another/1", pair)
        assert not comparisons.known(tx, world.project.id, Engine.ALGORITHM, [pair[0][::-1]])


def test_a_look_up_goes_by_the_digests_however_many_pairs_were_decoded(world: World, engine: Counting) -> None:
    a_pair(world, engine, COMMIT, NEXT)
    with world.resources.database.transaction() as tx:
        tx.execute(
            """
            INSERT INTO comparison_image (comparison_id, name, category, head_digest, base_digest, changed_pixels,
                                          total_pixels)
            SELECT comparison_id, 'n' || n, category, md5(n::text), md5((-n)::text), 0, 64
              FROM comparison_image, generate_series(1, 20000) n
            """
        )
        tx.execute("ANALYZE comparison_image")
        plan = tx.execute(
            """
            EXPLAIN SELECT k.mask_id FROM unnest(ARRAY['x', 'y'], ARRAY['z', 'w']) AS wanted (head, base),
                LATERAL (SELECT i.* FROM comparison_image i
                          WHERE i.head_digest = wanted.head AND i.base_digest = wanted.base
                            AND i.total_pixels IS NOT NULL LIMIT 1) k
            """
        ).fetchall()
    assert any("comparison_image_decoded" in line for (line,) in plan), plan


def test_a_broken_image_blocks_a_pass_and_is_looked_at_again_each_time(world: World, engine: Counting) -> None:
    world.upload({"a.png": BASE}, **COMMIT)
    broken = world.upload({"a.png": HEAD[:30]}, **NEXT)
    compared(world, engine)
    found = snapshots.details(world.resources, [world.project.id], broken)
    assert found.results[0].category == "errored"
    assert found.comparison is not None
    assert verdict("done", found.comparison.counts or {}, None) == "failed"
    world.upload({"a.png": BASE}, **SECOND)
    world.upload({"a.png": HEAD[:30]}, **SECOND_NEXT)
    compared(world, engine)
    assert engine.asked == ["a.png", "a.png"]
