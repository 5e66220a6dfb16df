"""What clients do: ask, store, create, repeat; and what they must be answered."""

from __future__ import annotations

import uuid
from typing import Any

from fixtures.world import manifest
from hypothesis import strategies as st
from hypothesis.stateful import initialize
from property.beats import Stop
from property.history import Action, Request, Session
from property.stage import (
    BRANCHES,
    COMMITS,
    IMAGES,
    NAMES,
    Stage,
    commits,
    numbers,
    pictures_by_name,
    some_images,
    step,
    stops,
)

from snapshed.errors import Conflict, MissingImages, NotFound, SessionOver, StoreUnavailable
from snapshed.work import snapshots, uploads


class Clients(Stage):
    @initialize(base=pictures_by_name, head=pictures_by_name)
    def upload_two(self, base: dict[str, str], head: dict[str, str]) -> None:
        """So that no history is barren: a snapshot and one that builds on it."""
        self.upload(base, (COMMITS[0], None), "main")
        self.upload(head, (COMMITS[1], COMMITS[0]), "topic")

    def some_session(self, which: int) -> Session:
        """An open one; sometimes one that is over."""
        return self.one_of(self.history.open_sessions() if which < 7 else self.history.sessions.values(), which)

    @step(2, when=lambda self: len(self.history.open_sessions()) < 3)
    def begin(self) -> None:
        owner = self.world.begin()
        ends_at = self.world.clock() + self.resources.settings.session_ttl
        self.history.sessions[owner.session_id] = Session(owner, ends_at)

    @step(2, when=lambda self: self.history.open_sessions(), which=numbers, images=some_images, stop=stops)
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

    @step(2, when=lambda self: self.history.requests, which=numbers, stop=stops)
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

    @step(1, when=lambda self: len(self.history.live()) - len(self.history.snapshots()) < 2, stop=stops)
    def build(self, stop: Stop | None) -> None:
        """Upload a file that is no image, the same bytes each time."""
        self.act("build", lambda: self.world.build(b"a file"), self.was_built, stop)

    def was_built(self, action: Action) -> None:
        late = (SessionOver, StoreUnavailable) if action.was_frozen else ()
        if not self.refused(action, *late):
            assert action.run.result in self.history.artifacts
