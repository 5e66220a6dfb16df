"""What the store keeps of removed objects, asked for at every start and now and then, and said on receipts."""

from __future__ import annotations

from snapshed.db import installation
from snapshed.domain import receipt
from snapshed.logs import logger
from snapshed.resources import Resources

_log = logger("probe")


def probe(resources: Resources, *, tell: bool) -> None:
    """Look whether the store keeps versions and remember it for receipts. What a receipt cannot speak for is logged if
    it is news, or if `tell` asks for it. Never refuses to work: a store that keeps versions is said to. Raises
    StoreUnavailable, and then what was remembered stays."""
    keeps = resources.store.keeps()
    is_news = resources.database.run(lambda tx: installation.note_store_keeps(tx, keeps))
    if keeps != "nothing" and (tell or is_news):
        _log.warning("store may keep removed objects", keeps=keeps, meaning=receipt.meaning(keeps))
