"""Three files of anonymous memory, through which a child and the comparison library hand each other images.

No image byte is ever written under a name that outlives the process, however it ends.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

# The library accepts only paths, and goes by their ending.
_FILES = ("head.qoi", "base.qoi", "mask.png")
# Fixed, so that all children share one folder of links; high, so that they are free in a child that has just started.
_DESCRIPTORS = range(200, 200 + len(_FILES))


def link(folder: Path) -> None:
    """Fill the folder with the names. Each leads to the descriptor of whoever follows it, never to another's."""
    for name, number in zip(_FILES, _DESCRIPTORS, strict=True):
        (folder / name).symlink_to(f"/proc/self/fd/{number}")


class Exchange:
    """This process's own three files, reached through the names in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.head, self.base, self.mask = (folder / name for name in _FILES)
        for name, number in zip(_FILES, _DESCRIPTORS, strict=True):
            memory = os.memfd_create(name)
            os.dup2(memory, number, inheritable=False)
            os.close(memory)

    def clear(self) -> None:
        """Give the memory back."""
        for number in _DESCRIPTORS:
            os.ftruncate(number, 0)
