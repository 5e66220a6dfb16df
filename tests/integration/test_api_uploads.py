"""The blob API as uploading clients meet it: batches and single objects, tokens, and what is kept of what goes wrong."""

from __future__ import annotations

import base64
import json
import random
import tracemalloc
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
import zstandard
from api_fixtures import (
    Kept,
    Operation,
    Project,
    Service,
    Session,
    cut_off,
    frames,
    manifest_of,
    parts_of,
    png,
    raw,
    running,
    sha,
    sized,
    wait_until,
)
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from snapshed import web
from snapshed.db import installation
from snapshed.domain import grants
from snapshed.domain.grants import Grant

MOST_FILE = 3 * 2**20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("uploads") / "data", SNAPSHED_MAX_FILE=str(MOST_FILE)) as service:
        yield service


@pytest.fixture
def project(service: Service) -> Project:
    return service.new_project()


@pytest.fixture
def session(project: Project) -> Session:
    return project.session()


@pytest.fixture
def before(service: Service, session: Session) -> Kept:
    """What is there once the test has its session: a refused upload must leave exactly this."""
    del session
    service.settle()
    return service.kept()


def assert_nothing_kept(service: Service, before: Kept) -> None:
    service.settle()
    assert service.kept() == before
    assert service.scratch() == []


# --- Batches ---------------------------------------------------------------------------------------------------------


def test_every_operation_of_a_batch_is_answered_with_its_index_status_and_key(session: Session) -> None:
    here, absent, new = png("here"), png("absent"), png("new")
    session.upload(here)
    parts = session.batch(
        [
            Operation("head", sha(here)),
            Operation("insert", sha(new), frames(new), "zstd"),
            Operation("head", sha(absent)),
            Operation("get", sha(here)),
            Operation("get", sha(absent)),
            Operation("delete", sha(here)),
        ]
    )
    assert [part.status for part in parts] == [
        "204 No Content",
        "201 Created",
        "404 Not Found",
        "200 OK",
        "404 Not Found",
        "204 No Content",
    ]
    asked = [here, new, absent, here, absent, here]
    assert [part.headers["x-sn-batch-operation-key"] for part in parts] == [
        session.key(sha(data)).replace("/", "%2F") for data in asked
    ]
    assert [part.headers["x-sn-batch-operation-kind"] for part in parts] == [
        "head",
        "insert",
        "head",
        "get",
        "get",
        "delete",
    ]
    assert parts[3].body == here
    assert [part.body for part in parts if part.index != 3] == [b""] * 5


def test_a_batch_is_answered_as_form_data_with_http_200(session: Session) -> None:
    answer, _ = session.batch_answer([Operation("head", sha(png("x")))])
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith('multipart/form-data; boundary="')


def test_an_existing_object_is_described_in_its_part(session: Session) -> None:
    data = png("described")
    session.upload(data)
    (part,) = session.batch([Operation("head", sha(data))])
    assert part.headers["content-type"] == "application/octet-stream"
    assert part.headers["x-sn-size"] == str(len(data))
    assert part.headers["x-sn-time-created"].endswith("Z")
    assert "content-encoding" not in part.headers
    assert "x-sn-expiration" not in part.headers


def test_the_operations_of_a_batch_may_come_in_any_order(session: Session) -> None:
    images = [png(f"order {number}") for number in range(40)]
    operations = [Operation("insert", sha(data), frames(data), "zstd") for data in images]
    operations += [Operation("head", sha(png(f"nowhere {number}"))) for number in range(40)]
    random.Random(7).shuffle(operations)
    parts = session.batch(operations)
    assert [part.code for part in parts] == [201 if item.kind == "insert" else 404 for item in operations]


def test_a_head_in_the_same_batch_as_its_insert_finds_the_image(session: Session) -> None:
    data = png("both")
    parts = session.batch([Operation("head", sha(data)), Operation("insert", sha(data), data)])
    assert [part.code for part in parts] == [204, 201]


def test_the_same_image_twice_in_one_batch_is_stored_once_and_answered_twice(
    service: Service, session: Session
) -> None:
    data = png("twice")
    parts = session.batch(
        [Operation("insert", sha(data), frames(data), "zstd"), Operation("insert", sha(data), frames(data), "zstd")]
    )
    assert [part.code for part in parts] == [201, 201]
    assert len(service.files_of(data)) == 1


