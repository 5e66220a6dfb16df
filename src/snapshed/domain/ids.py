"""Ids that are derived rather than minted.

The same artifact always has the same trace id, so that its trace rows can be found without remembering them.
"""

from __future__ import annotations

from uuid import UUID, uuid5

_TRACES = UUID("6f9a6a3e-4c1b-5c0e-9d5e-2f3e51f6a0d1")
"""An arbitrary constant namespace; changing it would orphan every trace row written before."""


def trace_id(artifact_id: UUID) -> UUID:
    """The id under which everything traced about an artifact is written."""
    return uuid5(_TRACES, str(artifact_id))


def first_number(epoch: int) -> int:
    """The first artifact number of an epoch: above every number an earlier epoch can have issued.

    >>> first_number(1), first_number(2)
    (1, 4294967297)
    """
    return (epoch - 1) * 2**32 + 1
