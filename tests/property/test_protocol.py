"""A random history of uploads, comparisons, deletions, crashes and bad weather against a tiny model, on a real
PostgreSQL and a real store. After every step the promises hold; at the end everything comes to rest exactly.
"""

from __future__ import annotations

import dataclasses
import os
import sys
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import psycopg
import pytest
import structlog
from fixtures.pictures import picture
from fixtures.world import World, a_world, digest, manifest
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from property.beats import BeatingDatabase, Run, Stop
from property.history import Action, Artifact, History, Request, Session
from property.promises import Promises
from property.weather import WeatheredStore

from snapshed.engine import Engine
from snapshed.errors import (
    Conflict,
    Held,
    MissingImages,
    NotFound,
    OwnerGone,
    PlanChanged,
    SessionOver,
    StoreUnavailable,
)
from snapshed.traces import PostgresTraces
from snapshed.work import (
    access,
    compare,
    condemn,
    deletion,
    expire,
    receipts,
    remove,
    snapshots,
    traces,
    uploads,
)
from snapshed.work.deletion import releasing

IMAGES = {digest(png): png for png in (picture(f"property {number}", 8, 8).png for number in range(4))}
NAMES = ("one.png", "two.png")
COMMITS = ("a" * 40, "b" * 40)
BRANCHES = ("main", "topic")

WORKER_STEPS: dict[str, Callable[[Any], int]] = {
    "journal": deletion.journal_waiting,
    "release": deletion.release_waiting,
    "condemn": condemn.condemn,
    "remove": remove.remove,
    "remove traces": traces.remove_traces,
    "close": receipts.close_finished,
    "expire": expire.expire,
    "write traces": traces.write_traces,
}

stops = st.one_of(
    st.none(),
    st.builds(Stop, st.sampled_from(["freeze", "kill"]), st.sampled_from([1, 1, 2, 2, 3, 3, 4, 4, 5, 6, 7, 8])),
)
numbers = st.integers(min_value=0, max_value=7)
some_images = st.lists(st.sampled_from(sorted(IMAGES)), min_size=1, max_size=2, unique=True)
pictures_by_name = st.dictionaries(st.sampled_from(NAMES), st.sampled_from(sorted(IMAGES)), min_size=1)
commits = st.tuples(st.sampled_from([*COMMITS, None]), st.sampled_from([*COMMITS, None]))


@dataclasses.dataclass
class Scene:
    """What one test run shares: an installation, and how often each thing has happened."""

    world: World
    store: WeatheredStore
    engine: Engine
    rows: psycopg.Connection[Any]
    happened: Counter[str]
    examples: int = 0


@dataclasses.dataclass(frozen=True)
class Step:
    """Something that may happen, how often it is tried, and what has to be chosen for it."""

    name: str
    weight: int
    when: Callable[[Any], Any]
    chosen: st.SearchStrategy[dict[str, Any]]


STEPS: dict[str, Step] = {}


def step(
    weight: int, *, when: Callable[[Any], Any] = lambda _: True, **chosen: st.SearchStrategy[Any]
) -> Callable[[Any], Any]:
    """Make a method something that may happen. Weighed by hand: a history in which no worker or no client ever comes by,
    as Hypothesis would choose among rules, tells little."""

    def note_down(method: Any) -> Any:
        STEPS[method.__name__] = Step(method.__name__, weight, when, st.fixed_dictionaries(chosen))
        return method

    return note_down


