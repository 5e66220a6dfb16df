"""Which snapshot another is compared with, why not another one, and what a partial base stands for. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar
from uuid import UUID

T = TypeVar("T")

DEEPEST = 50
"""How many snapshots a partial base may lean on."""

Reason = Literal["being_deleted", "other_app", "other_repository", "older"]

SENTENCES: Mapping[Reason, str] = {
    "being_deleted": "it is being deleted",
    "other_app": "it is of another app",
    "other_repository": "its commit is of another repository",
    "older": "a newer snapshot of the same commit was taken",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot of the base commit, whatever its app and repository."""

    artifact_id: UUID
    number: int
    app_id: str
    repo_name: str | None
    is_marked: bool


@dataclass(frozen=True, slots=True)
class PassedOver:
    """A candidate that is not the base, and the first reason why."""

    number: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class Choice:
    """The base, if there is one, and whoever might be expected to be it."""

    base_id: UUID | None
    passed_over: tuple[PassedOver, ...]


# | a candidate is             | it is                                                     |
# |----------------------------|-----------------------------------------------------------|
# | the head itself            | not spoken of                                             |
# | marked for deletion        | passed over: nothing else about it is looked at           |
# | of another app, repository | passed over                                               |
# | the newest of the rest     | the base, also when it is partial: `fold` makes it whole  |
# | any other                  | passed over as older                                      |
def choose(head_id: UUID | None, app_id: str, repo_name: str | None, candidates: Sequence[Candidate]) -> Choice:
    """Choose the base of a head among the snapshots of its base commit, newest first."""
    base: UUID | None = None
    passed: list[PassedOver] = []
    for candidate in candidates:
        if candidate.artifact_id == head_id:
            continue
        reason = _against(candidate, app_id, repo_name)
        if reason is None and base is None:
            base = candidate.artifact_id
        else:
            passed.append(PassedOver(candidate.number, reason or "older"))
    return Choice(base, tuple(passed))


def _against(candidate: Candidate, app_id: str, repo_name: str | None) -> Reason | None:
    if candidate.is_marked:
        return "being_deleted"
    if candidate.app_id != app_id:
        return "other_app"
    return None if candidate.repo_name == repo_name else "other_repository"


@dataclass(frozen=True, slots=True)
class Layer(Generic[T]):
    """What one snapshot of a chain holds by name. `all_names` is what it says there is, None if it does not say."""

    images: Mapping[str, T]
    all_names: Collection[str] | None


def fold(layers: Sequence[Layer[T]]) -> dict[str, T]:
    """The images a partial snapshot stands for: its own, and of the one it leans on whatever it does not deny. The
    nearest layer first, a whole snapshot last."""
    whole: dict[str, T] = {}
    for layer in reversed(layers):
        kept = None if layer.all_names is None else frozenset(layer.all_names)
        whole = {name: image for name, image in whole.items() if kept is None or name in kept} | dict(layer.images)
    return whole