def test_a_thousand_operations_are_carried_out_and_the_next_is_refused_alone(session: Session) -> None:
    operations = [Operation("head", sha(png(number))) for number in range(999)]
    operations.append(Operation("insert", sha(png("1000th")), png("1000th")))
    operations.append(Operation("insert", sha(png("1001st")), png("1001st")))
    parts = session.batch(operations)
    assert len(parts) == 1001
    assert {part.code for part in parts[:999]} == {404}
    assert (parts[999].code, parts[1000].code) == (201, 413)
    assert (session.head(png("1000th")), session.head(png("1001st"))) == (204, 404)


def test_one_bad_part_never_harms_the_others(session: Session) -> None:
    good, last = png("good"), png("last")
    parts = session.batch(
        [
            Operation("insert", sha(good), frames(good), "zstd"),
            Operation("insert", sha(png("one")), frames(png("another")), "zstd"),
            Operation("insert", sha(png("garbled")), b"not zstd at all", "zstd"),
            Operation("insert", sha(png("gzip")), png("gzip"), "gzip"),
            Operation("paint", sha(good)),
            Operation("", sha(good)),
            Operation("head"),
            Operation("insert", body=png("no key")),
            Operation("insert", body=png("foreign"), key=f"999/999/{sha(png('foreign'))}"),
            Operation("head", key="no/digest/at-all"),
            Operation("insert", sha(png("large")), b"\0" * (2 * 2**20 + 1)),
            Operation("insert", sha(last), last),
        ]
    )
    assert [part.code for part in parts] == [201, 400, 400, 400, 400, 400, 400, 400, 400, 400, 413, 201]
    for part in parts[1:11]:
        assert set(json.loads(part.body)) == {"detail"}
    assert (session.head(good), session.head(last)) == (204, 204)


def test_part_headers_are_read_whatever_their_case(session: Session) -> None:
    data = png("case")
    body = session.batch_body([Operation("insert", sha(data), frames(data), "zstd")], "edge")
    shouting = body.replace(b"x-sn-batch-operation-kind: insert", b"X-SN-Batch-Operation-Kind: INSERT")
    shouting = shouting.replace(b"content-encoding", b"Content-Encoding")
    assert shouting != body
    headers = {"content-type": 'Multipart/Form-Data; boundary="edge"'}
    (part,) = parts_of(session.ask("POST", session.batch_path, content=shouting, headers=headers))
    assert part.code == 201


def test_a_batch_that_arrives_in_chunks_is_read_like_one_with_a_length(session: Session) -> None:
    images = [png(f"chunk {number}") for number in range(20)]
    body = session.batch_body([Operation("insert", sha(data), frames(data), "zstd") for data in images], "edge")

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(body), 61):
            yield body[start : start + 61]

    headers = {"content-type": "multipart/form-data; boundary=edge"}
    parts = parts_of(session.ask("POST", session.batch_path, content=pieces(), headers=headers))
    assert [part.code for part in parts] == [201] * 20


