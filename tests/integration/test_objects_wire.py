"""Objects of the general blob API on the wire: who may do what, ranges, batches, and everything that is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import httpx
import jwt
import pytest
from api_fixtures import Kept, Part, Service, parts_of, png, raw, running, sha
from fixtures.keyed import Key, register

from snapshed.domain.key_tokens import PERMISSIONS
from snapshed.work import keys

MOST = 2 * 2**20


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running(tmp_path_factory.mktemp("wire") / "data", SNAPSHED_MAX_FILE=str(MOST)) as service:
        yield service


@pytest.fixture(scope="module")
def key(service: Service) -> Key:
    return register(service, "ours")


PLACE = "/v1/objects/testing/org=1"


def path_of(name: str, place: str = PLACE) -> str:
    return f"{place}/{quote(name)}"


def put(key: Key, name: str, data: bytes = b"0123456789", **headers: str) -> None:
    answer = key.ask("PUT", path_of(name), content=data, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"key": name})


@pytest.fixture
def before(service: Service) -> Kept:
    service.settle()
    return service.kept()


# --- Who may -----------------------------------------------------------------------------------------------------------


def forged(key: Key, algorithm: str, secret: Any) -> str:
    """The claims of a good token, signed in a way that anybody can."""
    claims = jwt.decode(key.token(), options={"verify_signature": False})
    return jwt.encode(claims, secret, algorithm=algorithm, headers={"kid": key.kid})


def hs256_with_the_public_key(key: Key) -> str:
    """As an attacker makes it, who hopes that the public key is taken for a shared secret."""
    import hashlib
    import hmac

    def part(data: bytes) -> bytes:
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    header = part(json.dumps({"alg": "HS256", "typ": "JWT", "kid": key.kid}).encode())
    body = key.token().split(".")[1].encode()
    signature = hmac.new(key.public_pem.encode(), header + b"." + body, hashlib.sha256).digest()
    return b".".join((header, body, part(signature))).decode()


REFUSED = {
    "no token at all": (lambda _: "", 400),
    "no token but something": (lambda _: "abc", 401),
    "a key nobody registered": (lambda key: replace(key, kid="nobody").token(), 401),
    "a name no key can have": (lambda key: replace(key, kid="a\0b\ud800").token(), 401),
    "no key named": (lambda key: jwt.encode({"exp": 2**40}, key.private_pem, algorithm="EdDSA"), 400),
    "another key's signature": (lambda key: replace(register(key.service, f"k-{uuid4()}"), kid=key.kid).token(), 401),
    "no signature": (lambda key: forged(key, "none", None), 401),
    "the public key as a shared secret": (hs256_with_the_public_key, 401),
    "a token that is over": (lambda key: key.token(ends_at=key.service.clock.now() - timedelta(minutes=2)), 401),
    "a token that never ends": (lambda key: key.token(exp=...), 401),
    "a token that ends at no number": (lambda key: key.token(exp=float("nan")), 401),
    "a token that begins later": (lambda key: key.token(nbf=2**40), 401),
    "a wildcard among its scopes": (lambda key: key.token(scopes={"org": "*"}), 403),
    "a wildcard beside what it needs": (lambda key: key.token(scopes={"org": "1", "project": "*"}), 403),
    "a wildcard as its use case": (lambda key: key.token(use_case="*"), 403),
    "no use case": (lambda key: key.token(res={"org": "1"}), 401),
    "a scope that is no text": (lambda key: key.token(scopes={"org": 1}), 401),
    "no scopes": (lambda key: key.token(res="org=1"), 401),
    "a permission nobody knows": (lambda key: key.token(permissions=["object.read", "object.burn"]), 401),
    "permissions that are none": (lambda key: key.token(permissions=[{"a": []}]), 401),
    "somebody else's audience": (lambda key: key.token(aud="mail"), 401),
    "somebody else's issuer": (lambda key: key.token(iss="mallory"), 401),
    "other scopes": (lambda key: key.token(scopes={"org": "2"}), 403),
    "one scope too few": (lambda key: key.token(scopes={"project": "1"}), 403),
    "another use case": (lambda key: key.token(use_case="others"), 403),
    "no permission": (lambda key: key.token(permissions=[]), 403),
}


@pytest.mark.parametrize("case", REFUSED)
def test_whoever_may_not_learns_nothing_and_changes_nothing(service: Service, key: Key, case: str) -> None:
    make, status = REFUSED[case]
    put(key, "guarded")
    token = make(key)
    headers = {"x-os-auth": f"Bearer {token}"} if token else {}
    answers = [
        service.http.request(method, path_of(name), headers=headers)
        for name in ("guarded", "never-was")
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH")
    ]
    assert {answer.status_code for answer in answers} == {status}, [answer.text for answer in answers]
    assert [answer.content for answer in answers[:5]] == [answer.content for answer in answers[5:]]
    assert key.ask("GET", path_of("guarded")).content == b"0123456789"


def test_a_token_may_say_more_scopes_than_the_address_needs_and_name_us(key: Key) -> None:
    put(key, "more")
    token = key.token(scopes={"org": "1", "project": "9"}, aud="objectstore", iss="relay")
    assert key.ask("GET", path_of("more"), token).status_code == 200


@pytest.mark.parametrize(
    ("permission", "methods"),
    [
        ("object.read", {"GET", "HEAD"}),
        ("object.write", {"PUT", "PATCH"}),
        ("object.delete", {"DELETE"}),
    ],
)
def test_each_permission_allows_what_it_says(key: Key, permission: str, methods: set[str]) -> None:
    put(key, "permitted", **{"x-sn-expiration": "ttl:1d"})
    body = json.dumps({"extend_expiry": {"after": "1h", "from": "now"}}).encode()
    for method in ("GET", "HEAD", "PUT", "PATCH", "DELETE"):
        answer = key.ask(method, path_of("permitted"), key.token(permissions=[permission]), content=body)
        assert (answer.status_code != 403) is (method in methods), method


def test_a_key_may_no_more_than_it_is_registered_for(service: Service, key: Key) -> None:
    reader = register(service, "reader", scopes=["org=1;project=*", "team=a;*"], permissions=["object.read"])

    def asked(method: str, scopes: dict[str, str]) -> int:
        place = "/v1/objects/testing/" + (";".join(f"{name}={value}" for name, value in scopes.items()) or "_")
        return reader.ask(method, f"{place}/k", reader.token(scopes=scopes)).status_code

    assert asked("GET", {"org": "1", "project": "2"}) == 404
    assert asked("GET", {"team": "a"}) == 404
    assert asked("GET", {"team": "a", "org": "2", "deep": "er"}) == 404
    assert asked("PUT", {"org": "1", "project": "2"}) == 403, "the token says write, the key does not"
    assert asked("GET", {"org": "1"}) == 403
    assert asked("GET", {"project": "2", "org": "1"}) == 403, "the order of scopes is part of the place"
    assert asked("GET", {"org": "1", "project": "2", "more": "3"}) == 403
    assert asked("GET", {"org": "2", "project": "2"}) == 403
    assert asked("GET", {"team": "b"}) == 403
    assert asked("GET", {}) == 403


def test_a_revoked_key_is_refused_from_then_on(service: Service) -> None:
    key = register(service, "to-be-revoked")
    token = key.token()
    put(key, "kept")
    keys.revoke(service.resources, "to-be-revoked")
    assert key.ask("GET", path_of("kept"), token).status_code == 401


def test_tokens_are_found_where_clients_put_them(service: Service, key: Key) -> None:
    put(key, "found")
    token = key.token()

    def asked(query: str = "", **headers: str) -> int:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        return service.http.get(path_of("found") + query, headers=sent).status_code

    assert asked(x_os_auth=f"Bearer {token}") == 200
    assert asked(x_os_auth=f"bEARER {token}") == 200
    assert asked(authorization=f"Bearer {token}") == 200
    assert asked(f"?os_auth={token}") == 200
    assert asked(f"?os_auth={token}", x_os_auth="Basic abc") == 200
    assert asked(x_os_auth=token, authorization=f"Bearer {token}") == 400, "a chosen header does not fall through"
    assert asked("?os_auth=wrong", authorization=f"Bearer {token}") == 200, "a header beats the query"
    assert asked(f"?os_auth={token}", authorization="Bearer wrong") == 401


def test_tokens_of_keys_do_not_reach_snapshots_and_upload_tokens_no_objects(service: Service, key: Key) -> None:
    project = service.new_project()
    session = project.session()
    session.upload(png("image"))
    scopes = {"org": str(project.org_id), "project": str(project.id)}
    token = key.token(use_case="preprod", scopes=scopes)
    assert key.ask("GET", session.path(sha(png("image"))), token).status_code == 401
    assert key.ask("DELETE", session.path(sha(png("image"))), token).status_code == 401
    for path in (path_of("k"), "/v1/objects:multipart/testing/org=1/k"):
        assert session.ask("PUT", path, content=b"x").status_code == 403
    assert session.ask("POST", "/v1/objects:batch/testing/org=1/", content=b"x").status_code == 403
    assert key.ask("GET", f"{project.snapshots_path}upload-options/").status_code == 401


def test_no_page_and_no_list_shows_where_objects_are_kept(service: Service, key: Key) -> None:
    put(key, "hidden")
    for path in ("/api/0/projects/0-objects/0-objects/", "/api/0/projects/0/0/"):
        options = service.http.get(
            f"{path}preprodartifacts/snapshots/upload-options/", headers={"authorization": f"Bearer {service.admin}"}
        )
        assert options.status_code == 404
    with service.signed_in(service.admin) as browser:
        assert "0-objects" not in browser.get("/").text


# --- Reading -----------------------------------------------------------------------------------------------------------


def test_headers_are_lower_case_and_an_object_does_no_harm_on_this_host(service: Service, key: Key) -> None:
    put(
        key, "page.html", b"<script>alert(1)</script>", **{"content-type": "text/html", "x-sn-filename": 'a"/b%0A.html'}
    )
    request = f"GET {path_of('page.html')} HTTP/1.1\r\nhost: x\r\nconnection: close\r\nx-os-auth: Bearer {key.token()}"
    head, _, body = raw(service, request.encode() + b"\r\n\r\n").partition(b"\r\n\r\n")
    lines = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
    assert body == b"<script>alert(1)</script>"
    assert all(name == name.lower() for name in lines)
    assert lines["content-type"] == "text/html"
    assert "sandbox" in lines["content-security-policy"]
    assert lines["x-content-type-options"] == "nosniff"
    assert lines["content-disposition"] == 'attachment; filename="a\\"-b-.html"'
    assert lines["x-sn-filename"] == 'a"/b%0A.html'
    assert lines["accept-ranges"] == "bytes"
    assert "retry-after" not in lines


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("ttl:30days", "ttl:30d"),
        ("ttl:2months 29days 2h 52m 48s", "ttl:90d"),
        ("ttl:11months 30days 3h 50m 24s", "ttl:365d"),
        ("tti:1year 1month 7h 26m 24s", "tti:396d"),
        ("ttl:1day 12h", "ttl:1d 12h"),
        ("ttl:30 days 3600 seconds", "ttl:30d 1h"),
        ("ttl:1h 500ms", "ttl:1h"),
        ("manual", None),
    ],
)
def test_expirations_are_told_in_units_every_client_reads(key: Key, sent: str, shown: str | None) -> None:
    put(key, "expiring", **{"x-sn-expiration": sent})
    answer = key.ask("HEAD", path_of("expiring"))
    assert answer.status_code == 204
    assert answer.headers.get("x-sn-expiration") == shown
    assert ("x-sn-time-expires" in answer.headers) is (shown is not None)


def test_an_object_of_no_lifetime_is_over_at_once(key: Key) -> None:
    put(key, "at once", **{"x-sn-expiration": "ttl:0s"})
    assert key.ask("GET", path_of("at once")).status_code == 404


@pytest.mark.parametrize(
    ("header", "status", "content", "content_range"),
    [
        ("bytes=0-3", 206, b"0123", "bytes 0-3/10"),
        ("BYTES=4-", 206, b"456789", "bytes 4-9/10"),
        ("bytes=-3", 206, b"789", "bytes 7-9/10"),
        ("bytes=-99", 206, b"0123456789", "bytes 0-9/10"),
        ("bytes=8-99", 206, b"89", "bytes 8-9/10"),
        ("bytes=0-0", 206, b"0", "bytes 0-0/10"),
        ("bytes=0-1,4-5", 200, b"0123456789", None),
        ("bytes=10-", 416, b"", "bytes */10"),
        ("bytes=5-2", 400, None, None),
        ("bytes=-0", 400, None, None),
        ("bytes=-", 400, None, None),
        ("lines=1-2", 400, None, None),
        ("bytes=a-b", 400, None, None),
    ],
)
def test_a_range_of_an_object(
    key: Key, header: str, status: int, content: bytes | None, content_range: str | None
) -> None:
    put(key, "ranged")
    answer = key.ask("GET", path_of("ranged"), headers={"range": header})
    assert answer.status_code == status
    assert answer.headers.get("content-range") == content_range
    if content is not None:
        assert answer.content == content
        assert answer.headers["content-length"] == str(len(content))
    else:
        assert "range" in answer.json()["detail"]


def test_a_range_of_nothing(key: Key) -> None:
    put(key, "nothing", b"")
    for header in ("bytes=0-", "bytes=-1"):
        answer = key.ask("GET", path_of("nothing"), headers={"range": header})
        assert (answer.status_code, answer.headers["content-range"]) == (416, "bytes */0")
    assert key.ask("GET", path_of("never-was"), headers={"range": "bytes=0-"}).status_code == 404


# --- Batches -----------------------------------------------------------------------------------------------------------


Step = tuple[str, str | None, bytes, dict[str, str]]


def batch(key: Key, steps: list[Step], token: str | None = None) -> list[Part]:
    boundary = uuid4().hex
    body = b""
    for kind, name, data, headers in steps:
        lines = {"content-disposition": 'form-data; name="part"', "x-sn-batch-operation-kind": kind} | headers
        if name is not None:
            lines["x-sn-batch-operation-key"] = quote(name, safe="")
        told = "".join(f"{header}: {value}\r\n" for header, value in lines.items())
        body += f"--{boundary}\r\n{told}\r\n".encode() + data + b"\r\n"
    answer = key.ask(
        "POST",
        "/v1/objects:batch/testing/org=1/",
        token,
        content=body + f"--{boundary}--\r\n".encode(),
        headers={"content-type": f"multipart/form-data; boundary={boundary}"},
    )
    return sorted(parts_of(answer), key=lambda part: part.index)


def test_a_batch_is_carried_out_in_its_order(key: Key) -> None:
    parts = batch(
        key,
        [
            ("head", "b/one é", b"", {}),
            ("insert", "b/one é", b"old", {"content-type": "text/plain"}),
            (
                "insert",
                "b/one é",
                b"one",
                {"content-type": "text/plain", "x-snme-a": "b", "x-sn-expiration": "ttl:1day"},
            ),
            ("insert", "b/two", b"two", {"content-encoding": "zstd"}),
            ("put", "b/x", b"", {}),
            ("get", "b/one é", b"", {}),
            ("head", "b/two", b"", {}),
            ("delete", "b/two", b"", {}),
            ("get", "b/two", b"", {}),
            ("delete", "b/two", b"", {}),
            ("insert", None, b"three", {}),
            ("insert", "b/bad", b"", {"x-sn-expiration": "ttl:soon"}),
            ("get", None, b"", {}),
        ],
    )
    codes = [part.code for part in parts]
    assert codes == [404, 201, 201, 201, 400, 200, 204, 204, 404, 204, 201, 400, 400]
    got, head, made = parts[5], parts[6], parts[10]
    assert got.body == b"one"
    assert got.headers["content-type"] == "text/plain"
    assert (got.headers["x-snme-a"], got.headers["x-sn-expiration"]) == ("b", "ttl:1d")
    assert got.headers["x-sn-batch-operation-key"] == quote("b/one é", safe="")
    assert (head.headers["content-encoding"], head.headers["x-sn-size"]) == ("zstd", "3")
    assert "x-sn-expiration" in json.loads(parts[11].body)["detail"]
    named = key.ask("GET", path_of(made.headers["x-sn-batch-operation-key"]))
    assert named.content == b"three"


def test_a_thousand_objects_in_a_batch_are_all_there(key: Key) -> None:
    names = [f"many/{number}" for number in range(1000)]
    stored = batch(key, [("insert", name, name.encode(), {}) for name in names])
    assert {part.code for part in stored} == {201}
    got = batch(key, [("get", name, b"", {}) for name in names])
    assert [part.body for part in got] == [name.encode() for name in names]
    gone = batch(key, [("delete", name, b"", {}) for name in names])
    assert {part.code for part in gone} == {204}
    assert {part.code for part in batch(key, [("head", name, b"", {}) for name in names])} == {404}


def test_what_a_token_may_not_do_fails_part_by_part(key: Key) -> None:
    put(key, "batched")
    steps: list[Step] = [
        ("get", "batched", b"", {}),
        ("insert", "batched", b"x", {}),
        ("delete", "batched", b"", {}),
    ]
    allowed = {"object.read": 200, "object.write": 201, "object.delete": 204}
    for place, (permission, code) in enumerate(allowed.items()):
        parts = batch(key, steps, key.token(permissions=[permission]))
        assert [part.code for part in parts] == [code if part.index == place else 403 for part in parts]
    assert {part.code for part in batch(key, steps, key.token(scopes={"org": "2"}))} == {403}


def test_a_batch_that_is_none_is_refused_as_a_whole(key: Key) -> None:
    path = "/v1/objects:batch/testing/org=1/"
    assert key.ask("POST", path, content=b"x").status_code == 400
    broken = {"content-type": "multipart/form-data; boundary=b"}
    assert key.ask("POST", path, content=b"--c\r\n", headers=broken).status_code == 400
    assert key.ask("POST", "/v1/objects:batch/testing/org/", content=b"x", headers=broken).status_code == 400


# --- What is refused ------------------------------------------------------------------------------------------------------


BAD_HEADERS = [
    ("x-sn-expiration", "ttl:90"),
    ("x-sn-expiration", "TTL:90d"),
    ("x-sn-expiration", "ttl:1mo"),
    ("x-sn-expiration", "ttl:1d,2h"),
    ("x-sn-expiration", "ttl:-1d"),
    ("x-sn-expiration", "ttl:"),
    ("x-sn-expiration", "ttl:101y"),
    ("x-sn-expiration", "ttl:999999999999999999y"),
    ("x-sn-expiration", "forever"),
    ("content-type", "nonsense"),
    ("content-type", "text/plain; charset"),
    ("content-encoding", "gzip"),
    ("x-sn-filename", "caf\xe9"),
    ("x-sn-filename", "%ff"),
    ("x-sn-origin", "a\tb"),
    ("x-snme-", "nameless"),
    ("x-snme-long", "x" * 9000),
]


@pytest.mark.parametrize(("name", "value"), BAD_HEADERS)
def test_a_header_that_makes_no_sense_is_named_and_nothing_is_kept(
    service: Service, key: Key, before: Kept, name: str, value: str
) -> None:
    headers = [(b"x-os-auth", b"Bearer " + key.token().encode()), (name.encode(), value.encode("latin-1"))]
    answer = service.http.put(path_of("bad"), content=b"x", headers=headers)
    assert answer.status_code == 400
    assert name in answer.json()["detail"]
    service.settle()
    assert service.kept() == before


@pytest.mark.parametrize(
    "scopes", ["org", "org=", "=1", "org=1;", "org=1;org=2", "org=a.b", "org=%2F", "org=1;;p=2", "org=" + "x" * 600]
)
def test_scopes_that_are_none_are_refused(key: Key, scopes: str) -> None:
    token = key.token(scopes={"org": "1"})
    answer = key.ask("PUT", f"/v1/objects/testing/{scopes}/k", token, content=b"x")
    assert answer.status_code in (400, 403)
    assert key.ask("POST", f"/v1/objects/testing/{scopes}/", token, content=b"x").status_code in (400, 404, 405)


@pytest.mark.parametrize(
    "name", ["%0A", "a%0Ab", "a%00b", "a%7Fb", "a%C2%85b", "%FF", "a%C3", "x" * 1025, "%F0%9F%98%80" * 257]
)
def test_keys_that_cannot_be_are_refused(service: Service, key: Key, before: Kept, name: str) -> None:
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        answer = key.ask(method, f"{PLACE}/{name}", content=b"x" if method == "PUT" else None)
        assert answer.status_code == 400
        assert method == "HEAD" or "key" in answer.json()["detail"]
    (part,) = batch(key, [("head", "a\nb", b"", {})])
    assert part.code == 400
    service.settle()
    assert service.kept() == before


@pytest.mark.parametrize("use_case", ["ab", "x" * 65, "a.b", "a%20b", "%00abc"])
def test_use_cases_that_cannot_be_are_refused(key: Key, use_case: str) -> None:
    assert key.ask("GET", f"/v1/objects/{use_case}/org=1/k").status_code == 400


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b"{}",
        b'{"extend_expiry": 1}',
        b'{"extend_expiry": {}}',
        b'{"extend_expiry": {"after": "1d"}}',
        b'{"extend_expiry": {"after": "1d", "from": "then"}}',
        b'{"extend_expiry": {"after": "soon", "from": "now"}}',
        b'{"extend_expiry": {"after": "101y", "from": "now"}}',
        b'{"extend_expiry": {"at": "2027-01-02T03:04:05"}}',
        b'{"extend_expiry": {"at": "9999-01-02T03:04:05Z"}}',
        b'{"extend_expiry": {"at": "0001-01-01T00:00:00+23:59", "after": "1d"}}',
        b"[" * 10000,
    ],
)
def test_an_extension_that_makes_no_sense_is_refused(key: Key, body: bytes) -> None:
    put(key, "extended", **{"x-sn-expiration": "ttl:1d"})
    answer = key.ask("PATCH", path_of("extended"), content=body)
    assert answer.status_code == 400
    assert set(answer.json()) == {"detail"}


UPLOADS, PARTS, COMPLETE = (
    f"/v1/{name}/testing/org=1/m"
    for name in ("objects:multipart", "objects:multipart:parts", "objects:multipart:complete")
)


def test_a_multipart_request_that_makes_no_sense_is_refused(key: Key) -> None:
    begun = key.ask("PUT", UPLOADS).json()["upload_id"]
    here = f"?upload_id={begun}"

    def asked(method: str, path: str, **options: Any) -> int:
        return key.ask(method, path, **options).status_code

    assert asked("PUT", f"{PARTS}{here}&part_number=0", content=b"x") == 400
    assert asked("PUT", f"{PARTS}{here}&part_number=10001", content=b"x") == 400
    assert asked("PUT", f"{PARTS}{here}&part_number=x", content=b"x") == 400
    assert asked("PUT", f"{PARTS}{here}", content=b"x") == 400
    assert asked("PUT", f"{PARTS}?part_number=1", content=b"x") == 400
    assert asked("PUT", f"{PARTS}{here}&part_number=1", content=iter([b"x"])) == 400, "it has no content-length"
    assert asked("PUT", f"{PARTS}{here}&part_number=1", content=b"x", headers={"content-md5": "x"}) == 400
    for foreign in (str(uuid4()), "x", "a" * 5000):
        assert asked("PUT", f"{PARTS}?upload_id={foreign}&part_number=1", content=b"x") == 404
        assert asked("GET", f"{PARTS}?upload_id={foreign}") == 404
        assert asked("POST", f"{COMPLETE}?upload_id={foreign}", content=b'{"parts": []}') == 404
        assert asked("DELETE", f"{UPLOADS}?upload_id={foreign}") == 404
    for malformed in ("", "/etc", "../x"):
        assert asked("GET", f"{PARTS}?upload_id={malformed}") == 400
    for body in (
        b"",
        b"[]",
        b"{}",
        b'{"parts": 1}',
        b'{"parts": [1]}',
        b'{"parts": [{"part_number": "1", "etag": "x"}]}',
    ):
        assert asked("POST", f"{COMPLETE}{here}", content=body) == 400
    other = PARTS.replace("/m", "/other")
    assert asked("GET", f"{other}{here}") == 404, "an upload is for one key"
    assert key.ask("GET", f"{PARTS}{here}", key.token(permissions=["object.read"])).status_code == 403
    assert key.ask("PUT", UPLOADS, headers={"x-sn-expiration": "ttl:soon"}).status_code == 400
    assert asked("DELETE", f"{UPLOADS}{here}") == 204


def test_the_wrong_method_or_a_missing_key_is_told_as_such(key: Key) -> None:
    assert key.ask("PUT", f"{PLACE}/", content=b"x").status_code == 405
    assert key.ask("GET", f"{PLACE}/").status_code == 405
    assert key.ask("POST", f"{PLACE}/k", content=b"x").status_code == 405


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda query: query.replace("os_kid=ours", "os_kid=nobody"), 401),
        (lambda query: query.replace("os_kid=ours", "os_kid=%00"), 401),
        (lambda query: query.replace("os_kid=ours&", ""), 400),
        (lambda query: query.replace("os_duration=60", "os_duration=604801"), 400),
        (lambda query: query.replace("os_duration=60", "os_duration=-1"), 400),
        (lambda query: query.replace("os_duration=60", "os_duration=x"), 400),
        (lambda query: query.replace("os_timestamp=2", "os_timestamp=x"), 400),
        (lambda query: query.replace("Z&", "&"), 400),
        (lambda query: query + "é", 400),
        (lambda query: query[:-1], 400),
        (lambda query: query + "&more=1", 401),
    ],
)
def test_a_pre_signed_address_that_was_changed_is_refused(service: Service, key: Key, change: Any, status: int) -> None:
    put(key, "signed")
    assert service.http.get(f"{path_of('signed')}?{signed(key, path_of('signed'))}").status_code == 200
    query = change(signed(key, path_of("signed")))
    assert service.http.get(f"{path_of('signed')}?{query}").status_code == status


def signed(key: Key, path: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(key.private_pem.encode(), None)
    assert isinstance(private, Ed25519PrivateKey)
    at = key.service.clock.now().strftime("%Y-%m-%dT%H:%M:%SZ")
    query = f"os_duration=60&os_kid={key.kid}&os_timestamp={at}"
    signature = private.sign(f"GET\n{path}\n{query}".encode())
    return f"{query}&os_sig={base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"


def test_a_pre_signed_address_reaches_no_further_than_its_key(service: Service, key: Key) -> None:
    put(key, "out of reach")
    narrow = register(service, "narrow", scopes=["org=2"])
    writer = register(service, "writer", permissions=["object.write"])
    for somebody in (narrow, writer):
        path = path_of("out of reach")
        answer = service.http.get(f"{path}?{signed(somebody, path)}")
        assert answer.status_code == 403
        missing = path_of("never-was")
        assert service.http.get(f"{missing}?{signed(somebody, missing)}").content == answer.content


def test_the_numbers_scalers_ask_for_are_those_of_the_metrics(service: Service) -> None:
    answer = service.http.get("/keda")
    assert answer.status_code == 200
    assert "snapshed_objects" in answer.text


def test_when_the_store_is_down_nothing_is_kept_and_no_client_is_told_to_wait(service: Service, key: Key) -> None:
    service.settle()
    before = service.kept()
    aside = service.objects.with_name("aside")
    service.objects.rename(aside)
    service.objects.write_bytes(b"")  # no folder, so that nothing can be stored in it
    try:
        answers: list[httpx.Response] = [
            key.ask("PUT", path_of("down"), content=b"x"),
            key.ask("POST", f"{PLACE}/", content=b"x"),
        ]
        (part,) = batch(key, [("insert", "down", b"x", {})])
    finally:
        service.objects.unlink()
        aside.rename(service.objects)
    assert [answer.status_code for answer in answers] == [503, 503]
    assert part.code == 503
    assert all("retry-after" not in answer.headers for answer in answers)
    service.settle()
    assert service.kept() == before
    assert service.rows("SELECT count(*) FROM session WHERE project_id = 0") == [(0,)]
    assert set(PERMISSIONS) == {"object.read", "object.write", "object.delete"}
