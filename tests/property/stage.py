"""Where histories take place: one installation, what may happen in it, and how a verb is begun and its end is heard."""

from __future__ import annotations

import dataclasses
import uuid
from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

import psycopg
from fixtures.pictures import picture
from fixtures.world import World, digest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize
from property.beats import Run, Stop
from property.history import Action, History
from property.promises import Promises
from property.weather import WeatheredStore

from snapshed.engine import Engine
from snapshed.errors import StoreUnavailable
from snapshed.work import access
from snapshed.work.deletion import releasing

IMAGES = {digest(png): png for png in (picture(f"property {number}", 8, 8).png for number in range(4))}
NAMES = ("one.png", "two.png")
COMMITS = ("a" * 40, "b" * 40)
BRANCHES = ("main", "topic")


def stops_at(*beats: int) -> st.SearchStrategy[Stop | None]:
    """Half of all verbs run to their end; the others are stopped at one of these beats, if they come so far."""
    return st.one_of(st.none(), st.builds(Stop, st.sampled_from(["freeze", "kill"]), st.sampled_from(beats)))


stops = stops_at(1, 1, 2, 2, 3, 4, 5, 6, 7, 8, 9)
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


class Stage(RuleBasedStateMachine):
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
