"""A random history of uploads, comparisons, deletions, crashes and bad weather against a tiny model, on a real
PostgreSQL and a real store. After every step the promises hold; at the end everything comes to rest exactly.
"""

from __future__ import annotations

import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import structlog
from fixtures.world import World, a_world
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test
from property.beats import BeatingDatabase, Stop
from property.history import Action
from property.people import People
from property.stage import IMAGES, STEPS, Scene, numbers, step, stops, stops_at
from property.weather import WeatheredStore

from snapshed.engine import Engine
from snapshed.errors import StoreUnavailable
from snapshed.traces import PostgresTraces
from snapshed.work import compare, condemn, deletion, expire, objects, receipts, remove, traces
from snapshed.work.deletion import releasing

WORKER_STEPS: dict[str, Callable[[Any], int]] = {
    "journal": deletion.journal_waiting,
    "release": deletion.release_waiting,
    "condemn": condemn.condemn,
    "remove": remove.remove,
    "remove traces": traces.remove_traces,
    "close": receipts.close_finished,
    "expire": expire.expire,
    "expire objects": objects.expire,
    "write traces": traces.write_traces,
}


class Protocol(People):
    @step(12, step=st.sampled_from(sorted(WORKER_STEPS)), stop=stops)
    def work(self, step: str, stop: Stop | None) -> None:
        self.act(step, lambda: WORKER_STEPS[step](self.resources), self.refused, stop)

    @step(3, when=lambda self: any(not item.is_complete for item in self.history.deletions.values()))
    def work_once_over(self) -> None:
        """One round of the tidying loop."""
        for name in ("journal", "release", "condemn", "remove", "remove traces", "write traces", "close"):
            self.act(name, lambda name=name: WORKER_STEPS[name](self.resources), self.refused, None)

    @step(
        8, when=lambda self: compare.unclaimed(self.resources, 1), which=numbers, stop=stops_at(1, 4, 5, 6, 7, 8, 9, 10)
    )
    def compare(self, which: int, stop: Stop | None) -> None:
        waiting = self.one_of(compare.unclaimed(self.resources, 10), which)
        self.act(
            "compare",
            lambda: compare.compare(self.resources, self.scene.engine, waiting, lambda: False),
            lambda action: self.refused(action, StoreUnavailable),
            stop,
        )

    # --- what just happens ---------------------------------------------------------------------------------------------

    @step(8, when=lambda self: self.history.frozen, which=numbers, is_to_die=st.sampled_from([False, False, True]))
    def resume(self, which: int, is_to_die: bool) -> None:
        """A process that stood still goes on as if nothing had happened, or dies where it stands."""
        action: Action = self.one_of(self.history.frozen, which)
        self.history.frozen.remove(action)
        action.weather_was_fair &= self.store.weather == "fair"
        action.run.resume(to_die=is_to_die)
        self.end(action)

    @step(3, seconds=st.sampled_from([1, 20, 20, 40, 400, 400, 700, 4000]))
    def time_passes(self, seconds: int) -> None:
        self.world.clock.pass_time(timedelta(seconds=seconds))

    @step(3, weather=st.sampled_from(["away", "late", "mute"]))
    def weather_changes(self, weather: Any) -> None:
        self.store.weather = "fair" if self.store.weather != "fair" else weather

    @step(4, when=lambda self: self.store.travelling, which=numbers)
    def a_late_put_lands(self, which: int) -> None:
        self.scene.happened["late put"] += self.store.land(which)

    @rule(data=st.data())
    def happen(self, data: st.DataObject) -> None:
        possible = [step.name for step in STEPS.values() if step.when(self) for _ in range(step.weight)]
        name = data.draw(st.sampled_from(possible))
        chosen = data.draw(STEPS[name].chosen)
        said = ", ".join(f"{key}={value!r}" for key, value in chosen.items())
        note(re.sub("([0-9a-f]{4})[0-9a-f]{60}", r"\1", f"{name}({said})"))  # an image by its first four digits
        getattr(self, name)(**chosen)
        self.history.time_goes_on(weather_is_fair=self.store.weather == "fair")
        self.promises.check(sorted(IMAGES))

    # --- the end ---------------------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        has_failed = sys.exc_info()[0] is not None
        try:
            if not has_failed:
                self.end_well()
        except BaseException:
            has_failed = True
            raise
        finally:
            for action in self.history.frozen:
                action.run.resume(to_die=True)
            if has_failed:
                sweep(self.world, self.store)

    def end_well(self) -> None:
        """Everything comes to rest; then everything is deleted, and nothing is left."""
        self.store.weather = "fair"
        while self.history.frozen:
            self.resume(0, is_to_die=False)
        self.come_to_rest()
        for number in self.history.held():
            self.world.release(number)
        self.promises.learn()
        self.order("delete many", None, set(self.history.live()), everything=True)
        self.come_to_rest()
        assert self.store.stored() == set(), "I3: everything is deleted, and something is stored"
        self.scene.happened["came to rest"] += 1

    def come_to_rest(self) -> None:
        """Sessions end, the store is back, and workers run until nothing is left to do."""
        for _ in range(2):
            self.tidy()
            self.world.clock.pass_time(timedelta(hours=7))
        for waiting in compare.unclaimed(self.resources, 100):
            compare.compare(self.resources, self.scene.engine, waiting, lambda: False)
        self.tidy()
        self.promises.check(sorted(IMAGES))
        self.promises.check_at_rest()

    def tidy(self) -> None:
        for _ in range(100):
            worked = 0
            for name, work in WORKER_STEPS.items():
                worked += work(self.resources)
                if name == "close":
                    self.promises.check(sorted(IMAGES))
            if not worked:
                return
        raise AssertionError("the tidying loop does not come to rest")


