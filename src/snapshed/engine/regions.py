"""Where an image changed, and a fingerprint of the change that is the same wherever on the page it happens.

Runs only in a child process of the engine; what it costs depends on what changed, not on the size of the page.
"""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from snapshed.domain.report import Box

    Flags = NDArray[np.bool_]
    Words = NDArray[np.uint32]

MOST = 16
"""How many regions an image may have; when there would be more, those that are near each other become one."""

_NEAR = 8
"""Changes in tiles of this many pixels a side that touch each other are one region."""
_MOST_TILES = 4096


def regions(mask: Flags) -> list[Box]:
    """The boxes around what changed, in reading order; none overlaps another, and together they hold every pixel set.

    Tiles are counted from the first changed row and column, so that a change is grouped alike wherever it lies.
    """
    hull = _tight(mask)
    if hull is None:
        return []
    left, top, width, height = hull
    area = mask[top : top + height, left : left + width]
    tile = _NEAR
    while -(-height // tile) * -(-width // tile) > _MOST_TILES:
        tile *= 2
    while len(boxes := _joined(_tiled(area, tile))) > MOST:
        tile *= 2
    found: list[Box] = []
    for column, row, columns, rows in _apart(boxes):
        x, y = column * tile, row * tile
        inner = _tight(area[y : y + rows * tile, x : x + columns * tile])
        if inner is not None:
            found.append((left + x + inner[0], top + y + inner[1], inner[2], inner[3]))
    return sorted(found, key=lambda box: (box[1], box[0]))


def fingerprint(mask: Flags, head: Words, base: Words, boxes: list[Box]) -> str:
    """A digest of the change: for each region its size, which of its pixels changed, and their colours on both sides.

    Neither the places of the regions nor the pixels between the changed ones take part, so the same new label has the
    same fingerprint on every page and at every place, whatever surrounds it.
    """
    parts: list[bytes] = []
    for left, top, width, height in boxes:
        window = (slice(top, top + height), slice(left, left + width))
        changed = mask[window]
        digest = hashlib.blake2b(struct.pack(">II", width, height), digest_size=16)
        digest.update(np.packbits(changed).data)
        digest.update(head[window][changed].data)
        digest.update(base[window][changed].data)
        parts.append(digest.digest())
    return hashlib.blake2b(b"".join(sorted(parts)), digest_size=16).hexdigest()


def _tight(mask: Flags) -> Box | None:
    rows = np.flatnonzero(mask.any(axis=1))
    if not rows.size:
        return None
    top, bottom = int(rows[0]), int(rows[-1]) + 1
    columns = np.flatnonzero(mask[top:bottom].any(axis=0))
    return int(columns[0]), top, int(columns[-1] - columns[0]) + 1, bottom - top


def _tiled(area: Flags, tile: int) -> Flags:
    """Which tiles hold a changed pixel. Rows first: that runs along memory."""
    height, width = area.shape
    bands = np.bitwise_or.reduceat(area.view(np.uint8), range(0, height, tile), axis=0)
    return np.bitwise_or.reduceat(bands, range(0, width, tile), axis=1).view(np.bool_)


def _joined(tiles: Flags) -> list[Box]:
    """The boxes, in tiles, around tiles that touch each other, corners included: runs of a row, joined with those of
    the row above."""
    edges = np.diff(np.pad(tiles.view(np.int8), ((0, 0), (1, 1))), axis=1)
    rows, starts = (found.tolist() for found in np.nonzero(edges == 1))
    ends: list[int] = np.nonzero(edges == -1)[1].tolist()
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    above = 0  # the first run of the row above that may still touch
    for run, row in enumerate(rows):
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] < starts[run]):
            above += 1
        other = above
        while rows[other] == row - 1 and starts[other] <= ends[run]:
            parent[root(other)] = root(run)
            other += 1
    hulls: dict[int, tuple[int, int, int, int]] = {}
    for run, row in enumerate(rows):
        left, top, right, bottom = hulls.get(root(run), (starts[run], row, ends[run], row + 1))
        hulls[root(run)] = (min(left, starts[run]), min(top, row), max(right, ends[run]), max(bottom, row + 1))
    return [(left, top, right - left, bottom - top) for left, top, right, bottom in hulls.values()]


def _apart(boxes: list[Box]) -> list[Box]:
    """The same boxes with overlapping ones made one, until none overlaps another."""
    apart: list[Box] = []
    for box in boxes:
        current = box
        while (other := next((one for one in apart if _overlap(one, current)), None)) is not None:
            apart.remove(other)
            current = _around(other, current)
        apart.append(current)
    return apart


def _overlap(one: Box, other: Box) -> bool:
    return (
        one[0] < other[0] + other[2]
        and other[0] < one[0] + one[2]
        and one[1] < other[1] + other[3]
        and other[1] < one[1] + one[3]
    )


def _around(one: Box, other: Box) -> Box:
    left, top = min(one[0], other[0]), min(one[1], other[1])
    right, bottom = max(one[0] + one[2], other[0] + other[2]), max(one[1] + one[3], other[1] + other[3])
    return left, top, right - left, bottom - top
