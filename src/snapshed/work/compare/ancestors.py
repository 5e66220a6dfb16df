"""What a partial base stands for: the chain of snapshots it leans on, walked until one is whole."""

from __future__ import annotations

from dataclasses import dataclass

from snapshed.db import ancestry as bases
from snapshed.db import snapshots
from snapshed.db.pool import Tx
from snapshed.db.snapshots import Image, Snapshot
from snapshed.domain import ancestry
from snapshed.domain.ancestry import DEEPEST, Layer


@dataclass(frozen=True, slots=True)
class Whole:
    """A base made whole: its images by name, whom they were taken from, nearest first, and which are not its own."""

    images: dict[str, Image]
    ancestors: tuple[Snapshot, ...]
    inherited: dict[str, int]


class ChainIncomplete(Exception):
    """A snapshot that the base leans on is not here; it may still arrive."""


class ChainEndless(Exception):
    """No whole snapshot is within reach, and none can arrive that would change it."""


def whole(tx: Tx, base: Snapshot) -> Whole:
    """The base with what it leans on. Raises ChainIncomplete and ChainEndless."""
    chain = [base]
    while chain[-1].selective:
        last = chain[-1]
        if last.base_sha is None or len(chain) > DEEPEST:
            raise ChainEndless
        chosen = bases.base_of(tx, last).base_id
        found = None if chosen is None else snapshots.find_by_artifact(tx, chosen)
        if found is None:
            raise ChainIncomplete
        if found.artifact_id in {snapshot.artifact_id for snapshot in chain}:
            raise ChainEndless
        chain.append(found)
    owned = [{image.name: (image, one) for image in snapshots.images(tx, one.artifact_id)} for one in chain]
    folded = ancestry.fold([Layer(images, one.all_names) for images, one in zip(owned, chain, strict=True)])
    return Whole(
        images={name: image for name, (image, _) in folded.items()},
        ancestors=tuple(chain[1:]),
        inherited={name: owner.number for name, (_, owner) in folded.items() if owner is not base},
    )