def sweep(world: World, store: WeatheredStore) -> None:
    """Leave nothing of a history that was given up half-way."""
    with world.resources.database.transaction() as tx:
        tx.execute(
            """
            TRUNCATE artifact, snapshot, snapshot_image, comparison, comparison_image, blob, session, pin, candidate,
                     tombstone, deletion, release, approval, image_decision, object, trace, trace_due, trace_removal, build, hold,
                     multipart, shard, branch_hold, webhook_delivery
            """
        )
    store.inner.remove(sorted(store.stored()))


@pytest.fixture
def scene(dsn: str, tmp_path: Path) -> Iterator[Scene]:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    engine = Engine(workers=1, seconds_per_pair=60, memory_bytes=2**31, max_pixels=10_000)
    with a_world(dsn, tmp_path) as world, psycopg.connect(dsn, autocommit=True) as rows, engine:
        plain = world.resources
        database = BeatingDatabase(plain.database)
        store = WeatheredStore(plain.store, world.clock, plain.settings.put_limit, rows)
        world.resources = dataclasses.replace(plain, database=database, store=store, traces=PostgresTraces(database))
        yield Scene(world, store, engine, rows, Counter())
    structlog.reset_defaults()


HISTORIES = os.environ.get("SNAPSHED_TEST_HISTORIES")
"""How many histories, other ones each time; without it the same 40, which `make test` has time for."""

MUST_HAPPEN = (
    *("ask", "keep", "upload", "create", "repeat", "build", "compare"),
    *("delete", "delete many", "delete as planned", "withdraw", "hold"),
    *WORKER_STEPS,
)


@pytest.mark.scale
def test_every_promise_holds_in_every_history(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("_STEP_ARTIFACTS", "_STEP_IMAGES"):
        monkeypatch.setattr(releasing, bound, 50)
    Protocol.scene = scene
    shrinks = () if os.environ.get("SNAPSHED_TEST_SHRINK") == "no" else (Phase.shrink,)
    chosen = settings(
        max_examples=int(HISTORIES or 40),
        stateful_step_count=30,
        derandomize=HISTORIES is None,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, *shrinks],
    )
    run_state_machine_as_test(Protocol, settings=chosen)
    happened = scene.happened
    for what, times in sorted(happened.items()):
        print(f"{times:7} {what}")  # noqa: T201  what was explored
    if HISTORIES is not None:
        return
    assert [what for what in MUST_HAPPEN if not happened[what]] == [], "the histories leave something out"
    for how in ("killed", "frozen"):
        assert sum(times for what, times in happened.items() if what.endswith(how)) > 20, f"hardly anything was {how}"
