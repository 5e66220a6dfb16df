"""Bytes of a file as one view, without reading them into memory: what a put takes."""

from __future__ import annotations

import mmap
from collections.abc import Generator
from contextlib import contextmanager
from typing import IO

SMALL = 2**20
"""Bytes that are simply read: a mapping is not worth its system calls for them."""


@contextmanager
def mapped(file: IO[bytes], size: int) -> Generator[bytes | memoryview]:
    """All `size` bytes of a file from its beginning. The view is over when the block is."""
    file.seek(0)
    descriptor = None
    if size > SMALL:
        try:
            descriptor = file.fileno()
        except OSError:
            descriptor = None
    if descriptor is None:
        yield file.read()
        return
    file.flush()
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as mapping, memoryview(mapping) as view:
        yield view
