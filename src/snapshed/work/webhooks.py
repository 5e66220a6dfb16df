"""Webhooks: added and revoked by the operator, and told what was announced for them.

A receiver that fails is asked again with growing waits, by itself; nothing else waits for it. What it has not taken
after three days is given up.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from urllib.parse import urlsplit
from uuid import UUID

from snapshed import posting
from snapshed.db import access, webhooks
from snapshed.db.webhooks import Delivery, Webhook
from snapshed.domain import backoff
from snapshed.domain import webhooks as rules
from snapshed.domain.webhooks import Event
from snapshed.errors import NotFound
from snapshed.logs import logger
from snapshed.resources import Resources
from snapshed.settings import Secret

_AT_ONCE = 16
_CLAIM = timedelta(seconds=60)
"""Longer than a post may take; after it a delivery is made again. Receivers know a repeat by its `snapshed-delivery`."""

_SHORTEST = timedelta(seconds=5)
_LONGEST = timedelta(hours=1)
_GIVE_UP = timedelta(days=3)

_log = logger("webhooks")


def add(resources: Resources, org: str, project: str, url: str, events: Sequence[Event]) -> tuple[UUID, Secret]:
    """Add a webhook and return it with the secret that signs for it. Raises Invalid and NotFound."""
    rules.check_url(url)
    secret = Secret("whsec_" + secrets.token_urlsafe(32))
    webhook_id = resources.new_id()
    with resources.database.transaction() as tx:
        found_org = access.find_org(tx, org)
        found = access.find_project(tx, found_org.id, project) if found_org else None
    if found is None:
        raise NotFound(f"There is no project {org}/{project}; `snapshed project list` shows all.")
    now = resources.now()
    resources.database.run(
        lambda tx: webhooks.add(tx, webhook_id, found.id, url, str(secret), sorted(set(events)), now)
    )
    return webhook_id, secret


def list_webhooks(resources: Resources) -> list[Webhook]:
    with resources.database.transaction() as tx:
        return webhooks.listing(tx)


def revoke(resources: Resources, webhook_id: UUID) -> None:
    """Revoke a webhook: it is told nothing more, not even what it waits for. Raises NotFound."""
    if not resources.database.run(lambda tx: webhooks.revoke(tx, webhook_id, resources.now())):
        raise NotFound(f"There is no webhook {webhook_id} that is not revoked; `snapshed webhook list` shows all.")


def deliver(resources: Resources) -> int:
    """Tell every webhook the first thing it waits for, all at once. Returns how many were told or put off."""
    now = resources.now()
    claim = resources.new_id()
    due = resources.database.run(lambda tx: webhooks.claim(tx, claim, now, now + _CLAIM, _AT_ONCE))
    if due:
        with ThreadPoolExecutor(max_workers=len(due)) as pool:
            list(pool.map(partial(_deliver, resources), due))
    return len(due)


def _deliver(resources: Resources, delivery: Delivery) -> None:
    body = delivery.body.encode()
    headers = {
        "content-type": "application/json",
        "user-agent": "snapshed",
        "snapshed-event": delivery.event,
        "snapshed-delivery": str(delivery.id),
        "snapshed-signature": rules.signature(delivery.secret, resources.now(), body),
    }
    try:
        posting.post(delivery.url, headers, body, only_public=resources.settings.webhook_targets == "public")
    except posting.Failed as failed:
        _put_off(resources, delivery, str(failed))
    else:
        resources.database.run(lambda tx: webhooks.taken(tx, delivery.id))


def _put_off(resources: Resources, delivery: Delivery, why: str) -> None:
    now = resources.now()
    is_over = now - delivery.created_at > _GIVE_UP
    dice = random.random()  # noqa: S311  jitter, not a secret
    wait = backoff.wait(delivery.attempts, dice, shortest=_SHORTEST, longest=_LONGEST)
    if is_over:
        resources.database.run(lambda tx: webhooks.taken(tx, delivery.id))
    else:
        resources.database.run(lambda tx: webhooks.postpone(tx, delivery, wait, now))
    _log.warning(
        "webhook given up" if is_over else "webhook put off",
        webhook=str(delivery.webhook_id),
        host=urlsplit(delivery.url).hostname,
        about=delivery.event,
        error_class=why,
        attempts=delivery.attempts,
    )
