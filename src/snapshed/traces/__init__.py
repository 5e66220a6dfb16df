"""The only door to the analytics rows: written, counted and removed by trace id.

They may live in another engine than the snapshots, so nothing here shares a transaction with anything else.
"""

from __future__ import annotations

from snapshed.traces.postgres import PostgresTraces, Trace

__all__ = ["PostgresTraces", "Trace"]
