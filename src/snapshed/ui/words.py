"""How numbers, sizes, times and reasons are written for people. Pure.

A number that is not zero is never written as one that is.
"""

from __future__ import annotations

from datetime import UTC, datetime

_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB", "PiB")

REASONS = {
    "exceeds_pixel_limit": "One of the two images, or the canvas that holds both, has more pixels than are compared.",
    "image_processing_failed": "One of the two images could not be read; it may be damaged or no image at all.",
    "image_fetch_failed": "The bytes of one of the two images are no longer in the store.",
    "timed_out": "Comparing the two images took too long and was stopped.",
    "crashed": "The process that compared the two images ended unexpectedly.",
}
"""Why a pair could not be compared, by the engine's reason."""


def amount(size: int) -> str:
    """Bytes for people.

    >>> amount(0), amount(1), amount(1536), amount(40120001)
    ('0 bytes', '1 byte', '1.5 KiB', '38.3 MiB')
    """
    if size == 1:
        return "1 byte"
    value, unit = float(size), 0
    while value >= 1000 and unit < len(_UNITS) - 1:
        value, unit = value / 1024, unit + 1
    if unit == 0:
        return f"{size} bytes"
    return f"{value:.0f} {_UNITS[unit]}" if value >= 100 else f"{value:.1f} {_UNITS[unit]}"


def count(number: int, one: str, many: str | None = None) -> str:
    """A number and its noun.

    >>> count(1, "image"), count(12000, "image"), count(2, "entry", "entries")
    ('1 image', '12,000 images', '2 entries')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def percent(share: float) -> str:
    """A share as a percentage with about two digits that tell something.

    >>> percent(0.1234), percent(0.01), percent(0.00005), percent(0.0000001), percent(0), percent(1)
    ('12.3 %', '1 %', '0.005 %', 'under 0.001 %', '0 %', '100 %')
    """
    value = share * 100
    if value == 0:
        return "0 %"
    if value < 0.001:
        return "under 0.001 %"
    digits = 1 if value >= 10 else 2 if value >= 0.1 else 3
    return f"{value:.{digits}f}".rstrip("0").rstrip(".") + " %"


def moment(at: datetime | str | None) -> str:
    """A time in UTC, to the minute, as people write it; receipts carry theirs as text.

    >>> moment("2026-03-01T08:05:09.123Z"), moment(None)
    ('1 Mar 2026, 08:05 UTC', 'not yet')
    """
    if at is None:
        return "not yet"
    known = datetime.fromisoformat(at) if isinstance(at, str) else at
    known = known.astimezone(UTC)
    return f"{known.day} {known:%b %Y, %H:%M} UTC"


def iso(at: datetime | str) -> str:
    """A time for programs, as `<time>` wants it.

    >>> iso("2026-03-01T08:05:09.123Z")
    '2026-03-01T08:05:09Z'
    """
    known = datetime.fromisoformat(at) if isinstance(at, str) else at
    return f"{known.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def short_sha(sha: str | None) -> str:
    """The first ten digits of a commit."""
    return (sha or "")[:10]
