"""The client's side of HTTP: one server, one token, and answers turned into our errors.

The token is sent to that server and shown nowhere.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType
from typing import Any, Self, cast
from urllib.parse import quote, urlsplit

import httpx

from snapshed import __version__, errors
from snapshed.cli.terminal import printable
from snapshed.errors import Broken, Invalid, MissingImages, PlanChanged, SnapshedError, Unavailable
from snapshed.settings import Secret

_WAITS = (1.0, 1.5, 2.2, 3.4, 5.0)
"""Seconds before each repetition of a request that may be repeated: about thirteen in all."""

_LATER = frozenset({429, 502, 503, 504, 507, 524})
_REFUSED: dict[int, type[errors.Refused]] = {
    401: errors.Unauthenticated,
    403: errors.Forbidden,
    404: errors.NotFound,
    409: errors.Conflict,
    413: errors.TooLarge,
    501: errors.Unsupported,
}

Document = dict[str, Any]
"""A JSON object as it came from the server."""

Content = Callable[[], bytes | Iterable[bytes]]
"""Gives a request's body afresh for every attempt."""


class Server:
    """One Snapshed server as one organization's token sees it. May be shared between threads."""

    def __init__(self, url: str, org: str, token: Secret, *, use_proxies: bool = True) -> None:
        self.url = url
        self.org = org
        self._token = token
        self._http = httpx.Client(
            headers={"user-agent": f"snapshed/{__version__}"},
            # Creating a snapshot of tens of thousands of images takes a while; connecting does not.
            timeout=httpx.Timeout(300, connect=10),
            limits=httpx.Limits(keepalive_expiry=60),
            trust_env=use_proxies,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def page(self, number: str) -> str:
        """The address of a snapshot's page."""
        return f"{self.url}/snapshots/{number}"

    def get(self, path: str, **query: str) -> Document:
        """Read one JSON object of this organization."""
        return document(self._api("GET", f"organizations/{quote(self.org, safe='')}/{path}", query))

    def get_of_project(self, project: str, path: str, **query: str) -> Document:
        """Read one JSON object of a project."""
        return document(self._api("GET", self._of_project(project, path), query))

    def stream(self, path: str, **query: str) -> Iterator[bytes]:
        """The bytes of an answer of this organization, in pieces. Raises Unavailable also when it breaks off."""
        address = f"{self.url}/api/0/organizations/{quote(self.org, safe='')}/{path}"
        headers = {"authorization": f"Bearer {self._token}"}
        try:
            with self._http.stream("GET", address, headers=headers, params=query) as response:
                if not response.is_success:
                    response.read()
                    raise self._failure(response)
                yield from response.iter_bytes()
        except httpx.TransportError:
            raise Unavailable(f"{self.url} cannot be reached, or broke off.") from None

    def post(self, path: str, body: Mapping[str, object]) -> Document:
        """Send a JSON object; repeated when the server asks for patience, so the request must bear repeating."""
        return document(
            self._api("POST", f"organizations/{quote(self.org, safe='')}/{path}", {}, json.dumps(body).encode())
        )

    def post_to_project(self, project: str, path: str, body: bytes, extra: Mapping[str, str]) -> Document:
        """Send a JSON text to a project, with `extra` headers; repeated like `post`."""
        return document(self._api("POST", self._of_project(project, path), {}, body, extra))

    def put_to_project(self, project: str, path: str, body: bytes, extra: Mapping[str, str]) -> Document:
        """Put a JSON text in a place of a project; repeated like `post`."""
        return document(self._api("PUT", self._of_project(project, path), {}, body, extra))

    def _of_project(self, project: str, path: str) -> str:
        return f"projects/{quote(self.org, safe='')}/{quote(project, safe='')}/{path}"

    def _api(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        extra: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        headers = {"authorization": f"Bearer {self._token}", **(extra or {})}
        content: Content | None = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = partial(bytes, body)
        address = f"{self.url}/api/0/{path}"
        return self.send(method, address, headers, content, query=query, repeat=body is not None)

    def send(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str],
        content: Content | None = None,
        *,
        query: Mapping[str, str] | None = None,
        repeat: bool = False,
    ) -> httpx.Response:
        """One request; with `repeat` up to five more while the server is not available. Raises the answer's error."""
        for wait in _WAITS if repeat else ():
            try:
                return self._once(method, address, headers, content, query)
            except Unavailable:
                time.sleep(wait)
        return self._once(method, address, headers, content, query)

    def _once(
        self,
        method: str,
        address: str,
        headers: Mapping[str, str],
        content: Content | None,
        query: Mapping[str, str] | None,
    ) -> httpx.Response:
        try:
            response = self._http.request(
                method, address, headers=dict(headers), content=content() if content else None, params=query or None
            )
        except httpx.TimeoutException:
            raise Unavailable(f"{self.url} did not answer in time.") from None
        except httpx.TransportError:
            raise Unavailable(f"{self.url} cannot be reached.") from None
        except (httpx.HTTPError, httpx.InvalidURL):
            raise Unavailable(f"{self.url} did not answer as HTTP asks for.") from None
        if response.is_success:
            return response
        raise self._failure(response)

    def _failure(self, response: httpx.Response) -> SnapshedError:
        status = response.status_code
        if response.is_redirect:
            return Invalid(f"{self.url} says that it is served elsewhere now; give its new address with --url.")
        fields = _fields(response)
        if status == 401 and "x-os-auth" not in response.request.headers:
            return errors.Unauthenticated(f"{self.url} does not accept this token; `snapshed token add` makes one.")
        if status == 409 and fields.get("missing"):
            return MissingImages(items(fields, "missing"))
        if status == 409 and "plan" in fields:
            return PlanChanged(str(fields["plan"]), inner(fields, "difference"))
        return failure(status, fields.get("detail"), self.url)


def failure(status: int, detail: object, who: str) -> SnapshedError:
    """The error that an answer stands for; `detail` is the server's sentence, if it gave one."""
    sentence = printable(str(detail)) if detail else f"{who} answered with the status {status}."
    if status in _LATER:
        return Unavailable(sentence)
    if 500 <= status != 501:
        return Broken(sentence)
    return _REFUSED.get(status, Invalid)(sentence)


def document(response: httpx.Response) -> Document:
    """The JSON object of an answer. Raises Invalid for anything else: then it is not our server that answers."""
    try:
        value: object = response.json()
    except ValueError:
        value = None
    if not isinstance(value, dict):
        host = urlsplit(str(response.request.url)).netloc
        raise Invalid(f"{host} does not answer like a Snapshed server; check the address.")
    return cast("Document", value)


def inner(whole: Mapping[str, Any], name: str) -> Document:
    """The object under a name; an empty one if there is none."""
    value = whole.get(name)
    return cast("Document", value) if isinstance(value, dict) else {}


def items(whole: Mapping[str, Any], name: str) -> list[Any]:
    """The list under a name; an empty one if there is none."""
    value = whole.get(name)
    return cast("list[Any]", value) if isinstance(value, list) else []


def _fields(response: httpx.Response) -> Document:
    try:
        value: object = response.json()
    except ValueError:
        return {}
    return cast("Document", value) if isinstance(value, dict) else {}


# --- Who to ask, and as whom -----------------------------------------------------------------------------------------


def server_of(token: str | None, url: str | None, *, use_proxies: bool = True) -> Server:
    """The server that a token belongs to, at `url` if one is given. Raises Invalid."""
    if not token or not token.strip():
        raise Invalid("No token was given; set SNAPSHED_TOKEN or give --token. `snapshed token add` makes one.")
    facts = token_facts(token.strip())
    chosen = (url or str(facts["url"])).strip().rstrip("/")
    parts = urlsplit(chosen)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise Invalid(
            f"{printable(chosen)!r} is no address of a server; give one such as https://snapshots.example.com."
        )
    return Server(chosen, str(facts["org"]), Secret(token.strip()), use_proxies=use_proxies)


def token_facts(token: str) -> dict[str, Any]:
    """What an organization token says about itself: `url` and `org` at least. Raises Invalid without showing it."""
    wrong = Invalid(
        "The token is not an organization token (sntrys_…); copy it again, or make one: `snapshed token add`."
    )
    prefix, _, rest = token.partition("_")
    packed, _, secret = rest.partition("_")
    if prefix != "sntrys" or not secret or not token.isascii() or not token.isprintable() or " " in token:
        raise wrong
    try:
        facts: object = json.loads(base64.b64decode(packed, validate=True))
    except (ValueError, RecursionError):
        raise wrong from None
    if not isinstance(facts, dict):
        raise wrong
    known = cast("dict[str, Any]", facts)
    if not isinstance(known.get("url"), str) or not isinstance(known.get("org"), str) or not known["org"]:
        raise wrong
    return known
