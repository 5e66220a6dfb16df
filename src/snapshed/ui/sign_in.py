"""Signing in with a token, signing out, and what people see when something is refused.

The token itself is never kept, shown or logged; the browser gets a cookie of its own that ends after two weeks.
"""

from __future__ import annotations

import secrets
from urllib.parse import quote, urlsplit

from fastapi import APIRouter, Request, Response

from snapshed.auth import COOKIE, Reader, Res, address_of, browser_of, check_csrf
from snapshed.errors import Forbidden, Unauthenticated
from snapshed.ui.forms import Form
from snapshed.ui.rendering import page, redirect
from snapshed.work import access

_FORM_COOKIE = "snapshed_form"
"""Carries the CSRF word of the sign-in form, since there is no session yet to keep it."""

_LIFE_SECONDS = 14 * 86400
_HEADINGS = {
    400: "That could not be read",
    401: "Please sign in",
    403: "That is not allowed",
    404: "There is nothing here",
    405: "That cannot be done here",
    409: "Things have changed",
    413: "That is too large",
    503: "Please try again in a moment",
}

router = APIRouter(include_in_schema=False)


def local_path(text: str | None) -> str:
    """A path on this very server, or `/`: nobody is sent elsewhere after signing in.

    >>> local_path("/snapshots/12?section=added"), local_path("//evil.example"), local_path("/\\\\evil.example")
    ('/snapshots/12?section=added', '/', '/')
    """
    if not text or not text.startswith("/") or text.startswith("//"):
        return "/"
    if "\\" in text or any(ord(letter) <= 32 or ord(letter) == 127 for letter in text) or len(text) > 2000:
        return "/"
    parts = urlsplit(text)
    return "/" if parts.scheme or parts.netloc else text


def error_page(request: Request, status: int, sentence: str) -> Response:
    """A refusal or failure as people see it; who is not signed in is asked to, and comes back here afterwards."""
    if status == 401 and request.method == "GET":
        here = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return redirect("/sign-in" if here == "/" else f"/sign-in?next={quote(local_path(here), safe='')}")
    heading = _HEADINGS.get(status, "That did not work")
    return page(request, "error.html", status, heading=heading, sentence=sentence)


@router.get("/sign-in")
def show(request: Request, resources: Res, next: str | None = None) -> Response:
    if browser_of(request, resources) is not None:
        return redirect(local_path(next))
    return _form(request, next)


@router.post("/sign-in")
def submit(request: Request, resources: Res, form: Form) -> Response:
    """Sign in with a token. A wrong one is told so on the same page."""
    _check_origin(request)
    word = request.cookies.get(_FORM_COOKIE, "")
    if not word or not secrets.compare_digest(word.encode(), form.get("csrf", "").encode()):
        return _form(request, form.get("next"), 403, "This form was too old. Please try once more.")
    try:
        secret = access.sign_in(resources, form.get("token", "").strip())
    except Unauthenticated:
        sentence = "This token is not known here, or it was revoked. Check that all of it was copied."
        return _form(request, form.get("next"), 401, sentence)
    return _signed_in(request, secret, local_path(form.get("next")))


@router.get("/sign-in/once/{secret}")
def once(request: Request, resources: Res, secret: str) -> Response:
    """Sign in with an address that works once: what a first start prints."""
    try:
        return _signed_in(request, access.sign_in_once(resources, secret), "/")
    except Unauthenticated as error:
        return _form(request, None, 401, str(error))


@router.post("/sign-out")
def leave(request: Request, resources: Res, reader: Reader, form: Form) -> Response:
    check_csrf(reader, form.get("csrf", ""))
    access.sign_out(resources, request.cookies[COOKIE])
    response = redirect("/sign-in")
    response.delete_cookie(COOKIE, path="/")
    return response


def _form(request: Request, target: str | None, status: int = 200, problem: str | None = None) -> Response:
    word = request.cookies.get(_FORM_COOKIE) or secrets.token_urlsafe(24)
    response = page(
        request,
        "sign_in.html",
        status,
        csrf=word,
        next=local_path(target),
        problem=problem,
        address=address_of(request),
    )
    response.set_cookie(
        _FORM_COOKIE, word, path="/sign-in", httponly=True, samesite="strict", secure=_is_https(request)
    )
    return response


def _signed_in(request: Request, secret: str, target: str) -> Response:
    response = redirect(target)
    response.set_cookie(
        COOKIE, secret, max_age=_LIFE_SECONDS, path="/", httponly=True, samesite="lax", secure=_is_https(request)
    )
    response.delete_cookie(_FORM_COOKIE, path="/sign-in")
    return response


def _is_https(request: Request) -> bool:
    return address_of(request).startswith("https:")


def _check_origin(request: Request) -> None:
    """Browsers say where a form comes from; programs say nothing. Only hosts are compared: a proxy may speak TLS."""
    origin = request.headers.get("origin")
    ours = {urlsplit(address_of(request)).netloc, request.headers.get("host", "")}
    if origin is not None and urlsplit(origin).netloc not in ours:
        raise Forbidden("This form came from another site; open the sign-in page here and try again.")
