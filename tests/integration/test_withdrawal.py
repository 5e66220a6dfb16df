"""Withdrawing one image from every snapshot: names stay, bytes and masks go, and nothing comes back."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from fixtures.world import World, digest
from PIL import Image

from snapshed.db import comparisons, tombstones
from snapshed.domain import keys
from snapshed.engine import Engine
from snapshed.errors import Held, MissingImages, NotFound, OwnerGone, PlanChanged
from snapshed.ledger import Draft, ForComparison, sha256, store
from snapshed.work import compare, deletion, snapshots

COMMIT = {"head_sha": "a" * 40, "head_repo_name": "shop/web"}
NEXT = {"head_sha": "b" * 40, "base_sha": "a" * 40, "head_repo_name": "shop/web"}


def picture(colour: str, spot: str | None = None) -> bytes:
    image = Image.new("RGB", (8, 8), colour)
    if spot:
        image.paste(spot, (2, 2, 5, 5))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


SECRET, CLEAN, PLAIN = picture("white", "red"), picture("white"), picture("blue")


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    made = Engine(workers=1, seconds_per_pair=30, memory_bytes=2**30, max_pixels=10**6)
    yield made
    made.close()


def compared(world: World, engine: Engine) -> None:
    for comparison_id in compare.unclaimed(world.resources, 100):
        compare.compare(world.resources, engine, comparison_id, lambda: False)


def details(world: World, number: int) -> snapshots.Details:
    return snapshots.details(world.resources, [world.project.id], number)


def test_bytes_and_masks_go_names_and_numbers_stay(world: World, engine: Engine) -> None:
    base = world.upload({"page.png": CLEAN, "other.png": PLAIN}, **COMMIT)
    head = world.upload({"page.png": SECRET, "other.png": PLAIN, "copy.png": SECRET}, **NEXT)
    compared(world, engine)
    (changed,) = [result for result in details(world, head).results if result.category == "changed"]
    assert changed.mask_id
    receipt = world.receipt(world.withdraw(SECRET, reason="it shows a password"))
    assert receipt["target"] == {"project": "main", "image": digest(SECRET)}
    assert receipt["snapshots"] == []
    assert receipt["withdrawn_from"] == [str(head)]
    assert receipt["rows"]["snapshot_images"] == 2
    assert snapshots.image_key(world.resources, world.project.id, digest(SECRET)) is None
    assert snapshots.image_key(world.resources, world.project.id, str(changed.mask_id)) is None
    world.tidy()
    receipt = world.receipt(receipt["id"])
    assert receipt["state"] == "complete"
    assert receipt["objects"]["image"] == {
        "released": 1, "removed": 1, "waiting": 0, "kept_shared": 0, "kept_pinned": 0
    }  # fmt: skip
    assert receipt["objects"]["mask"]["removed"] == 1
    assert world.stored(SECRET, CLEAN, PLAIN) == {CLEAN, PLAIN}
    shown = details(world, head)
    assert {image.name: image.image_id is None for image in shown.images} == {
        "page.png": True, "copy.png": True, "other.png": False
    }  # fmt: skip
    (still,) = [result for result in shown.results if result.category == "changed"]
    assert still.changed_pixels == changed.changed_pixels
    assert still.mask_id is None
    assert details(world, base).images[1].image_id is not None
    assert world.disagreements() == []


def test_it_goes_from_every_snapshot_that_names_it_and_from_those_another_deletion_takes(world: World) -> None:
    numbers = [world.upload({"page.png": SECRET, f"{n}.png": str(n).encode()}) for n in range(4)]
    world.delete(numbers[0])
    withdrawal = world.withdraw(SECRET)
    assert world.receipt(withdrawal)["withdrawn_from"] == [str(number) for number in numbers[1:]]
    world.tidy()
    assert world.receipt(withdrawal)["state"] == "complete"
    assert world.stored(SECRET) == set()
    assert world.disagreements() == []


def test_a_receipt_does_not_close_while_a_marked_snapshot_still_keeps_the_bytes(world: World) -> None:
    """Another deletion has hidden a snapshot that shows the image, but has not let go of it yet."""
    first, second = (world.upload({"page.png": SECRET, name: name.encode()}) for name in ("1.png", "2.png"))
    with world.resources.database.transaction() as tx:
        row = tx.execute(
            """
            INSERT INTO deletion (id, org_id, project_id, target, requested_by, snapshots, artifacts, rows, requested_at)
            SELECT gen_random_uuid(), %s, %s, '{}', 'test', ARRAY[number], ARRAY[id], '{}', now()
              FROM artifact WHERE number = %s RETURNING id
            """,
            [world.project.org_id, world.project.id, first],
        ).fetchone()
        assert row is not None
        tx.execute("UPDATE artifact SET deletion_id = %s WHERE number = %s", [row[0], first])
    withdrawal = world.withdraw(SECRET)
    assert world.receipt(withdrawal)["withdrawn_from"] == [str(second)]
    assert world.receipt(withdrawal)["objects"]["image"]["waiting"] == 1
    world.tidy()
    assert world.receipt(withdrawal)["state"] == "complete"
    assert world.stored(SECRET) == set()


def test_an_unfinished_comparison_begins_again_without_the_image(world: World, engine: Engine) -> None:
    """A worker has the image in memory when it is withdrawn. What it makes of it can neither be announced nor
    committed, and what it had announced is part of what the receipt answers for."""
    world.upload({"page.png": CLEAN}, **COMMIT)
    head = world.upload({"page.png": SECRET}, **NEXT)
    (comparison_id,) = compare.unclaimed(world.resources, 10)
    now, claim = world.resources.now(), world.resources.new_id()
    with world.resources.database.transaction() as tx:
        found = comparisons.claim(tx, comparison_id, claim, now, now + timedelta(minutes=1))
    assert found is not None
    owner = ForComparison(comparison_id, claim, found.head_id, found.base_id, world.project.org_id, world.project.id)
    mask = b"a mask that shows the secret"
    (announced,) = store(world.resources, owner, [Draft("mask", sha256(mask), mask)])
    withdrawal = world.withdraw(SECRET)
    assert world.receipt(withdrawal)["objects"]["mask"]["released"] == 1
    with pytest.raises(OwnerGone):
        store(world.resources, owner, [Draft("mask", sha256(b"late"), b"late")])
    world.tidy()
    assert world.receipt(withdrawal)["state"] == "removing", "the mask's PUT may still land"
    world.clock.pass_time(timedelta(hours=1))
    world.tidy()
    assert world.receipt(withdrawal)["state"] == "complete"
    assert world.resources.store.head(announced.storage_key) is None
    compared(world, engine)
    (result,) = details(world, head).results
    assert (result.category, result.reason) == ("errored", "withdrawn")


def test_nobody_is_promised_it_and_nobody_can_name_it_who_does_not_bring_it(world: World) -> None:
    world.upload({"page.png": SECRET})
    world.withdraw(SECRET)
    session = world.begin()
    assert world.ask(session, SECRET) == set()
    with pytest.raises(MissingImages):
        world.create({"again.png": SECRET})
    assert world.upload({"again.png": SECRET}), "whoever has the bytes may bring them again"


def test_an_upload_in_progress_that_was_promised_it_holds_it_unless_the_withdrawal_is_urgent(world: World) -> None:
    world.upload({"page.png": SECRET})
    world.ask(world.begin(), SECRET)
    withdrawal = world.withdraw(SECRET)
    world.tidy()
    receipt = world.receipt(withdrawal)
    assert receipt["state"] == "removing"
    assert receipt["objects"]["image"]["kept_pinned"] == 1
    assert receipt["pins_end_at"]


def test_an_urgent_one_says_whose_upload_it_ends(world: World) -> None:
    world.upload({"page.png": SECRET})
    world.ask(world.begin(), SECRET)
    shown = deletion.preview(world.resources, world.order(image=digest(SECRET), urgent=True))
    assert [upload["requested_by"] for upload in shown["refused_uploads"]] == ["token:test"]
    withdrawal = world.withdraw(SECRET, urgent=True)
    world.tidy()
    receipt = world.receipt(withdrawal)
    assert receipt["state"] == "complete"
    assert [upload["requested_by"] for upload in receipt["refused_uploads"]] == ["token:test"]
    assert world.stored(SECRET) == set()


def test_the_plan_of_a_preview_holds_exactly_as_long_as_the_target_is_the_same(world: World) -> None:
    world.upload({"page.png": SECRET})
    shown = deletion.preview(world.resources, world.order(image=digest(SECRET)))
    assert shown["objects"]["image"]["waiting"] == 1
    assert shown["rows"]["snapshot_images"] == 1
    world.upload({"page.png": SECRET})
    with pytest.raises(PlanChanged):
        world.withdraw(SECRET, plan=shown["plan"])
    assert world.stored(SECRET) == {SECRET}
    again = deletion.preview(world.resources, world.order(image=digest(SECRET)))
    world.withdraw(SECRET, plan=again["plan"])


def test_an_image_nobody_shows_is_not_found_and_one_that_a_hold_keeps_is_refused(world: World) -> None:
    with pytest.raises(NotFound):
        world.withdraw(SECRET)
    number = world.upload({"page.png": SECRET})
    world.hold(number)
    with pytest.raises(Held, match="evidence"):
        world.withdraw(SECRET)
    assert world.stored(SECRET) == {SECRET}


def test_the_journal_names_pairs_of_artifact_and_digest(world: World) -> None:
    world.upload({"page.png": SECRET})
    withdrawal = world.withdraw(SECRET)
    entry = json.loads(world.resources.store.get(keys.journal_entry(withdrawal)) or b"")
    assert entry["artifacts"] == []
    assert [image for _, image in entry["images"]] == [digest(SECRET)]


def test_a_snapshot_whose_image_was_withdrawn_can_still_be_deleted(world: World) -> None:
    number = world.upload({"page.png": SECRET, "other.png": PLAIN})
    world.withdraw(SECRET)
    last = world.delete(number)
    world.tidy()
    assert world.receipt(last)["state"] == "complete"
    assert world.files() == []
    assert world.disagreements() == []


def test_the_same_bytes_under_another_key_hold_the_receipt_open(world: World) -> None:
    """Two clients uploaded the image at once. The loser's copy is condemned, but its PUT may still land: a receipt that
    closed before could be followed by the very bytes it says are gone."""
    winner, loser = world.begin(), world.begin()
    rows = store(world.resources, loser, [Draft("image", digest(SECRET), SECRET)])
    world.keep(winner, SECRET)
    world.create({"page.png": SECRET})
    with world.resources.database.transaction() as tx:
        tombstones.condemn_pending(tx, [row.id for row in rows], world.resources.now(), settled=False)
    withdrawal = world.withdraw(SECRET)
    world.tidy()
    assert world.receipt(withdrawal)["objects"]["image"]["released"] == 2
    assert world.receipt(withdrawal)["state"] == "removing"
    world.clock.pass_time(timedelta(hours=1))
    world.tidy()
    assert world.receipt(withdrawal)["state"] == "complete"
    assert world.stored(SECRET) == set()
