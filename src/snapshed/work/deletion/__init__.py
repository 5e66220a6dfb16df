"""Deleting: what is meant (`orders`), hidden at once (`marking`, T5a), journaled (`journaling`), let go of (`releasing`, T5b).

Receipts are closed in `receipts`. What a deletion lets go of is written down before a byte is touched; bytes are removed
elsewhere, in `remove`.
"""

from snapshed.work.deletion.journaling import journal, journal_waiting
from snapshed.work.deletion.marking import request, withdraw
from snapshed.work.deletion.orders import Filter, Order, present, preview
from snapshed.work.deletion.releasing import release_waiting
from snapshed.work.deletion.ruling import by_rule

__all__ = [
    "Filter",
    "Order",
    "by_rule",
    "journal",
    "journal_waiting",
    "present",
    "preview",
    "release_waiting",
    "request",
    "withdraw",
]
