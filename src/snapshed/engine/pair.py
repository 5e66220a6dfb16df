"""Compare one pair of images: count the pixels that differ to the eye, and draw them into a mask.

Runs only in a child process of the engine, and never keeps anything of a pair beyond its result and its mask.
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, Protocol, cast

import blazediff  # pyright: ignore[reportMissingTypeStubs]: the wheel ships none
import numpy as np
from PIL import Image

from snapshed.domain import shifts
from snapshed.engine import regions
from snapshed.engine.decode import Source, Undecodable
from snapshed.engine.tasks import DiffResult, DiffTask

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from snapshed.domain.report import Explanation
    from snapshed.engine.decode import Pixels
    from snapshed.engine.exchange import Exchange

    Flags = NDArray[np.bool_]

COLOUR_THRESHOLD = 0.01

# A verdict on a pixel looks at its 8 neighbours and at theirs, and treats the image's own border differently: a pixel
# needs two neighbours on each side, and those must not lie on a border that the whole image does not have.
MARGIN = 3

_OPAQUE = np.uint32(0xFF000000)


class _Verdict(Protocol):
    match_result: bool
    diff_count: int | None


_compare = cast("Callable[..., _Verdict]", blazediff.compare)  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]: untyped


def compare(task: DiffTask, exchange: Exchange, max_pixels: int) -> DiffResult:
    """Compare the pair. An unreadable file and a canvas beyond the limit become a result with a reason."""
    try:
        head = _named("head", task.head)
        base = _named("base", task.base)
        width, height = max(head.size[0], base.size[0]), max(head.size[1], base.size[1])
        if width * height > max_pixels:
            return DiffResult(
                task.name,
                total_pixels=width * height,
                head_size=head.size,
                base_size=base.size,
                reason="exceeds_pixel_limit",
                detail=f"the canvas of {width} x {height} exceeds {max_pixels} pixels",
            )
        after = _on_canvas(_decoded("head", head), width, height)
        before = _on_canvas(_decoded("base", base), width, height)
    except Undecodable as error:
        return DiffResult(task.name, reason="image_processing_failed", detail=str(error))
    try:
        mask = changed(after, before, exchange)
        count = int(np.count_nonzero(mask)) if mask is not None else 0
        if mask is None or not count:
            reason = "identical" if mask is None else _unseen(after, before, exchange)
            return DiffResult(task.name, 0, width * height, head.size, base.size, explanation=reason)
    finally:
        exchange.clear()
    _write(mask, task.mask)
    shown, was = _words(after), _words(before)
    boxes = regions.regions(mask)
    moved_by = _moved_by(shown, was, mask, min(head.size[1], base.size[1]))
    return DiffResult(
        task.name,
        count,
        width * height,
        head.size,
        base.size,
        mask_written=True,
        regions=tuple(boxes),
        fingerprint=regions.fingerprint(mask, shown, was, boxes),
        explanation=None if moved_by is None else "moved",
        moved_by=moved_by,
    )


def changed(
    after: Pixels, before: Pixels, exchange: Exchange, *, narrow: bool = True, antialiasing: bool = True
) -> Flags | None:
    """The pixels of the canvas that differ to the eye, or None when not even a byte differs. With `antialiasing`, those
    that only smooth an edge otherwise do not count.

    Only the rows and columns near a differing pixel are handed over, closed up: around each differing pixel nothing
    moves within MARGIN, so every verdict is the one the whole canvas would get.

    | near every difference, both images are | handed over                                                     |
    | opaque                                 | those rows and columns                                          |
    | transparent somewhere                  | the whole canvas: such a pixel is blended with a pattern chosen |
    |                                        | by its position in the image, so moving it changes its colour   |
    """
    height, width = after.shape[:2]
    head, base = _words(after), _words(before)
    differs = head != base
    rows, columns = _near(differs.any(axis=1)), _near(differs.any(axis=0))
    del differs
    if not rows.any():
        return None
    whole = bool(rows.all() and columns.all())
    if narrow and not whole:
        small_head, small_base = (np.compress(columns, image[rows], axis=1) for image in (head, base))
        if _is_opaque(small_head) and _is_opaque(small_base):
            mask = np.zeros((height, width), np.bool_)
            mask[np.ix_(rows, columns)] = _judged(small_head, small_base, exchange, antialiasing=antialiasing)
            return mask
    return _judged(head, base, exchange, antialiasing=antialiasing)


def _unseen(after: Pixels, before: Pixels, exchange: Exchange) -> Explanation:
    """Why pixels that differ do not count: asked again without regard to edges, which only such a pair costs."""
    mask = changed(after, before, exchange, antialiasing=False)
    return "antialiasing" if mask is not None and mask.any() else "imperceptible"


def _moved_by(head: NDArray[np.uint32], base: NDArray[np.uint32], mask: Flags, common_height: int) -> int | None:
    """By how many rows the content moved, if that is all that happened between the first and last changed pixel.

    Only the changed rows and columns are looked at, so that what stays beside or around the moved part plays no role.
    Where one image is longer, every column differs from nothing; there the columns that changed above count.
    """
    rows = np.flatnonzero(mask.any(axis=1))
    columns = np.flatnonzero(mask[:common_height].any(axis=0))
    if not columns.size:
        return None
    part = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    ours, theirs = (np.ascontiguousarray(image[part]) for image in (head, base))
    beside = head[rows[0] - 1 : rows[0], part[1]] if rows[0] else head[rows[-1] + 1 : rows[-1] + 2, part[1]]
    by = shifts.moved_by(_row_numbers(ours), _row_numbers(theirs), next(iter(_row_numbers(beside)), None))
    if by is None:
        return None
    stayed = (ours[by:], theirs[:-by]) if by > 0 else (ours[:by], theirs[-by:])
    return by if np.array_equal(*stayed) else None


def _row_numbers(image: NDArray[np.uint32]) -> list[int]:
    return [hash(row.tobytes()) for row in image]


def _named(side: str, path: Path) -> Source:
    try:
        return Source(path)
    except Undecodable as error:
        raise Undecodable(f"the {side} image {error}") from error


def _decoded(side: str, source: Source) -> Pixels:
    try:
        return source.pixels()
    except Undecodable as error:
        raise Undecodable(f"the {side} image {error}") from error


def _on_canvas(pixels: Pixels, width: int, height: int) -> Pixels:
    """Anchored top-left; what the image does not cover is transparent."""
    own_height, own_width = pixels.shape[:2]
    if (own_height, own_width) == (height, width):
        return pixels
    canvas = np.zeros((height, width, 4), np.uint8)
    canvas[:own_height, :own_width] = pixels
    return canvas


def _words(pixels: Pixels) -> NDArray[np.uint32]:
    """Each pixel as one number, red in the lowest byte: a comparison touches four times fewer elements."""
    return np.ascontiguousarray(pixels).view("<u4")[..., 0]


def _near(flags: Flags) -> Flags:
    """Every place at most MARGIN steps from a set one."""
    near = flags.copy()
    for _ in range(MARGIN):
        near[1:] |= near[:-1].copy()
        near[:-1] |= near[1:].copy()
    return near


def _is_opaque(image: NDArray[np.uint32]) -> bool:
    return bool(np.bitwise_and.reduce(image, axis=None) >= _OPAQUE)


def _judged(head: NDArray[np.uint32], base: NDArray[np.uint32], exchange: Exchange, *, antialiasing: bool) -> Flags:
    """The library's verdict on every pixel; anti-aliased ones are yellow in its mask, and do not count."""
    _hand_over(head, exchange.head)
    _hand_over(base, exchange.base)
    verdict = _compare(
        str(exchange.base),
        str(exchange.head),
        str(exchange.mask),
        threshold=COLOUR_THRESHOLD,
        antialiasing=antialiasing,
        diff_mask=True,
        compression=1,  # the default level costs three times as much; nobody keeps this file
    )
    if verdict.match_result:  # then no mask is written
        return np.zeros(head.shape, np.bool_)
    drawn = _words(Source(exchange.mask).pixels())
    red = drawn == np.uint32(0xFF0000FF)
    if int(np.count_nonzero(red)) != verdict.diff_count:
        raise RuntimeError("the comparison library's mask and count disagree")
    return red


def _hand_over(image: NDArray[np.uint32], path: Path) -> None:
    """Write QOI, the one format that needs no compression at all: each pixel spelled out after a tag byte.

    An opaque pixel fits four bytes, so a whole image is one shift; encoding PNG instead costs ten times as much.
    """
    height, width = image.shape
    if _is_opaque(image):
        body = (image << np.uint32(8)) | np.uint32(0xFE)
    else:
        body = np.empty((height, width, 5), np.uint8)
        body[..., 0] = 0xFF
        body[..., 1:] = image[..., np.newaxis].view(np.uint8)
    with path.open("wb") as file:
        file.write(b"qoif" + struct.pack(">IIBB", width, height, 4, 0))
        file.write(body.data)
        file.write(b"\0\0\0\0\0\0\0\1")


def _write(mask: Flags, path: Path) -> None:
    """A greyscale PNG, 255 where the pixel changed; a failed write leaves no half of it."""
    try:
        # A mask is long runs of two values: looking for nothing else takes half the room in the same time.
        shades = Image.fromarray(mask.view(np.uint8) * np.uint8(255))
        shades.save(path, "PNG", compress_level=1, compress_type=zlib.Z_RLE)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
