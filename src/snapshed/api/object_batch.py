"""Batches of objects of the general blob API, carried out in the order of their parts.

Neighbours of one kind are carried out together. One bad part never harms the others.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from fastapi import APIRouter, Request
from fastapi.responses import Response
from multipart import MultipartError

from snapshed.api.batch import (
    Kind,
    Operation,
    Outcome,
    Refused,
    Sent,
    answer,
    boundary_in,
    failure,
    operations,
    unreadable,
)
from snapshed.api.objects import OTHER, facts_of
from snapshed.auth import Keyed, Res
from snapshed.domain import key_tokens, metadata, namespaces
from snapshed.domain.grants import Permission
from snapshed.domain.key_tokens import KeyGrant
from snapshed.domain.namespaces import Place
from snapshed.errors import SnapshedError
from snapshed.ledger import sha256
from snapshed.resources import Resources
from snapshed.work import objects
from snapshed.work.objects import NewObject

router = APIRouter(prefix="/v1", tags=["objects"])

_GROUP_BYTES = 32 * 2**20
"""How much of a batch is held in memory and stored at once."""

_NEEDS: dict[Kind, Permission] = {
    "head": "object.read",
    "get": "object.read",
    "insert": "object.write",
    "delete": "object.delete",
}


@dataclass(frozen=True, slots=True)
class _Asked:
    """An operation that may be carried out, with the key it is about."""

    operation: Operation
    key: str


@router.post(f"/objects:batch/{OTHER}/{{scopes}}/")
@router.post(f"/objects:batch/{OTHER}/{{scopes}}", include_in_schema=False)
def batch(use_case: str, scopes: str, request: Request, resources: Res, grant: Keyed, body: Sent) -> Response:
    """Carry out every part: `head`, `insert`, `get`, `delete`. Answered as multipart/form-data, a part each."""
    namespaces.check_use_case(use_case)
    namespaces.parse_scopes(scopes)
    where = Place(use_case, scopes)
    boundary = boundary_in(request.headers.get("content-type", ""))
    outcomes: dict[int, Outcome] = {}
    try:
        for group in _groups(_allowed(grant, where, operations(boundary, body), outcomes)):
            outcomes.update(_carried_out(resources, grant, where, group))
    except MultipartError:
        raise unreadable() from None
    return answer(outcomes)


def _allowed(
    grant: KeyGrant, where: Place, wanted: Iterable[Operation | Refused], outcomes: dict[int, Outcome]
) -> Iterator[_Asked]:
    """The operations that may be carried out; the others are answered."""
    for operation in wanted:
        if isinstance(operation, Refused):
            outcomes[operation.index] = failure(operation.error)
            continue
        key = str(uuid.uuid4()) if operation.key is None else operation.key
        try:
            key_tokens.check(grant, where, _NEEDS[operation.kind])
            namespaces.check_key(key)
            if operation.kind == "insert":
                metadata.read(operation.headers)
        except SnapshedError as error:
            outcomes[operation.index] = failure(error)
            continue
        yield _Asked(operation, key)


def _groups(wanted: Iterable[_Asked]) -> Iterator[list[_Asked]]:
    """Neighbours of one kind, as many as fit into memory."""
    group: list[_Asked] = []
    size = 0
    for asked in wanted:
        if group and (asked.operation.kind != group[0].operation.kind or size >= _GROUP_BYTES):
            yield group
            group, size = [], 0
        group.append(asked)
        size += len(asked.operation.data)
    if group:
        yield group


def _carried_out(resources: Resources, grant: KeyGrant, where: Place, group: list[_Asked]) -> dict[int, Outcome]:
    try:
        return _carry_out(resources, grant, where, group)
    except SnapshedError as error:
        return {asked.operation.index: failure(error) for asked in group}


def _carry_out(resources: Resources, grant: KeyGrant, where: Place, group: list[_Asked]) -> dict[int, Outcome]:
    kind = group[0].operation.kind
    if kind == "insert":
        objects.put(resources, where, grant.principal, [_new(asked) for asked in group])
        return {asked.operation.index: Outcome(201, {}, asked.key, kind) for asked in group}
    keys = [asked.key for asked in group]
    if kind == "delete":
        objects.remove(resources, where, keys)
        return {asked.operation.index: Outcome(204, {}, asked.key, kind) for asked in group}
    found = objects.find(resources, where, keys)
    outcomes: dict[int, Outcome] = {}
    for asked in group:
        item = found.get(asked.key)
        if item is None:
            outcome = Outcome(404, {}, asked.key, kind)
        elif kind == "head":
            outcome = Outcome(204, facts_of(item), asked.key, kind)
        else:
            outcome = Outcome(
                200, facts_of(item), asked.key, kind, lambda item=item: objects.open_bytes(resources, item)
            )
        outcomes[asked.operation.index] = outcome
    return outcomes


def _new(asked: _Asked) -> NewObject:
    data = asked.operation.data
    return NewObject(asked.key, metadata.read(asked.operation.headers), sha256(data), data)
