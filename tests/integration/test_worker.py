"""What one deletion waits for must not hold up the next."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Sequence
from pathlib import Path

from fixtures.server import wait_until
from fixtures.world import World

from snapshed.blobs.disk import DiskStore
from snapshed.db.pool import refuse_inside_transaction
from snapshed.engine import Engine
from snapshed.worker import Worker

FIRST, SECOND = b"the first", b"the second"


class Slow(DiskStore):
    """A store that takes its time to say, key by key, what it still has."""

    def __init__(self, root: Path, world: World) -> None:
        super().__init__(root, guard=refuse_inside_transaction, put_limit=world.resources.settings.put_limit)
        self.asked, self.may_answer = threading.Event(), threading.Event()

    def held(self, keys: Sequence[str]) -> set[str]:
        self.asked.set()
        self.may_answer.wait(60)
        return super().held(keys)


def test_bytes_go_while_the_store_is_still_asked_about_another_deletion(world: World) -> None:
    """A receipt of a hundred thousand objects takes minutes to verify. Whoever deletes meanwhile must not wait for it."""
    first, second = world.upload({"one.png": FIRST}), world.upload({"two.png": SECOND})
    store = Slow(world.resources.settings.data / "objects", world)
    resources = dataclasses.replace(world.resources, store=store)
    engine = Engine(workers=1, seconds_per_pair=10, memory_bytes=2**30, max_pixels=1000)
    stopping = threading.Event()
    thread = threading.Thread(target=Worker(resources, engine, stopping).serve, kwargs={"stop_with_parent": False})
    thread.start()
    try:
        world.delete(first)
        assert store.asked.wait(60)
        deletion = world.delete(second)
        wait_until(lambda: not world.stored(SECOND), 60, "the second deletion's bytes to go")
        assert world.receipt(deletion)["state"] == "removing"

        store.may_answer.set()
        wait_until(lambda: world.receipt(deletion)["state"] == "complete", 60, "the receipt")
    finally:
        store.may_answer.set()
        stopping.set()
        thread.join(60)
    assert world.disagreements() == []