def test_bytes_that_look_like_a_delimiter_inside_an_image_do_not_end_its_part(session: Session) -> None:
    data = png("delimiter") + b"\r\n--edg\r\n--other--\r\n\r\n"
    body = session.batch_body([Operation("insert", sha(data), data)], "edge")
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    (part,) = parts_of(session.ask("POST", session.batch_path, content=body, headers=headers))
    assert part.code == 201


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{}"),
        ("multipart/form-data", b"--edge--\r\n"),
        ("multipart/mixed; boundary=edge", b"--edge--\r\n"),
        ("multipart/form-data; boundary=edge", b"nothing of the kind"),
        ("multipart/form-data; boundary=edge", b""),
    ],
)
def test_a_batch_that_is_no_multipart_is_refused_whole(session: Session, kind: str, body: bytes) -> None:
    answer = session.ask("POST", session.batch_path, content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["detail"]


def test_a_batch_without_its_closing_delimiter_is_refused(session: Session) -> None:
    body = session.batch_body([Operation("head", sha(png("x")))], "edge").removesuffix(b"--edge--\r\n")
    headers = {"content-type": "multipart/form-data; boundary=edge"}
    assert session.ask("POST", session.batch_path, content=body, headers=headers).status_code == 400


def test_a_batch_for_another_project_is_refused_part_by_part(service: Service, session: Session) -> None:
    other = service.new_project()
    path = session.batch_path.replace(session.scopes, f"org={other.org_id};project={other.id}")
    body = session.batch_body([Operation("head", sha(png(1))), Operation("insert", sha(png(2)), png(2))], "edge")
    answer = session.ask("POST", path, content=body, headers={"content-type": "multipart/form-data; boundary=edge"})
    assert [part.code for part in parts_of(answer)] == [403, 403]


# --- Single objects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [None, "zstd", "zstd sized", "zstd frames"])
def test_an_image_is_stored_as_the_client_had_it_however_it_travelled(
    service: Service, session: Session, encoding: str | None
) -> None:
    data = png(f"put {encoding}", at_least=300_000)
    body = {None: data, "zstd": frames(data), "zstd sized": sized(data), "zstd frames": frames(data, 3)}[encoding]
    answer = session.put(data, body=body, encoding="zstd" if encoding else None)
    assert (answer.status_code, answer.json()) == (200, {"key": session.key(sha(data))})
    (key,) = service.files_of(data)
    assert (service.objects / key).read_bytes() == data


def test_an_image_may_arrive_in_chunks(session: Session) -> None:
    data = png("chunked", at_least=200_000)
    packed = frames(data)
    pieces = (packed[start : start + 4096] for start in range(0, len(packed), 4096))
    answer = session.ask("PUT", session.path(sha(data)), content=pieces, headers={"content-encoding": "zstd"})
    assert answer.status_code == 200
    assert session.read(data).content == data


def test_an_image_that_was_put_is_found_read_and_given_up(session: Session) -> None:
    data = png("life")
    assert session.head(data) == 404
    assert session.put(data).status_code == 200
    assert session.put(data).status_code == 200
    assert session.head(data) == 204
    read = session.read(data)
    assert (read.status_code, read.content) == (200, data)
    assert read.headers["content-type"] == "application/octet-stream"
    assert "content-encoding" not in read.headers
    assert session.ask("DELETE", session.path(sha(data))).status_code == 204
    assert (session.head(data), session.read(data).status_code) == (404, 404)
    assert session.ask("DELETE", session.path(sha(data))).status_code == 204


def test_an_absent_image_is_a_404_without_a_body(session: Session) -> None:
    answer = session.read(png("nowhere"))
    assert (answer.status_code, answer.content) == (404, b"")


def test_response_header_names_are_lower_case_on_the_wire(service: Service, session: Session) -> None:
    """A client of this protocol compares names letter by letter, and hands compressed bytes to its caller when the
    case is not as it expects."""
    data = png("wire")
    assert session.put(data).status_code == 200
    body = session.batch_body([Operation("head", sha(data))], "edge")
    content_type = "multipart/form-data; boundary=edge"
    requests = [
        ("GET", session.path(sha(data)), b""),
        ("HEAD", session.path(sha(data)), b""),
        ("HEAD", session.path(sha(png("no"))), b""),
        ("PUT", session.path(sha(data)), data),
        ("PUT", session.path(sha(data)), b"wrong"),
        ("POST", session.batch_path, body),
        ("PATCH", session.path(sha(data)), b""),
    ]
    for method, path, content in requests:
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-os-auth: Bearer {session.token}\r\n"
            f"content-type: {content_type}\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        answer = raw(service, head.encode() + content)
        status, *lines = answer.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        names = [line.partition(":")[0] for line in lines]
        assert status.startswith("HTTP/1.1 "), answer
        assert names == [name.lower() for name in names], (method, path)


def test_a_key_that_is_no_image_of_this_project_is_refused(session: Session) -> None:
    data = png("key")
    for tail in (
        sha(data),
        f"1/1/{sha(data)}",
        session.key(sha(data).upper()),
        session.key(sha(data)[:-1]),
        session.key(sha(data)) + "/more",
        f"/{session.key(sha(data))}",
        session.key("..%2F" + sha(data)),
        session.key("%00"),
    ):
        path = f"/v1/objects/preprod/{session.scopes}/{tail}"
        assert session.ask("PUT", path, content=data).status_code == 400, tail
        assert session.ask("GET", path).status_code == 400, tail


def test_a_percent_encoded_path_is_decoded_once(session: Session) -> None:
    data = png("encoded")
    scopes = session.scopes.replace("=", "%3D").replace(";", "%3B")
    path = f"/v1/objects/preprod/{scopes}/{session.key(sha(data)).replace('/', '%2F')}"
    assert session.ask("PUT", path, content=data).json() == {"key": session.key(sha(data))}


@pytest.mark.parametrize("scopes", ["_", "org", "org=", "=1", "org=1;", ""])
def test_scopes_that_cannot_be_read_are_refused(session: Session, scopes: str) -> None:
    answer = session.ask("GET", f"/v1/objects/preprod/{scopes}/{session.key(sha(png(1)))}")
    assert answer.status_code in (400, 404)


def test_resumable_uploads_are_declined_as_their_clients_expect(session: Session) -> None:
    """Clients fall back to one ordinary request at 501; a server that ignores the question stores an empty object."""
    path = session.path(sha(b""))
    headers = {"upload-length": "300000000"}
    assert session.ask("PUT", f"{path}?upload_type=resumable", headers=headers).status_code == 501
    collection = f"/v1/objects/preprod/{session.scopes}/"
    assert session.ask("POST", f"{collection}?upload_type=resumable", headers=headers).status_code == 501
    assert session.head(b"") == 404


def test_the_server_never_chooses_a_key_for_an_image(session: Session) -> None:
    for slash in ("", "/"):
        answer = session.ask("POST", f"/v1/objects/preprod/{session.scopes}{slash}", content=png("post"))
        assert answer.status_code == 400


# --- Nothing is kept of what is refused or never arrives --------------------------------------------------------------------


@pytest.mark.parametrize("encoding", [None, "zstd"])
def test_bytes_that_are_not_what_their_key_says_are_refused_and_nothing_is_kept(
    service: Service, session: Session, before: Kept, encoding: str | None
) -> None:
    other = png("something else")
    answer = session.put(png("said"), body=frames(other) if encoding else other, encoding=encoding)
    assert answer.status_code == 400
    assert sha(other) in answer.json()["detail"]
    (part,) = session.batch([Operation("insert", sha(png("said")), frames(other) if encoding else other, encoding)])
    assert part.code == 400
    assert_nothing_kept(service, before)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_a_truncated_zstd_body_is_refused_and_nothing_is_kept(
    service: Service, session: Session, before: Kept, share: float
) -> None:
    data = png("truncated", at_least=200_000)
    packed = frames(data)
    assert session.put(data, body=packed[: int(len(packed) * share)], encoding="zstd").status_code == 400
    assert_nothing_kept(service, before)


def test_rubbish_after_a_zstd_frame_is_refused_and_nothing_is_kept(
    service: Service, session: Session, before: Kept
) -> None:
    data = png("trailing")
    answer = session.put(data, body=frames(data) + b"rubbish", encoding="zstd")
    assert (answer.status_code, answer.json()["detail"]) == (400, "Invalid zstd payload")
    assert_nothing_kept(service, before)


def test_an_encoding_nobody_speaks_is_refused_and_nothing_is_kept(
    service: Service, session: Session, before: Kept
) -> None:
    assert session.put(png("gzip"), encoding="gzip").status_code == 400
    assert_nothing_kept(service, before)


def test_a_zstd_bomb_is_refused_in_bounded_memory_and_nothing_is_kept(
    service: Service, session: Session, before: Kept
) -> None:
    """Four kilobytes that unfold to a gibibyte: nobody must unfold them to find out that they are too large."""
    bomb = _bomb(2**30)
    assert len(bomb) < 64 * 2**10
    tracemalloc.start()
    try:
        answer = session.put(png("bomb"), body=bomb, encoding="zstd")
        (part,) = session.batch([Operation("insert", sha(png("bomb")), bomb, "zstd")])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (answer.status_code, part.code) == (413, 413)
    assert peak < MOST_FILE * 6
    assert_nothing_kept(service, before)


def _bomb(size: int) -> bytes:
    compressor = zstandard.ZstdCompressor(level=19).compressobj()
    piece = bytes(2**24)
    return b"".join(compressor.compress(piece) for _ in range(size // len(piece))) + compressor.flush()


def test_an_object_larger_than_the_limit_is_refused_and_nothing_is_kept(
    service: Service, session: Session, before: Kept
) -> None:
    data = png("over", at_least=MOST_FILE + 1)
    assert session.put(data).status_code == 413
    assert session.put(data, body=frames(data), encoding="zstd").status_code == 413
    far_over = bytes(MOST_FILE + 2 * 2**20)
    assert session.put(far_over).status_code == 413
    assert_nothing_kept(service, before)


def test_an_object_exactly_as_large_as_the_limit_is_stored(session: Session) -> None:
    data = png("exact", at_least=MOST_FILE)
    assert len(data) == MOST_FILE
    assert session.put(data, body=frames(data), encoding="zstd").status_code == 200


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("door", ["single", "batch"])
def test_nothing_is_kept_of_a_body_that_is_cut_off_on_its_way(
    service: Service, session: Session, before: Kept, door: str, framing: str
) -> None:
    data = png("cut off", at_least=400_000)
    if door == "single":
        line, body = f"PUT {session.path(sha(data))}", data
    else:
        line, body = f"POST {session.batch_path}", session.batch_body([Operation("insert", sha(data), data)], "edge")
    length = f"content-length: {len(body)}" if framing == "length" else "transfer-encoding: chunked"
    head = (
        f"{line} HTTP/1.1\r\nhost: x\r\nx-os-auth: Bearer {session.token}\r\n"
        f"content-type: multipart/form-data; boundary=edge\r\n{length}\r\n\r\n"
    )
    half = body[: len(body) // 2]
    cut_off(service, head.encode() + (half if framing == "length" else b"%x\r\n%s\r\n" % (len(half), half)))
    # The session still works, so the server has lived through it.
    wait_until(lambda: session.head(data) == 404)
    assert_nothing_kept(service, before)


def test_an_empty_body_is_no_image_of_another_digest(service: Service, session: Session, before: Kept) -> None:
    assert session.put(png("empty"), body=b"").status_code == 400
    assert session.put(png("empty"), body=b"", encoding="zstd").status_code == 400
    assert_nothing_kept(service, before)


def test_what_a_session_stored_and_never_named_goes_when_the_session_ends(tmp_path: Path) -> None:
    with running(tmp_path / "data", SNAPSHED_SESSION_TTL="10m") as service:
        session = service.new_project().session()
        session.upload(*[png(number) for number in range(30)])
        service.settle()
        assert len(service.files()) == 30
        service.clock.push(timedelta(minutes=11))
        service.settle()
        assert service.kept() == Kept(frozenset(), frozenset(), 0, frozenset())
        assert session.put(png("late")).status_code == 409
        assert session.head(png(1)) == 409


def test_a_session_lives_on_while_it_is_used_but_never_longer_than_six_hours(tmp_path: Path) -> None:
    with running(tmp_path / "data", SNAPSHED_SESSION_TTL="1h") as service:
        session = service.new_project().session()
        session.upload(png("kept alive"))
        for _ in range(7):
            service.clock.push(timedelta(minutes=50))
            service.settle()
            assert session.head(png("kept alive")) == 204
        service.clock.push(timedelta(minutes=11))
        service.settle()
        assert session.head(png("kept alive")) in (401, 409)
        assert service.files() == set()


# --- Tokens ------------------------------------------------------------------------------------------------------------


def _minted(service: Service, upload: Session, /, **changes: Any) -> str:
    """The session's own token with changed claims, signed with the server's key."""
    with service.resources.database.transaction() as tx:
        key = installation.newest_key(tx, "upload")
    assert key is not None
    claims = jwt.decode(upload.token, options={"verify_signature": False}) | changes
    return jwt.encode(claims, key.private_pem, algorithm="EdDSA", headers={"kid": key.kid})


def _segment(document: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=").decode()


def _kid(session: Session) -> str:
    return jwt.get_unverified_header(session.token)["kid"]


def _with(session: Session, token: str | None, **options: Any) -> httpx.Response:
    headers = {} if token is None else {"x-os-auth": f"Bearer {token}"}
    path = session.path(sha(png("token")))
    return session.project.service.http.get(path, headers=headers | options.pop("headers", {}), **options)


def test_without_a_token_nothing_is_answered(session: Session) -> None:
    answer = _with(session, None)
    assert (answer.status_code, answer.json()["detail"]) == (400, "No authorization token provided")
    for header in ("", "Bearer", "Basic dXNlcjpwYXNz", session.token):
        assert _with(session, None, headers={"x-os-auth": header}).status_code == 400, header


def test_a_blank_token_is_no_token(service: Service, session: Session) -> None:
    """What clients send when they were told an empty one; a strict HTTP library would not even write it."""
    request = f"GET {session.path(sha(png(1)))} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-os-auth: Bearer \r\n\r\n"
    assert raw(service, request.encode()).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "kind",
    [
        "garbage",
        "three parts of garbage",
        "alg none",
        "HS256 with the public key",
        "signed by somebody else",
        "unknown kid",
        "receipt key's kid",
        "expired",
        "without exp",
        "without session",
        "altered claims",
    ],
)
def test_a_token_that_is_not_a_valid_one_of_ours_is_a_401(service: Service, session: Session, kind: str) -> None:
    claims = jwt.decode(session.token, options={"verify_signature": False})
    stranger = Ed25519PrivateKey.generate()
    kid = {"kid": _kid(session)}
    head, payload, signature = session.token.split(".")
    with service.resources.database.transaction() as tx:
        public_pem = installation.public_pem(tx, "upload", _kid(session))
        receipt_key = installation.newest_key(tx, "receipt")
    assert public_pem is not None
    assert receipt_key is not None
    match kind:
        case "garbage":
            token = "garbage"
        case "three parts of garbage":
            token = "a.b.c"
        case "alg none":
            token = f"{_segment({'alg': 'none', 'typ': 'JWT'} | kid)}.{payload}."
        case "HS256 with the public key":
            # The classic confusion: the public key, known to all, used as a shared secret.
            signing = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
            text = f"{_segment({'alg': 'HS256', 'typ': 'JWT'} | kid)}.{payload}"
            signed = signing.sign(text.encode(), public_pem.encode())
            token = f"{text}.{base64.urlsafe_b64encode(signed).rstrip(b'=').decode()}"
        case "signed by somebody else":
            token = jwt.encode(claims, stranger, algorithm="EdDSA", headers=kid)
        case "unknown kid":
            token = jwt.encode(claims, stranger, algorithm="EdDSA", headers={"kid": "upload-000000000000"})
        case "receipt key's kid":
            headers = {"kid": receipt_key.kid}
            token = jwt.encode(claims, receipt_key.private_pem, algorithm="EdDSA", headers=headers)
        case "expired":
            over = service.clock.now() - timedelta(seconds=90)
            token = _minted(service, session, exp=int(over.timestamp()))
        case "without exp":
            token = _minted(service, session, exp=None)
        case "without session":
            token = _minted(service, session, session=None)
        case _:
            token = f"{head}.{_segment(claims | {'exp': claims['exp'] + 86400})}.{signature}"
    answer = _with(session, token)
    assert answer.status_code == 401, answer.text
    assert answer.json()["detail"]
    assert "retry-after" not in answer.headers


def test_a_token_that_names_no_key_is_a_400(session: Session) -> None:
    claims = jwt.decode(session.token, options={"verify_signature": False})
    token = jwt.encode(claims, Ed25519PrivateKey.generate(), algorithm="EdDSA")
    assert _with(session, token).status_code == 400


def test_a_token_is_good_for_a_minute_after_its_end(service: Service, session: Session) -> None:
    just_over = service.clock.now() - timedelta(seconds=30)
    assert _with(session, _minted(service, session, exp=int(just_over.timestamp()))).status_code == 404


def test_a_token_of_another_project_is_a_403(service: Service, session: Session) -> None:
    stranger = service.new_project().session()
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        headers = {"x-os-auth": f"Bearer {stranger.token}"}
        answer = session.ask(method, session.path(sha(png("token"))), headers=headers)
        assert answer.status_code == 403, method


def test_a_token_does_only_what_its_permissions_say(service: Service, session: Session) -> None:
    data = png("token")
    reading = _minted(service, session, permissions=["object.read"])
    writing = _minted(service, session, permissions=["object.write"])
    path = session.path(sha(data))
    told = {
        (name, method): session.ask(
            method, path, content=data if method == "PUT" else b"", headers={"x-os-auth": f"Bearer {token}"}
        ).status_code
        for name, token in (("reading", reading), ("writing", writing))
        for method in ("PUT", "HEAD", "GET")
    }
    assert told == {
        ("reading", "PUT"): 403,
        ("reading", "HEAD"): 404,
        ("reading", "GET"): 404,
        ("writing", "PUT"): 200,
        ("writing", "HEAD"): 403,
        ("writing", "GET"): 403,
    }


def test_an_organization_token_does_not_open_the_blob_api(session: Session) -> None:
    assert _with(session, session.project.token).status_code == 401


def test_a_token_whose_session_is_of_another_project_finds_none(service: Service, session: Session) -> None:
    other = service.new_project()
    grant = Grant(service.resources.new_id(), other.org_id, other.id, frozenset({"object.read", "object.write"}))
    with service.resources.database.transaction() as tx:
        key = installation.newest_key(tx, "upload")
    assert key is not None
    token = grants.upload_token(grant, service.clock.now() + timedelta(hours=1), key.kid, key.private_pem)
    stray = Session(other, token)
    assert stray.put(png("stray")).status_code == 404
    theirs = Session(other, _minted(service, session, res={"org": str(other.org_id), "project": str(other.id)}))
    assert theirs.put(png("stray")).status_code == 404


def test_x_os_auth_is_heard_before_authorization_and_authorization_before_the_query(session: Session) -> None:
    good, bad = {"x-os-auth": f"Bearer {session.token}"}, {"x-os-auth": "Bearer bad"}
    also_good, also_bad = {"authorization": f"Bearer {session.token}"}, {"authorization": "Bearer bad"}
    in_query, bad_in_query = {"os_auth": session.token}, {"os_auth": "bad"}
    assert _with(session, None, headers=good | also_bad, params=bad_in_query).status_code == 404
    assert _with(session, None, headers=bad | also_good, params=in_query).status_code == 401
    assert _with(session, None, headers=also_good, params=bad_in_query).status_code == 404
    assert _with(session, None, headers=also_bad, params=in_query).status_code == 401
    assert _with(session, None, params=in_query).status_code == 404
    assert _with(session, None, params=bad_in_query).status_code == 401


def test_a_malformed_x_os_auth_falls_through_to_the_query_but_not_to_authorization(session: Session) -> None:
    malformed = {"x-os-auth": session.token}
    assert _with(session, None, headers=malformed | {"authorization": f"Bearer {session.token}"}).status_code == 400
    assert _with(session, None, headers=malformed, params={"os_auth": session.token}).status_code == 404


def test_the_word_bearer_may_be_written_in_any_case(session: Session) -> None:
    for word in ("bearer", "BEARER"):
        assert _with(session, None, headers={"x-os-auth": f"{word} {session.token}"}).status_code == 404


# --- What may be read, and what is promised -----------------------------------------------------------------------------------


def test_an_image_of_a_live_snapshot_is_read_and_found_by_every_session_of_the_project(project: Project) -> None:
    data = png("shared")
    project.snapshot({"a.png": data})
    session = project.session()
    assert session.read(data).content == data
    assert session.head(data) == 204


def test_an_image_is_the_same_404_for_a_session_that_did_not_store_it(project: Project) -> None:
    data = png("only theirs")
    owner, other = project.session(), project.session()
    owner.upload(data)
    assert owner.read(data).content == data
    assert (other.read(data).status_code, other.head(data)) == (404, 404)
    assert [part.code for part in other.batch([Operation("head", sha(data)), Operation("get", sha(data))])] == [404] * 2


def test_an_image_of_another_project_is_not_found_here(service: Service, session: Session) -> None:
    data = png("elsewhere")
    service.new_project().snapshot({"a.png": data})
    assert (session.read(data).status_code, session.head(data)) == (404, 404)


def test_an_image_that_is_only_waiting_to_go_is_not_found(service: Service, project: Project) -> None:
    """Its bytes still stand, and no worker has run: it is hidden from the moment the deletion is answered."""
    data = png("going")
    number = project.snapshot({"a.png": data})
    session = project.session()
    project.delete(number)
    assert len(service.files_of(data)) == 1
    assert (session.head(data), session.read(data).status_code) == (404, 404)
    assert [part.code for part in session.batch([Operation("head", sha(data)), Operation("get", sha(data))])] == [
        404,
        404,
    ]


def test_what_was_promised_may_be_named_but_not_read_once_its_snapshot_is_deleted(
    service: Service, project: Project
) -> None:
    """A HEAD is a promise to this session that the image can be named; reading needs more than a promise."""
    data, new = png("promised"), png("new beside it")
    number = project.snapshot({"a.png": data})
    session = project.session()
    assert session.head(data) == 204
    project.delete(number)
    service.settle()
    assert (session.read(data).status_code, session.head(data)) == (404, 404)
    session.upload(new)
    assert project.create(manifest_of({"a.png": data, "b.png": new})).status_code == 200
    assert project.session().read(data).content == data


def test_uploading_again_what_is_waiting_to_go_brings_it_back(service: Service, project: Project) -> None:
    data = png("again")
    project.delete(project.snapshot({"a.png": data}))
    number = project.snapshot({"a.png": data})
    service.settle()
    assert project.details(number)["image_count"] == 1
    assert project.session().read(data).content == data


def test_a_session_is_over_once_its_snapshot_is_made(project: Project) -> None:
    data = png("closed")
    session = project.session()
    session.upload(data)
    project.named({"a.png": data})
    assert session.put(png("after")).status_code == 409
    assert session.head(data) == 409


# --- Around it ----------------------------------------------------------------------------------------------------------------


def test_idle_connections_stay_open_for_at_least_75_seconds() -> None:
    assert web._KEEP_ALIVE_SECONDS >= 75


def test_one_connection_serves_many_requests(service: Service, session: Session) -> None:
    limits = httpx.Limits(max_connections=1)
    headers = {"x-os-auth": f"Bearer {session.token}"}
    with httpx.Client(base_url=service.address, headers=headers, limits=limits) as client:
        for number in range(5):
            data = png(f"kept alive {number}")
            assert client.put(session.path(sha(data)), content=data).status_code == 200
            assert client.put(session.path(sha(data)), content=b"wrong").status_code == 400
        answer = client.head(session.path(sha(png("none"))))
        assert answer.headers.get("connection") != "close"


def test_other_use_cases_do_not_exist_for_an_upload_token(session: Session) -> None:
    data = png("elsewhere")
    for use_case in ("attachments", "PREPROD", "preprod2"):
        path = session.path(sha(data)).replace("/preprod/", f"/{use_case}/")
        assert session.ask("PUT", path, content=data).status_code in (403, 404), use_case


def test_when_the_store_is_down_uploads_are_put_off_without_retry_after_and_nothing_is_kept(tmp_path: Path) -> None:
    """Clients of the blob API sleep on `Retry-After` and then die on the body they cannot send twice."""
    with running(tmp_path / "data") as service:
        project = service.new_project()
        session = project.session()
        before = service.kept()
        data = png("store down")
        aside = service.objects.with_name("aside")
        service.objects.rename(aside)
        service.objects.write_bytes(b"")  # no folder, so that nothing can be stored in it
        try:
            answer = session.put(data)
            (part,) = session.batch([Operation("insert", sha(data), data)])
            ready = service.http.get("/readyz")
        finally:
            service.objects.unlink()
            aside.rename(service.objects)
        assert (answer.status_code, part.code) == (503, 503)
        assert "retry-after" not in answer.headers
        assert str(tmp_path) not in answer.text
        assert (ready.status_code, ready.json()) == (503, {"database": True, "store": False})
        service.settle()
        assert service.kept() == before
        assert session.put(data).status_code == 200
