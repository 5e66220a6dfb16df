"""What goes into the engine and what comes out, as plain data that crosses a process border.

Nothing here imports an image library, so the parent process can speak about pairs without loading native code.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from snapshed.domain.report import Box, Explanation

Reason = Literal["exceeds_pixel_limit", "image_processing_failed", "timed_out", "crashed"]


@dataclass(frozen=True, slots=True)
class DiffTask:
    """One pair: two image files under any name, and where the mask goes if pixels changed."""

    name: str
    head: Path
    base: Path
    mask: Path


@dataclass(frozen=True, slots=True)
class DiffResult:
    """What is known about a pair. With a `reason` it was not compared; sizes not known are (0, 0).

    `regions`, boxes on the canvas, and `fingerprint` are there when pixels changed, `moved_by` (rows, down if positive)
    when moving is what explains it.
    """

    name: str
    changed_pixels: int = 0
    total_pixels: int = 0
    head_size: tuple[int, int] = (0, 0)
    base_size: tuple[int, int] = (0, 0)
    mask_written: bool = False
    reason: Reason | None = None
    detail: str | None = None
    regions: tuple[Box, ...] = ()
    fingerprint: str | None = None
    explanation: Explanation | None = None
    moved_by: int | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """What one child may use. `memory_bytes` counts on top of the interpreter and its libraries."""

    max_pixels: int
    memory_bytes: int
