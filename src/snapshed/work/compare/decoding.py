"""What becomes of the pairs of one comparison: remembered from other comparisons, or decoded and their masks stored.

No pair of digests is decoded twice, neither here nor by anybody who compared the same two images before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import UUID

from snapshed.db import comparisons
from snapshed.db.snapshots import Image, Snapshot
from snapshed.domain import report
from snapshed.domain.categorise import Pair
from snapshed.domain.report import Found, Result
from snapshed.engine import DiffResult, DiffTask, Engine
from snapshed.ledger import Draft, ForComparison, sha256, store
from snapshed.resources import Resources
from snapshed.work.compare.scratch import scratch

_BATCH = 64
"""Pairs whose masks are stored together."""

Digests = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Sides:
    """Both snapshots of a comparison and their images by name. A partial base has images of `ancestors`; `inherited`
    says of which number each of those is.

    Of a pair with an inherited image no mask is kept: a mask is released by the deletion of either side, and nobody
    would release this one when the ancestor is deleted whose image it shows.
    """

    head: Snapshot
    base: Snapshot
    head_images: dict[str, Image]
    base_images: dict[str, Image]
    ancestors: tuple[Snapshot, ...]
    inherited: dict[str, int]


@dataclass(frozen=True, slots=True)
class _Known:
    found: Found
    mask_id: UUID | None


@dataclass(frozen=True, slots=True)
class _Problem:
    reason: str
    detail: str | None


class Judging:
    """The pairs of one comparison, and what is known about each pair of digests among them."""

    def __init__(
        self,
        resources: Resources,
        engine: Engine,
        owner: ForComparison,
        sides: Sides,
        pairs: Sequence[Pair],
        check: Callable[[], None],
    ) -> None:
        self._resources = resources
        self._engine = engine
        self._owner = owner
        self._sides = sides
        self._pairs = pairs
        self._check = check
        self._known: dict[Digests, _Known | _Problem] = {}
        self._shared: set[UUID] = set()

    @property
    def shared(self) -> frozenset[UUID]:
        """Masks that other comparisons made and that this one is going to name."""
        return frozenset(self._shared)

    def remember(self) -> None:
        """Look up which pairs another comparison of the project has decoded, and take over what it found."""
        wanted = list(self._open())
        if not wanted:
            return
        with self._resources.database.transaction() as tx:
            found = comparisons.known(tx, self._owner.project_id, self._engine.ALGORITHM, wanted)
        for one in found:
            self._known[one.head_digest, one.base_digest] = _Known(one, one.mask_id)
            if one.mask_id is not None:
                self._shared.add(one.mask_id)

    def forget(self, masks: Collection[UUID]) -> None:
        """These masks cannot be shared after all: their pairs are to be decoded."""
        self._shared -= set(masks)
        for digests, known in list(self._known.items()):
            if isinstance(known, _Known) and known.mask_id in masks:
                del self._known[digests]

    def decode(self) -> None:
        """Decode every pair about which nothing is known, and store the masks. Raises what `check` raises, OwnerGone and
        StoreUnavailable."""
        left = list(self._open().values())
        for start in range(0, len(left), _BATCH):
            self._decode(left[start : start + _BATCH])

    def results(self) -> Iterator[Result]:
        """What every pair is, each by its own threshold."""
        for pair in self._pairs:
            if self._is_withdrawn(pair):
                yield report.not_compared(pair, "withdrawn", "one of the two images was withdrawn")
                continue
            match self._known[_digests(pair)]:
                case _Problem(reason, detail):
                    yield report.not_compared(pair, reason, detail)
                case _Known(found, mask_id):
                    number = self._sides.inherited.get(pair.name)
                    if number is None:
                        yield report.decoded(pair, found, mask_id)
                    else:
                        told = f"compared with snapshot {number}, on which the partial base leans"
                        yield replace(report.decoded(pair, found, None), detail=told)

    def _open(self) -> dict[Digests, Pair]:
        """For each pair of digests about which nothing is known, one pair that has it."""
        first: dict[Digests, Pair] = {}
        # Whoever may keep a mask first.
        for pair in sorted(self._pairs, key=lambda pair: pair.name in self._sides.inherited):
            if _digests(pair) not in self._known and not self._is_withdrawn(pair):
                first.setdefault(_digests(pair), pair)
        return first

    def _is_withdrawn(self, pair: Pair) -> bool:
        sides = self._sides
        return sides.head_images[pair.name].image_id is None or sides.base_images[pair.name].image_id is None

    def _decode(self, batch: Sequence[Pair]) -> None:
        found: dict[Digests, DiffResult] = {}
        masks: dict[Digests, bytes] = {}
        with scratch(self._resources, self._owner.claim) as folder:
            tasks = {task.name: task for task in self._tasks(batch, folder)}
            by_name = {pair.name: _digests(pair) for pair in batch}
            for done in self._engine.diff(tasks.values()):
                self._check()
                found[by_name[done.name]] = done
                if done.mask_written and done.name not in self._sides.inherited:
                    masks[by_name[done.name]] = tasks[done.name].mask.read_bytes()
        drafts = [Draft("mask", sha256(mask), mask) for mask in masks.values()]
        rows = store(self._resources, self._owner, drafts) if drafts else []
        mask_ids = {digests: row.id for digests, row in zip(masks, rows, strict=True)}
        for pair in batch:
            digests = _digests(pair)
            done = found.get(digests)
            if done is None:
                self._known[digests] = _Problem("image_fetch_failed", "an image's bytes are not in the store")
            elif done.reason is not None:
                self._known[digests] = _Problem(done.reason, done.detail)
            else:
                self._known[digests] = _Known(done, mask_ids.get(digests))

    def _tasks(self, pairs: Sequence[Pair], folder: Path) -> Iterator[DiffTask]:
        """What the engine is to do; a pair of which an image's bytes cannot be had is left out."""
        for number, pair in enumerate(pairs):
            head = self._path(self._sides.head_images[pair.name], folder)
            base = self._path(self._sides.base_images[pair.name], folder)
            if head and base:
                yield DiffTask(name=pair.name, head=head, base=base, mask=folder / f"{number}.mask.png")

    def _path(self, image: Image, folder: Path) -> Path | None:
        return None if image.storage_key is None else self._resources.store.path(image.storage_key, folder)


def _digests(pair: Pair) -> Digests:
    return pair.head.digest, pair.base.digest