class Protocol(RuleBasedStateMachine):
    scene: ClassVar[Scene]

    def __init__(self) -> None:
        super().__init__()
        scene = self.scene
        scene.examples += 1
        self.world, self.store = scene.world, scene.store
        self.resources = self.world.resources
        self.world.project = access.add_project(self.resources, "main", f"p{scene.examples}-{uuid.uuid4().hex[:6]}")
        self.store.weather = "fair"
        self.store.travelling.clear()
        self.store.complaints.clear()
        self.history = History()
        self.promises = Promises(self.world, self.store, self.history, scene.rows)

    @initialize(most=st.sampled_from([1, 50]))
    def choose_steps(self, most: int) -> None:
        """How much is let go of at once, so that deletions are released in the transaction that marks them or later."""
        releasing._STEP_ARTIFACTS = releasing._STEP_IMAGES = most

    @initialize(base=pictures_by_name, head=pictures_by_name)
    def upload_two(self, base: dict[str, str], head: dict[str, str]) -> None:
        """So that no history is barren: a snapshot and one that builds on it."""
        self.upload(base, (COMMITS[0], None), "main")
        self.upload(head, (COMMITS[1], COMMITS[0]), "topic")

    # --- running verbs ---------------------------------------------------------------------------------------------

    def act(
        self, name: str, work: Callable[[], Any], heard: Callable[[Action], None], stop: Stop | None, **facts: Any
    ) -> None:
        """Begin a verb, and tell `heard` its outcome when there is one."""
        if stop is not None and stop.how == "freeze" and len(self.history.frozen) >= 3:
            stop = None
        named, gone = self.history.named(), set(self.history.gone())
        run = Run(work, stop)
        action = Action(name, run, set(named), set(named), gone, self.store.weather == "fair", facts=facts)
        action.facts["heard"] = heard
        self.scene.happened[name] += 1
        if run.has_ended:
            self.end(action)
        else:
            action.was_frozen = True
            self.scene.happened[f"{name} frozen"] += 1
            self.history.frozen.append(action)

    def end(self, action: Action) -> None:
        run = action.run
        if run.was_killed:
            self.scene.happened[f"{action.name} killed"] += 1
            return
        if run.error is not None:
            self.scene.happened[f"{action.name}: {type(run.error).__name__}"] += 1
        self.promises.learn()
        action.named_ever |= self.history.named()
        action.facts["heard"](action)

    @staticmethod
    def refused(action: Action, *allowed: type[Exception]) -> bool:
        """True if the verb was refused for one of these reasons; any other error fails the test."""
        error = action.run.error
        if error is None:
            return False
        if isinstance(error, StoreUnavailable) and not action.weather_was_fair:
            return True
        if not isinstance(error, allowed):
            raise error
        return True

    def one_of(self, items: Any, which: int) -> Any:
        listed = list(items)
        return listed[which % len(listed)]

    def some_session(self, which: int) -> Session:
        """An open one; sometimes one that is over."""
        return self.one_of(self.history.open_sessions() if which < 7 else self.history.sessions.values(), which)

    # --- what clients do -------------------------------------------------------------------------------------------

    @step(2, when=lambda self: len(self.history.open_sessions()) < 3)
    def begin(self) -> None:
        owner = self.world.begin()
        ends_at = self.world.clock() + self.resources.settings.session_ttl
        self.history.sessions[owner.session_id] = Session(owner, ends_at)

    @step(4, when=lambda self: self.history.open_sessions(), which=numbers, images=some_images, stop=stops)
    def ask(self, which: int, images: list[str], stop: Stop | None) -> None:
        session = self.some_session(which)
        had = set(session.may_have_stored)
        session.touched |= set(images) & (self.history.named() | had)
        self.act(
            "ask",
            lambda: set(uploads.ask(self.resources, session.owner, images)),
            self.was_told,
            stop,
            session=session,
            images=set(images),
            had=had,
            named=self.history.named(),
        )

    def was_told(self, action: Action) -> None:
        session: Session = action.facts["session"]
        if self.refused(action, SessionOver):
            assert session not in self.history.surely_open(self.world.clock()), "an open session is told it is over"
            return
        told: set[str] = action.run.result
        assert told <= action.facts["named"] | action.facts["had"], "I8: promised, and no live snapshot names it"
        assert told >= action.facts["images"] & action.facts["named"], "a client must upload what is here"
        for image in told:
            session.promised.setdefault(image, "told")

    @step(4, when=lambda self: self.history.open_sessions(), which=numbers, images=some_images, stop=stops)
    def keep(self, which: int, images: list[str], stop: Stop | None) -> None:
        session = self.some_session(which)
        session.touched |= set(images)
        session.may_have_stored |= set(images)
        given = [uploads.Upload(image, IMAGES[image]) for image in images]
        self.act(
            "keep",
            lambda: uploads.keep(self.resources, session.owner, given),
            self.was_kept,
            stop,
            session=session,
            images=images,
        )

    def was_kept(self, action: Action) -> None:
        session: Session = action.facts["session"]
        if self.refused(action, SessionOver, StoreUnavailable if action.was_frozen else SessionOver):
            if isinstance(action.run.error, SessionOver):
                assert session not in self.history.surely_open(self.world.clock()), "an open session cannot store"
            return
        session.promised |= dict.fromkeys(action.facts["images"], "stored")

    @step(
        1,
        when=lambda self: any(session.promised for session in self.history.open_sessions()),
        which=numbers,
        image=numbers,
        stop=stops,
    )
    def drop(self, which: int, image: int, stop: Stop | None) -> None:
        """A client removes an image by its key: only its own claim goes."""
        session: Session = self.one_of([s for s in self.history.open_sessions() if s.promised], which)
        dropped = self.one_of(sorted(session.promised), image)
        del session.promised[dropped]
        self.act("drop", lambda: uploads.drop(self.resources, session.owner, dropped), self.refused, stop)

    @step(
        4,
        when=lambda self: any(session.promised for session in self.history.open_sessions()),
        which=numbers,
        picks=st.lists(numbers, min_size=1, max_size=2),
        commit=commits,
        branch=st.sampled_from(BRANCHES),
        is_named=st.booleans(),
        stop=stops,
    )
    def create_promised(
        self, which: int, picks: list[int], commit: tuple[Any, Any], branch: str, is_named: bool, stop: Stop | None
    ) -> None:
        """A client creates a snapshot of what its session was promised."""
        session: Session = self.one_of([s for s in self.history.open_sessions() if s.promised], which)
        promised = sorted(session.promised)
        images = {name: self.one_of(promised, pick) for name, pick in zip(NAMES, picks, strict=False)}
        self.create(images, commit, branch, session.owner.session_id if is_named else None, stop)

    @step(2, images=pictures_by_name, commit=commits, which=st.one_of(st.none(), numbers), stop=stops)
    def create_anything(
        self, images: dict[str, str], commit: tuple[Any, Any], which: int | None, stop: Stop | None
    ) -> None:
        """A client creates a snapshot of images it may have no right to, in any session or in none."""
        session_id = None
        if which is not None and self.history.sessions:
            session_id = self.one_of(self.history.sessions, which)
        self.create(images, commit, "main", session_id, stop)

    def create(
        self, images: dict[str, str], commit: tuple[Any, Any], branch: str, session_id: Any, stop: Stop | None
    ) -> None:
        fields = {"head_sha": commit[0], "head_ref": branch}
        if commit[0] and commit[1] and commit[0] != commit[1]:
            fields["base_sha"] = commit[1]
        fields = {name: value for name, value in fields.items() if value}
        body = manifest({name: IMAGES[image] for name, image in images.items()}, run=uuid.uuid4().hex, **fields)
        request = Request(body, dict(sorted(images.items())), session_id)
        self.history.requests.append(request)
        self.send(request, "create", stop)

    @step(3, when=lambda self: self.history.requests, which=numbers, stop=stops)
    def repeat(self, which: int, stop: Stop | None) -> None:
        """A client repeats a create whose answer it may not have got."""
        self.send(self.one_of(reversed(self.history.requests), which), "repeat", stop)

    def send(self, request: Request, name: str, stop: Stop | None) -> None:
        history = self.history
        newest = max(request.made, default=None)
        is_remembered = newest is not None and (
            request.session_id is not None or self.world.clock() - request.made[newest] < snapshots.REPEAT
        )
        sessions = [s for s in history.open_sessions() if request.session_id in (None, s.owner.session_id)]
        self.act(
            name,
            lambda: (
                snapshots.create(
                    self.resources, self.world.project, "token:test", request.body, request.session_id
                ).number
            ),
            self.was_created,
            stop,
            request=request,
            before=newest if is_remembered else None,
            promised=[(session, dict(session.promised)) for session in sessions],
        )

    def was_created(self, action: Action) -> None:
        request: Request = action.facts["request"]
        before: int | None = action.facts["before"]
        if action.run.error is not None:
            self.create_was_refused(action, request, before)
            return
        number: int = action.run.result
        assert number not in action.gone_before, "I8: a create is answered with a deleted snapshot"
        assert number in request.made, "a create is answered with somebody else's snapshot"
        if before is not None and number != before:
            assert before in self.history.gone(), "a repeated create makes a second snapshot"
            assert request.session_id is None, "I8: a session makes its deleted snapshot again"
            made_in = self.session_of(number)
            assert made_in in self.history.sessions, "I8: a repeated create makes its deleted snapshot again"
        if number != before:
            session = self.history.sessions.get(self.session_of(number))
            may_name = action.named_ever | (session.touched if session else set())
            assert set(request.images.values()) <= may_name, "I8: a create names what it never had"

    def session_of(self, number: int) -> Any:
        row = self.scene.rows.execute("SELECT id FROM session WHERE number = %s", [number]).fetchone()
        return row[0] if row else None

    def create_was_refused(self, action: Action, request: Request, before: int | None) -> None:
        late = (StoreUnavailable,) if action.was_frozen else ()
        self.refused(action, MissingImages, SessionOver, Conflict, NotFound, *late)
        error = action.run.error
        if isinstance(error, StoreUnavailable):
            return
        wanted = set(request.images.values())
        if before is not None and before not in self.history.gone():
            raise AssertionError(f"I5: a repeated create is refused though its snapshot is there: {error}")
        surely_open = self.history.surely_open(self.world.clock())
        for session, promised in action.facts["promised"]:
            if session not in surely_open:
                continue
            still = promised.keys() & session.promised.keys()
            if request.session_id is not None and request.session_id == session.owner.session_id:
                assert not isinstance(error, SessionOver), "I5: an open session is called over"
                if isinstance(error, MissingImages):
                    assert not set(error.digests) & (still | action.named_always), "I5: a promised image is missing"
            elif request.session_id is None and not request.made and not action.was_frozen:
                assert not wanted <= still | action.named_always, f"I5: a promised create is refused: {error}"
        if request.session_id is None and not request.made and not action.was_frozen:
            assert not wanted <= action.named_always, f"a create of what live snapshots name is refused: {error}"

    @step(
        3,
        when=lambda self: len(self.history.snapshots()) < 4,
        images=pictures_by_name,
        commit=commits,
        branch=st.sampled_from(BRANCHES),
    )
    def upload(self, images: dict[str, str], commit: tuple[Any, Any], branch: str) -> None:
        """A whole run of a client, without trouble unless the weather is bad."""
        if self.store.weather != "fair":
            return
        owner = self.world.begin()
        session = Session(owner, self.world.clock() + self.resources.settings.session_ttl)
        self.history.sessions[owner.session_id] = session
        wanted = sorted(set(images.values()))
        session.touched |= set(wanted)
        told = set(uploads.ask(self.resources, owner, wanted))
        assert told == self.history.named() & set(wanted)
        kept = [image for image in wanted if image not in told]
        session.may_have_stored |= set(kept)
        uploads.keep(self.resources, owner, [uploads.Upload(image, IMAGES[image]) for image in kept])
        session.promised |= dict.fromkeys(told, "told") | dict.fromkeys(kept, "stored")
        self.create(images, commit, branch, owner.session_id, None)
        self.scene.happened["upload"] += 1

    # --- what people delete ------------------------------------------------------------------------------------------

    def look_at_targets(self) -> None:
        """Write down what every live snapshot would take with it."""
        found = self.scene.rows.execute(
            """
            WITH target AS (SELECT id, number FROM artifact WHERE project_id = %(project)s AND deletion_id IS NULL),
            compared AS (SELECT c.id, c.report_id, t.number
                           FROM comparison c JOIN target t ON t.id IN (c.head_id, c.base_id)),
            had AS (
                SELECT t.number::text AS whose, i.image_id AS id
                  FROM snapshot_image i JOIN target t ON t.id = i.artifact_id
                UNION SELECT t.number::text, s.manifest_id FROM snapshot s JOIN target t ON t.id = s.artifact_id
                UNION SELECT t.number::text, d.manifest_id FROM build d JOIN target t ON t.id = d.artifact_id
                UNION SELECT t.number::text, d.file_id FROM build d JOIN target t ON t.id = d.artifact_id
                UNION SELECT number::text, report_id FROM compared
                UNION SELECT c.number::text, i.mask_id FROM comparison_image i JOIN compared c ON c.id = i.comparison_id
                UNION SELECT c.number::text, b.id FROM blob b JOIN compared c ON c.id = b.comparison_id
                UNION SELECT t.number::text, b.id FROM blob b JOIN target t ON t.id = ANY(b.made_of)
                -- What a withdrawal of an image takes: itself, and every mask that shows it.
                UNION SELECT digest, id FROM blob WHERE kind = 'image' AND state = 'live' AND project_id = %(project)s
                UNION SELECT d.digest, i.mask_id
                  FROM comparison_image i JOIN compared c ON c.id = i.comparison_id,
                       LATERAL (VALUES (i.head_digest), (i.base_digest)) d (digest)
                 WHERE d.digest IS NOT NULL)
            SELECT h.whose, b.storage_key FROM had h JOIN blob b ON b.id = h.id
            UNION SELECT h.whose, x.storage_key
              FROM had h JOIN blob b ON b.id = h.id AND b.kind = 'image'
              JOIN tombstone x ON x.project_id = b.project_id AND x.digest = b.digest
            UNION SELECT t.number::text, x.storage_key FROM tombstone x JOIN target t ON t.id = ANY(x.made_of)
            """,
            {"project": self.world.project.id},
        ).fetchall()
        self.history.takes = {}
        for whose, key in found:
            self.history.takes.setdefault(whose if len(whose) == 64 else int(whose), set()).add(key)

    @step(
        3,
        when=lambda self: self.history.artifacts,
        picks=st.lists(numbers, min_size=1, max_size=2),
        is_urgent=st.booleans(),
        order_id=st.sampled_from([None, None, None, "x", "y"]),
        stop=stops,
    )
    def delete(self, picks: list[int], is_urgent: bool, order_id: str | None, stop: Stop | None) -> None:
        """Delete snapshots by number; mostly live ones, sometimes one that is gone."""
        pool = sorted(self.history.live())
        if not pool or picks[-1] == 7:
            pool = sorted(self.history.artifacts)
        wanted = {self.one_of(pool, pick) for pick in picks}
        order_id = order_id and f"{self.world.project.slug} {order_id}"
        self.order("delete", stop, wanted, snapshots=sorted(wanted), urgent=is_urgent, request_id=order_id)

    @step(1, branch=st.sampled_from([*BRANCHES, None]), is_urgent=st.booleans(), stop=stops)
    def delete_many(self, branch: str | None, is_urgent: bool, stop: Stop | None) -> None:
        """Delete everything, or everything of a branch."""
        live = self.history.live()
        wanted = {number for number in live if branch is None or self.is_of(live[number], branch)}
        target: dict[str, Any] = {"everything": True} if branch is None else {"filter": deletion.Filter(branch=branch)}
        self.order("delete many", stop, wanted, urgent=is_urgent, **target)

    @staticmethod
    def is_of(artifact: Artifact, branch: str) -> bool:
        return artifact.request is not None and f'"head_ref": "{branch}"'.encode() in artifact.request.body

    @step(2, when=lambda self: self.history.named(), which=numbers, is_urgent=st.booleans(), stop=stops)
    def withdraw(self, which: int, is_urgent: bool, stop: Stop | None) -> None:
        """Take one image out of every snapshot that shows it."""
        image = self.one_of(sorted(self.history.named()) if which < 7 else sorted(IMAGES), which)
        wanted = self.history.naming(image)
        self.order("withdraw", stop, wanted, image=image, urgent=is_urgent)

    @step(
        1,
        when=lambda self: self.history.free(),
        picks=st.lists(numbers, min_size=1, max_size=2),
        between=st.sampled_from(["nothing", "upload", "delete"]),
    )
    def delete_as_previewed(self, picks: list[int], between: str) -> None:
        """A preview changes nothing, and its plan is carried out only while it is still true."""
        wanted = {self.one_of(sorted(self.history.free()), pick) for pick in picks}
        shown = deletion.preview(self.resources, self.world.order(snapshots=sorted(wanted)))
        assert set(shown["snapshots"]) == {str(number) for number in wanted}
        if between == "upload" and self.store.weather == "fair":
            self.upload({"one.png": min(IMAGES)}, (None, None), "main")
        if between == "delete":
            self.order("delete", None, {min(wanted)}, snapshots=[min(wanted)])
        self.order("delete as planned", None, wanted, snapshots=sorted(wanted), plan=shown["plan"], is_stale=between)

    def order(self, name: str, stop: Stop | None, wanted: set[int], is_stale: str = "nothing", **fields: Any) -> None:
        self.look_at_targets()
        order_id = fields.get("request_id")
        self.act(
            name,
            lambda: deletion.request(self.resources, self.world.order(**fields)),
            self.was_ordered,
            stop,
            wanted=wanted,
            live=set(self.history.live()),
            held=self.history.held(),
            image=fields.get("image"),
            order_id=order_id,
            earlier=self.history.order_ids.get(order_id) if order_id else None,
            is_stale=is_stale,
            is_planned="plan" in fields,
        )
        if order_id and order_id not in self.history.order_ids:
            # Whoever asked and died may have left a deletion of that id.
            row = self.scene.rows.execute("SELECT id FROM deletion WHERE request_id = %s", [order_id]).fetchone()
            if row:
                self.history.order_ids[order_id] = row[0]

    def was_ordered(self, action: Action) -> None:
        wanted: set[int] = action.facts["wanted"]
        if action.facts["earlier"] is not None:
            assert action.run.error is None, "a repeated order is refused"
            assert action.run.result == action.facts["earlier"], "a repeated order deletes a second time"
            return
        image: str | None = action.facts["image"]
        is_there = wanted <= action.facts["live"] and (image is None or bool(wanted))
        if self.refused(action, NotFound, PlanChanged, Held):
            error = action.run.error
            if isinstance(error, PlanChanged):
                assert action.facts["is_planned"]
                assert action.facts["is_stale"] != "nothing", "a plan is refused though nothing has changed"
            elif isinstance(error, Held):
                assert wanted & action.facts["held"], "refused as held, and nothing is held"
            else:
                assert not is_there, "what is there cannot be deleted"
            return
        assert is_there, "what is gone is deleted again"
        assert not wanted & action.facts["held"], "what is held is deleted"
        took = self.history.deletions[action.run.result].numbers
        assert took == wanted, "a deletion took something else than it was asked to"
        if image is None:
            assert took <= self.history.gone(), "I8: a deletion is answered and its target is there"
        document = self.world.receipt(action.run.result)
        if action.weather_was_fair and not action.was_frozen:
            assert document["journaled_at"] is not None, "answered without the journal though the store was there"

    @step(1, when=lambda self: self.history.live(), which=numbers, stop=stops)
    def hold(self, which: int, stop: Stop | None) -> None:
        """Hold an artifact, or release it if it is held."""
        number = self.one_of(self.history.live(), which)
        verb = self.world.release if self.history.artifacts[number].is_held else self.world.hold
        self.act(
            verb.__name__,
            lambda: verb(number),
            lambda action: self.refused(action, NotFound, OwnerGone, Conflict, StoreUnavailable),
            stop,
        )

    @step(1, when=lambda self: len(self.history.live()) - len(self.history.snapshots()) < 2, stop=stops)
    def build(self, stop: Stop | None) -> None:
        """Upload a file that is no image, the same bytes each time."""
        self.act("build", lambda: self.world.build(b"a file"), self.was_built, stop)

    def was_built(self, action: Action) -> None:
        late = (SessionOver, StoreUnavailable) if action.was_frozen else ()
        if not self.refused(action, *late):
            assert action.run.result in self.history.artifacts

    # --- what workers do -----------------------------------------------------------------------------------------------

    @step(12, step=st.sampled_from(sorted(WORKER_STEPS)), stop=stops)
    def work(self, step: str, stop: Stop | None) -> None:
        self.act(step, lambda: WORKER_STEPS[step](self.resources), self.refused, stop)

    @step(3, when=lambda self: any(not item.is_complete for item in self.history.deletions.values()))
    def work_once_over(self) -> None:
        """One round of the tidying loop."""
        for step in ("journal", "release", "condemn", "remove", "remove traces", "write traces", "close"):
            self.act(step, lambda step=step: WORKER_STEPS[step](self.resources), self.refused, None)

    @step(8, when=lambda self: compare.unclaimed(self.resources, 1), which=numbers, stop=stops)
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
        note(f"{name}({', '.join(f'{key}={value!r}' for key, value in chosen.items())})")
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
        for _ in range(3):
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
            for name, step in WORKER_STEPS.items():
                worked += step(self.resources)
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
                     tombstone, deletion, release, approval, object, trace, trace_due, trace_removal, build, hold
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


EXAMPLES = int(os.environ.get("SNAPSHED_TEST_HISTORIES", "0"))


def test_every_promise_holds_in_every_history(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    for bound in ("_STEP_ARTIFACTS", "_STEP_IMAGES"):
        monkeypatch.setattr(releasing, bound, 50)
    Protocol.scene = scene
    chosen = settings(
        max_examples=EXAMPLES or 40,
        stateful_step_count=30,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink][: 1 if os.environ.get("NOSHRINK") else 2],
    )
    try:
        run_state_machine_as_test(Protocol, settings=chosen)
    finally:
        for what, times in sorted(scene.happened.items()):
            print(f"{times:7} {what}")  # noqa: T201  what was explored
