"""Retention: each project's rule (`rules`), and carrying it out (`running`).

A rule deletes by the same door as people do, with a receipt of its own; nothing leaves otherwise.
"""

from snapshed.work.retention.rules import Shown, confirm, note_waiting, pause, put_rule, read_rule, show
from snapshed.work.retention.running import Deleter, Previewed, Ran, preview, run, run_due

__all__ = [
    "Deleter", "Previewed", "Ran", "Shown", "confirm", "note_waiting", "pause", "preview", "put_rule", "read_rule",
    "run", "run_due", "show",
]  # fmt: skip
