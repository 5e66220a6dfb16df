"""The real `objectstore-client` against a real server: everything it offers, and that nothing of it is left behind."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import urllib3
import zstandard
from api_fixtures import Service, running
from fixtures.keyed import Key, register
from objectstore_client import Client, RequestError, Session, TimeToIdle, TimeToLive, Usecase
from objectstore_client.auth import Permission, SecretKey
from objectstore_client.errors import ExpiryExtensionRejected, ObjectNotFound
from objectstore_client.multipart import CompletePart, MultipartCompleteError

MOST = 2 * 2**20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("objects") / "data", SNAPSHED_MAX_FILE=str(MOST)) as service:
        yield service


@pytest.fixture(scope="module")
def key(service: Service) -> Key:
    return register(service, "ours", scopes=["org=*;project=*"])


def session_of(key: Key, use_case: Usecase | None = None, **options: Any) -> Session:
    client = Client(
        key.service.address,
        token=SecretKey(key.kid, key.private_pem, **options),
        # Client and server share one process here, so a pause of one is a pause of the other.
        connection_kwargs={"timeout": urllib3.Timeout(connect=10)},
    )
    return client.session(use_case or Usecase("testing"), org=42, project=1337)


@pytest.fixture
def session(key: Key) -> Session:
    return session_of(key)


def stored_bytes(service: Service, data: bytes) -> set[str]:
    return {name for name in service.files() if f"/{hashlib.sha256(data).hexdigest()}." in name}


def test_what_is_put_is_got_with_everything_said_about_it(session: Session) -> None:
    before = datetime.now(UTC)
    name = session.put(
        b"hello world",
        key="a/b c/d%20é?#&=;+~.txt",
        content_type="text/plain; charset=utf-8",
        metadata={"Build_Id": "7", "note": "ü 100%"},
        origin="203.0.113.7",
        filename='rép"ort 100%.pdf',
        expiration_policy=TimeToLive(timedelta(days=30)),
    )
    assert name == "a/b c/d%20é?#&=;+~.txt"
    found = session.get(name)
    assert found is not None
    assert found.payload.read() == b"hello world"
    metadata = found.metadata
    assert metadata.content_type == "text/plain; charset=utf-8"
    assert metadata.custom == {"build_id": "7", "note": "ü 100%"}
    assert (metadata.origin, metadata.filename) == ("203.0.113.7", 'rép"ort 100%.pdf')
    assert metadata.expiration_policy == TimeToLive(timedelta(days=30))
    assert metadata.time_created is not None
    assert metadata.time_expires is not None
    assert metadata.time_created >= before - timedelta(milliseconds=1)
    assert metadata.time_expires - metadata.time_created == timedelta(days=30)
    head = session.head(name)
    assert head is not None
    assert head.compression == "zstd"
    assert head.size == metadata.size
    assert head.filename == metadata.filename


def test_bytes_are_kept_exactly_as_they_were_received(service: Service, session: Session) -> None:
    packed = zstandard.ZstdCompressor().compress(b"x" * 5000)
    session.put(packed, key="packed", precompressed="zstd")
    session.put(b"plain bytes", key="plain", compress="none")
    raw = session.get("packed", decompress=False)
    assert raw is not None
    assert raw.payload.read() == packed
    unpacked = session.get("packed")
    assert unpacked is not None
    assert unpacked.payload.read() == b"x" * 5000
    plain = session.get("plain")
    assert plain is not None
    assert (plain.payload.read(), plain.metadata.compression) == (b"plain bytes", None)
    assert len(stored_bytes(service, packed)) == 1
    assert len(stored_bytes(service, b"plain bytes")) == 1


@pytest.mark.parametrize("name", ["/lead", "trail/", "a//b", "..", "a/../b", "a/./b", "%2e", "a%2Fb", "a b", "+", "é"])
def test_keys_are_taken_as_they_are(session: Session, name: str) -> None:
    assert session.put(name.encode(), key=name) == name
    found = session.get(name)
    assert found is not None
    assert found.payload.read() == name.encode()
    session.delete(name)
    assert session.get(name) is None


def test_the_server_chooses_a_key_if_the_client_has_none(session: Session) -> None:
    first, second = session.put(b"same"), session.put(b"same")
    assert first != second
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", first)
    assert session.head(first) is not None


def test_an_empty_object_is_an_object(session: Session) -> None:
    session.put(b"", key="empty", compress="none")
    found = session.get("empty")
    assert found is not None
    assert (found.payload.read(), found.metadata.size) == (b"", 0)


def test_a_second_put_replaces_bytes_and_metadata_and_the_old_bytes_go(service: Service, session: Session) -> None:
    session.put(b"first", key="twice", compress="none", metadata={"a": "1"}, content_type="text/plain")
    session.put(b"second", key="twice", compress="none")
    found = session.get("twice")
    assert found is not None
    assert found.payload.read() == b"second"
    assert found.metadata.custom == {}
    assert found.metadata.content_type == "application/octet-stream"
    service.settle()
    assert stored_bytes(service, b"first") == set()
    assert len(stored_bytes(service, b"second")) == 1


def test_what_is_deleted_is_gone_for_every_reader_at_once_and_from_the_store_after(
    service: Service, session: Session
) -> None:
    session.put(b"to be deleted", key="gone", compress="none")
    session.delete("gone")
    session.delete("gone")
    assert session.get("gone") is None
    assert session.head("gone") is None
    service.settle()
    assert stored_bytes(service, b"to be deleted") == set()


def test_namespaces_do_not_meet(key: Key, session: Session) -> None:
    session.put(b"here", key="k")
    client = Client(key.service.address, token=SecretKey(key.kid, key.private_pem))
    assert client.session(Usecase("testing"), org=42, project=1).get("k") is None
    assert client.session(Usecase("another"), org=42, project=1337).get("k") is None


def test_an_object_can_be_given_more_time_but_never_less(session: Session) -> None:
    session.put(b"x", key="longer", expiration_policy=TimeToLive(timedelta(days=1)))
    session.extend_expiry("longer", from_creation=timedelta(hours=1))
    assert lifetime(session, "longer") == timedelta(days=1)
    session.extend_expiry("longer", from_creation=timedelta(days=3))
    assert lifetime(session, "longer") == timedelta(days=3)
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    session.extend_expiry("longer", at=at)
    head = session.head("longer")
    assert head is not None
    assert head.time_expires == at
    session.extend_expiry("longer", from_now=timedelta(days=30))
    head = session.head("longer")
    assert head is not None
    assert head.time_expires is not None
    assert head.time_expires > datetime.now(UTC) + timedelta(days=29)


def lifetime(session: Session, name: str) -> timedelta:
    head = session.head(name)
    assert head is not None
    assert head.time_expires is not None
    assert head.time_created is not None
    return head.time_expires - head.time_created


def test_what_cannot_be_given_more_time_says_so(session: Session) -> None:
    session.put(b"x", key="for ever")
    with pytest.raises(ExpiryExtensionRejected):
        session.extend_expiry("for ever", from_now=timedelta(days=1))
    with pytest.raises(ObjectNotFound):
        session.extend_expiry("never was", from_now=timedelta(days=1))


def test_an_object_that_is_read_lives_on_and_one_that_is_not_goes(key: Key, service: Service, session: Session) -> None:
    session.put(b"read now and then", key="idle", compress="none", expiration_policy=TimeToIdle(timedelta(hours=4)))
    session.put(b"for four hours", key="live", compress="none", expiration_policy=TimeToLive(timedelta(hours=4)))
    # The token's time is the client's, so the server's hour hand is pushed while tokens are made to last.
    patient = session_of(key, expiry_seconds=200_000)
    service.clock.push(timedelta(hours=3))
    first = patient.head("idle")
    second = patient.head("idle")
    assert first is not None
    assert second is not None
    assert first.time_expires is not None
    assert second.time_expires is not None
    assert second.time_expires - first.time_expires >= timedelta(hours=2, minutes=59), "the first reading pushed it"
    assert second.time_expires == patient.head("idle").time_expires, "a second one soon after does not"  # type: ignore[union-attr]
    service.clock.push(timedelta(hours=2))
    assert patient.head("live") is None, "over for every reader before anything has tidied"
    assert patient.get("idle") is not None
    service.settle()
    assert stored_bytes(service, b"for four hours") == set()
    assert stored_bytes(service, b"read now and then") != set()
    service.clock.push(timedelta(hours=5))
    assert patient.get("idle") is None
    service.settle()
    assert stored_bytes(service, b"read now and then") == set()
    service.clock.ahead = timedelta()


def test_an_address_can_be_handed_to_somebody_without_a_key(session: Session) -> None:
    session.put(b"for a friend", key="a b/é", compress="none", filename="é.txt")
    with httpx.Client() as friend:
        assert friend.get(session.object_url("a b/é")).status_code == 400
        address = session.object_url("a b/é", token_validity=timedelta(minutes=5))
        answer = friend.get(address)
        assert answer.content == b"for a friend"
        assert answer.headers["content-disposition"] == "attachment; filename=\"_.txt\"; filename*=UTF-8''%C3%A9.txt"
        assert friend.put(address, content=b"x").status_code == 403, "it is for reading only"
        presigned = session.presigned_object_url("GET", "a b/é")
        assert friend.get(presigned).content == b"for a friend"
        assert friend.head(presigned).status_code == 204
        assert friend.delete(presigned).status_code == 403
        other = session.presigned_object_url("HEAD", "a b/other")
        assert friend.get(other).status_code == 404
        assert friend.get(presigned.replace("a%20b", "other")).status_code == 401
        assert friend.get(presigned.replace("os_duration=3600", "os_duration=3601")).status_code == 401


def test_a_pre_signed_address_is_over_in_time(service: Service, session: Session) -> None:
    session.put(b"x", key="signed")
    address = session.presigned_object_url("GET", "signed", timedelta(minutes=10))
    assert httpx.get(address).status_code == 200
    service.clock.push(timedelta(minutes=11))
    assert httpx.get(address).status_code == 401
    service.clock.push(-timedelta(minutes=13))
    assert httpx.get(address).status_code == 401, "not yet"
    service.clock.ahead = timedelta()


def test_a_token_made_for_reading_only_reads(key: Key, service: Service, session: Session) -> None:
    session.put(b"x", key="guarded")
    token = session.mint_token(permissions=[Permission.OBJECT_READ], expiry_seconds=60)
    reader = Client(service.address, token=token).session(Usecase("testing"), org=42, project=1337)
    assert reader.get("guarded") is not None
    for change in (lambda: reader.put(b"y", key="guarded"), lambda: reader.delete("guarded")):
        with pytest.raises(RequestError) as refused:
            change()
        assert refused.value.status == 403


def test_an_object_in_parts_is_put_together(service: Service, session: Session) -> None:
    upload = session.initiate_multipart_upload(
        key="whole/thing",
        compression="none",
        content_type="text/plain",
        expiration_policy=TimeToLive(timedelta(days=1)),
    )
    second = upload.put_part(b"2nd part", part_number=2, content_length=8)
    upload.put_part(b"FIRST, ", part_number=1, content_length=7)
    first = upload.put_part(b"first, ", part_number=1, content_length=7, content_md5=md5(b"first, "))
    assert session.get("whole/thing") is None
    resumed = session.resume_multipart_upload(upload.key, upload.upload_id)
    parts = resumed.list_parts()
    assert [(part.part_number, part.size, part.etag) for part in parts] == [(1, 7, first.etag), (2, 8, second.etag)]
    assert resumed.complete(parts) == "whole/thing"
    found = session.get("whole/thing")
    assert found is not None
    assert found.payload.read() == b"first, 2nd part"
    assert found.metadata.content_type == "text/plain"
    assert found.metadata.expiration_policy == TimeToLive(timedelta(days=1))
    service.settle()
    for part in (b"FIRST, ", b"first, ", b"2nd part"):
        assert stored_bytes(service, part) == set(), "only the whole is left"
    with pytest.raises(RequestError) as over:
        resumed.list_parts()
    assert over.value.status == 404


def md5(data: bytes) -> bytes:
    return hashlib.md5(data, usedforsecurity=False).digest()


def test_parts_that_are_wrong_can_be_mended_before_the_upload_is_completed(session: Session) -> None:
    session.put(b"before", key="mended")
    upload = session.initiate_multipart_upload(key="mended", compression="none")
    part = upload.put_part(b"part", part_number=1, content_length=4)
    with pytest.raises(MultipartCompleteError) as wrong:
        upload.complete([part, CompletePart(2, "unknown")])
    assert wrong.value.code == "InvalidPart"
    with pytest.raises(MultipartCompleteError) as empty:
        upload.complete([])
    assert empty.value.code == "InvalidPart"
    with pytest.raises(RequestError) as damaged:
        upload.put_part(b"damaged", part_number=2, content_length=7, content_md5=md5(b"as sent"))
    assert damaged.value.status == 400
    found = session.get("mended")
    assert found is not None
    assert found.payload.read() == b"before"
    upload.complete([part])
    found = session.get("mended")
    assert found is not None
    assert found.payload.read() == b"part"


def test_parts_that_together_are_too_large_are_refused(session: Session) -> None:
    upload = session.initiate_multipart_upload(compression="none")
    half = bytes(MOST // 2 + 1)
    parts = [upload.put_part(half, part_number=number, content_length=len(half)) for number in (1, 2)]
    with pytest.raises(MultipartCompleteError) as large:
        upload.complete(parts)
    assert large.value.code == "EntityTooLarge"
    upload.complete(parts[:1])
    found = session.get(upload.key)
    assert found is not None
    assert found.payload.read() == half


def test_an_aborted_or_forgotten_upload_leaves_nothing(service: Service, session: Session) -> None:
    aborted = session.initiate_multipart_upload(key="aborted")
    aborted.put_part(b"aborted part", part_number=1, content_length=12)
    aborted.abort()
    with pytest.raises(RequestError) as over:
        aborted.put_part(b"late", part_number=2, content_length=4)
    assert over.value.status == 404
    forgotten = session.initiate_multipart_upload(key="forgotten", metadata={"who": "somebody"})
    forgotten.put_part(b"forgotten part", part_number=1, content_length=14)
    service.settle()
    assert stored_bytes(service, b"aborted part") == set()
    assert stored_bytes(service, b"forgotten part") != set()
    service.clock.push(timedelta(hours=2))
    service.settle()
    service.clock.ahead = timedelta()
    assert stored_bytes(service, b"forgotten part") == set()
    assert service.rows("SELECT count(*) FROM multipart") == [(0,)]


def test_more_parts_than_a_page_holds_are_all_listed(session: Session, key: Key) -> None:
    upload = session.initiate_multipart_upload(key="pages", compression="none")
    for number in range(1, 8):
        upload.put_part(bytes([number]), part_number=number, content_length=1)
    path = f"/v1/objects:multipart:parts/testing/org=42;project=1337/pages?upload_id={upload.upload_id}"
    token = session.mint_token()
    numbers: list[int] = []
    marker = 0
    for _ in range(3):
        page = key.ask("GET", f"{path}&max_parts=3&part_number_marker={marker}", token).json()
        numbers += [part["part_number"] for part in page["parts"]]
        marker = page.get("next_part_number_marker", 0)
        assert page["is_truncated"] is (len(numbers) < 7)
    assert numbers == [1, 2, 3, 4, 5, 6, 7]
    upload.abort()


def test_a_resumable_upload_is_declined_and_the_client_puts_at_once(service: Service, session: Session) -> None:
    data = os.urandom(200_000)
    session.put(data, key="resumable", resumable_threshold_bytes=1000)
    found = session.get("resumable")
    assert found is not None
    assert found.payload.read() == data
    name = session.put(data, resumable_threshold_bytes=1000)
    assert session.head(name) is not None
    service.settle()
    assert service.rows("SELECT count(*) FROM object WHERE key = 'resumable'") == [(1,)]


def test_what_is_larger_than_the_limit_is_refused_and_nothing_is_kept(service: Service, session: Session) -> None:
    service.settle()
    before = service.kept()
    with pytest.raises(RequestError) as large:
        session.put(os.urandom(MOST + 1), key="large", compress="none")
    assert large.value.status == 413
    assert session.get("large") is None
    service.settle()
    assert service.kept() == before


def test_a_large_object_is_streamed_both_ways(session: Session, tmp_path: Path) -> None:
    data = os.urandom(MOST)
    file = tmp_path / "large"
    file.write_bytes(data)
    with file.open("rb") as opened:
        session.put(opened, key="just right", compress="none")
    found = session.get("just right")
    assert found is not None
    assert found.payload.read() == data
