"""The journeys a person makes through the pages, in a real browser, and what no page may ever do."""

from __future__ import annotations

import hashlib
import re

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from browser.service import HEAD_SHA, Service, png
from playwright.sync_api import Browser, Dialog, Page, expect

from snapshed.work import access, deletion, receipts

pytestmark = pytest.mark.browser

CHANGED = 8
"""How many of the sample pairs look different."""


def csrf_of(client: httpx.Client) -> str:
    found = re.search(r'name="csrf" value="([^"]+)"', client.get("/").text)
    assert found
    return found[1]


# --- Signing in ----------------------------------------------------------------------------------------------------


def test_a_newcomer_signs_in_with_a_token_and_sees_the_changed_pairs(service: Service, stranger: Page) -> None:
    _, head = service.samples()
    stranger.goto(f"/snapshots/{head}")
    expect(stranger).to_have_url(re.compile(r"/sign-in\?next=%2Fsnapshots%2F\d+$"))
    stranger.get_by_label("Token").fill(service.token)
    stranger.get_by_role("button", name="Sign in").click()
    expect(stranger).to_have_url(f"{service.address}/snapshots/{head}")
    expect(stranger.get_by_role("heading", level=1)).to_have_text(f"shop #{head}")
    expect(stranger.locator("#filters .is-changed")).to_have_text(f"{CHANGED} changed")
    expect(stranger.locator(".headline .pill")).to_have_text("Needs review")


def test_a_wrong_token_is_told_so_and_signs_nobody_in(service: Service, stranger: Page) -> None:
    stranger.goto("/sign-in")
    stranger.get_by_label("Token").fill("sntrys_wrong")
    with stranger.expect_response("**/sign-in") as answer:
        stranger.get_by_role("button", name="Sign in").click()
    assert answer.value.status == 401
    expect(stranger.get_by_role("alert")).to_contain_text("not known here")
    assert not [cookie for cookie in stranger.context.cookies() if cookie["name"] == "snapshed"]


def test_an_address_that_signs_in_once_works_once(service: Service) -> None:
    first = httpx.get(service.address + service.once)
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"].lower()
    assert all(word in cookie for word in ("httponly", "samesite=lax", "path=/", "max-age=1209600"))
    second = httpx.get(service.address + service.once)
    assert second.status_code == 401
    assert "has been used" in second.text


def test_nobody_and_a_foreign_cookie_are_asked_to_sign_in(service: Service) -> None:
    for cookies in ({}, {"snapshed": "not-a-secret"}):
        for path in ("/", "/snapshots/1", "/snapshots/1/delete", "/deletions", "/images/1/" + "a" * 64):
            answer = httpx.get(service.address + path, cookies=cookies)
            assert answer.status_code == 303
            assert answer.headers["location"].startswith("/sign-in")


@pytest.mark.parametrize("next", ["//evil.example", "/\\evil.example", "https://evil.example", "/\t/evil.example"])
def test_nobody_is_sent_elsewhere_after_signing_in(service: Service, next: str, anybody: httpx.Client) -> None:
    word = anybody.get("/sign-in").cookies["snapshed_form"]
    answer = anybody.post(
        "/sign-in",
        data={"csrf": word, "token": service.token, "next": next},
    )
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_the_sign_in_form_is_refused_from_another_site(service: Service) -> None:
    form = {"csrf": "word", "token": service.token}
    cookie = {"cookie": "snapshed_form=word"}
    foreign = httpx.post(service.address + "/sign-in", data=form, headers=cookie | {"origin": "https://evil.example"})
    without_cookie = httpx.post(service.address + "/sign-in", data=form)
    assert (foreign.status_code, without_cookie.status_code) == (403, 403)
    assert "snapshed=" not in str(foreign.headers) + str(without_cookie.headers)


def test_signing_out_ends_the_session(person: Page) -> None:
    person.goto("/")
    person.get_by_role("button", name="Sign out").click()
    expect(person).to_have_url(re.compile("/sign-in$"))
    person.goto("/")
    expect(person).to_have_url(re.compile("/sign-in$"))


# --- Looking and deciding ------------------------------------------------------------------------------------------


def test_without_javascript_every_changed_pair_is_visible(chromium: Browser, service: Service) -> None:
    _, head = service.samples()
    context = chromium.new_context(base_url=service.address, java_script_enabled=False)
    secret = access.sign_in(service.resources, service.token)
    context.add_cookies([{"name": "snapshed", "value": secret, "url": service.address}])
    page = context.new_page()
    page.goto(f"/snapshots/{head}")
    pairs = page.locator(".pair")
    expect(pairs).to_have_count(CHANGED)
    for pair in pairs.all():
        expect(pair.locator("img")).to_have_count(4)
        for image in pair.locator("img").all():
            image.scroll_into_view_if_needed()
            expect(image).to_be_visible()
    page.locator(".views").get_by_text("Overlay").click()
    expect(pairs.first.locator(".base")).to_be_hidden()
    expect(pairs.first.locator(".difference")).to_be_visible()
    context.close()


def test_the_largest_change_comes_first_and_every_group_is_named(service: Service, person: Page) -> None:
    _, head = service.samples()
    person.goto(f"/snapshots/{head}?view=plain")
    shares = [float(text.split()[0]) for text in person.locator(".about .share strong").all_text_contents()]
    assert shares == sorted(shares, reverse=True)
    chips = [" ".join(text.split()) for text in person.locator(".banner .chip").all_text_contents()]
    assert chips == ["8 changed", "1 removed", "1 added", "1 renamed", "33 unchanged"]
    expect(person.locator("#renamed")).to_contain_text("was components/notice-info.png")


def test_no_decision_without_the_scope_and_none_with_a_wrong_word(service: Service, client: httpx.Client) -> None:
    _, head = service.samples()
    wrong = client.post(f"/snapshots/{head}/decision", data={"csrf": "wrong", "decision": "approved"})
    assert wrong.status_code == 403
    reader = access.add_token(service.resources, "main", "main", "reader", ["read"], service.address)
    client.cookies.set("snapshed", access.sign_in(service.resources, reader))
    word = csrf_of(client)
    refused = client.post(f"/snapshots/{head}/decision", data={"csrf": word, "decision": "approved"})
    assert refused.status_code == 403
    assert "needs the scope review" in refused.text
    assert 'value="approved"' not in client.get(f"/snapshots/{head}").text


def test_a_snapshot_that_waits_says_so_and_looks_again(service: Service, client: httpx.Client) -> None:
    service.upload({"a.png": png((1, 2, 3))}, head_sha="a" * 40)
    waiting = service.upload({"a.png": png((3, 2, 1))}, head_sha="b" * 40, base_sha="a" * 40)
    lonely = service.upload({"a.png": png((9, 9, 9))}, head_sha="c" * 40, base_sha="d" * 40)
    answer = client.get(f"/snapshots/{waiting}")
    assert answer.headers["refresh"] == "3"
    assert "waits for a worker" in answer.text
    without = client.get(f"/snapshots/{lonely}")
    assert "refresh" not in without.headers
    assert "As soon as one arrives" in without.text


def test_an_image_nobody_can_read_is_shown_with_its_reason(service: Service, person: Page) -> None:
    service.upload({"a.png": png((1, 2, 3))}, head_sha="a" * 40)
    broken = service.upload({"a.png": b"no image at all"}, head_sha="b" * 40, base_sha="a" * 40)
    service.compare()
    person.goto(f"/snapshots/{broken}?view=plain")
    expect(person.locator("#errored-1")).to_contain_text("could not be read")
    expect(person.locator(".headline .pill")).to_have_text("Failed")


def test_long_sections_are_paged_by_name(service: Service, person: Page) -> None:
    base = {f"{number:03}.png": png((number % 256, number // 256, 7), 2, 2) for number in range(450)}
    service.upload(base, head_sha="a" * 40)
    head = base | {f"{number:03}.png": png((number % 256, number // 256, 99), 2, 2) for number in range(205)}
    number = service.upload(head, head_sha="b" * 40, base_sha="a" * 40)
    service.compare()
    person.goto(f"/snapshots/{number}?view=plain")
    expect(person.locator(".pair")).to_have_count(200)
    expect(person.locator("#unchanged .card").first).to_be_hidden()
    person.locator("#changed .pages").get_by_role("link", name="Next").click()
    expect(person.locator(".pair")).to_have_count(5)
    expect(person.locator(".pages")).to_contain_text("201–205 of 205")
    person.locator(".banner").get_by_role("link", name="unchanged").click()
    expect(person.locator(".card")).to_have_count(200)


def test_the_list_pages_from_newest_to_oldest(service: Service, person: Page) -> None:
    numbers = [service.upload({"a.png": png((number, 0, 0))}, head_sha=f"{number:040}") for number in range(53)]
    person.goto("/")
    expect(person.locator(".line")).to_have_count(50)
    expect(person.locator(".line").first).to_contain_text(f"#{numbers[-1]}")
    person.get_by_role("link", name="Older").click()
    expect(person.locator(".line")).to_have_count(3)
    expect(person.locator(".line").last).to_contain_text(f"#{numbers[0]}")


def test_an_empty_installation_tells_how_to_upload(service: Service, person: Page) -> None:
    person.goto("/")
    expect(person.locator("main")).to_contain_text(f"SNAPSHED_URL={service.address}")
    expect(person.locator("main")).to_contain_text("sentry-cli snapshots upload ./screenshots --app-id web")


# --- Deleting ------------------------------------------------------------------------------------------------------


def test_a_deletion_from_the_page_ends_on_a_complete_receipt(service: Service, person: Page) -> None:
    base, head = service.samples()
    person.goto(f"/snapshots/{head}")
    person.get_by_role("link", name="Delete this snapshot").click()
    expect(person.locator("table")).to_contain_text("Difference masks")
    person.get_by_label("Reason").fill("shows a customer's address")
    person.get_by_label(f"Type {head} to confirm").fill(str(head + 1))
    person.get_by_role("button", name="Delete snapshot").click()
    expect(person.locator("#confirm-problem")).to_contain_text(f"Type {head}")
    expect(person.get_by_label("Reason")).to_have_value("shows a customer's address")
    person.get_by_label(f"Type {head} to confirm").fill(str(head))
    person.get_by_role("button", name="Delete snapshot").click()
    expect(person).to_have_url(re.compile(r"/deletions/[0-9a-f-]{36}$"))
    expect(person.locator(".headline .pill")).to_have_text("Removing")
    service.tidy()
    # The page looks again by itself.
    expect(person.locator(".headline .pill")).to_have_text("Complete")
    expect(person.locator(".timeline")).not_to_contain_text("not yet")
    expect(person.locator(".signature")).to_contain_text("ed25519:")
    expect(person.locator("main")).to_contain_text("shows a customer's address")
    assert person.goto(f"/snapshots/{head}").status == 404  # pyright: ignore[reportOptionalMemberAccess]
    person.goto(f"/snapshots/{base}?view=plain")
    expect(person.locator(".card")).to_have_count(43)
    person.goto("/deletions")
    expect(person.locator(".line")).to_contain_text("Complete")


def test_a_plan_that_changed_asks_again_and_deletes_nothing(
    service: Service, person: Page, client: httpx.Client
) -> None:
    shared = png((5, 5, 5))
    number = service.upload({"a.png": shared}, head_sha="a" * 40)
    person.goto(f"/snapshots/{number}/delete")
    service.upload({"b.png": shared}, head_sha="b" * 40)
    person.get_by_label(f"Type {number} to confirm").fill(str(number))
    person.get_by_role("button", name="Delete snapshot").click()
    expect(person.get_by_role("alert")).to_contain_text("changed since the preview")
    assert client.get(f"/snapshots/{number}").status_code == 200
    person.get_by_label(f"Type {number} to confirm").fill(str(number))
    person.get_by_role("button", name="Delete snapshot").click()
    expect(person).to_have_url(re.compile("/deletions/"))


def test_a_deletion_sent_twice_is_one_deletion(service: Service, client: httpx.Client) -> None:
    number = service.upload({"a.png": png((5, 5, 5))}, head_sha="a" * 40)
    text = client.get(f"/snapshots/{number}/delete").text
    form = dict(re.findall(r'type="hidden" name="(csrf|plan|request)" value="([^"]+)"', text)) | {"confirm": number}
    first = client.post(f"/snapshots/{number}/delete", data=form)
    second = client.post(f"/snapshots/{number}/delete", data=form)
    assert first.status_code == second.status_code == 303
    assert first.headers["location"] == second.headers["location"]


def test_deleting_needs_its_scope_and_its_word(service: Service, client: httpx.Client) -> None:
    number = service.upload({"a.png": png((5, 5, 5))}, head_sha="a" * 40)
    assert client.post(f"/snapshots/{number}/delete", data={"csrf": "x", "confirm": number}).status_code == 403
    reader = access.add_token(service.resources, "main", "main", "reader", ["review"], service.address)
    client.cookies.set("snapshed", access.sign_in(service.resources, reader))
    assert client.get(f"/snapshots/{number}/delete").status_code == 403
    form = {"csrf": csrf_of(client), "confirm": number}
    assert client.post(f"/snapshots/{number}/delete", data=form).status_code == 403
    assert client.post("/snapshots/999/delete", data=form).status_code == 404
    everything = receipts.list_receipts(service.resources, service.project.org_id, None, None, 10)
    assert everything == []


# --- What no page may do -------------------------------------------------------------------------------------------

HOSTILE = "<img src=x onerror=alert(1)>\"'{{ 7*7 }}"


def test_hostile_names_and_metadata_are_inert(service: Service, person: Page) -> None:
    name = f"{HOSTILE}.png"
    facts = {name: {"display_name": HOSTILE, "group": HOSTILE, "description": HOSTILE, "tags": {HOSTILE: HOSTILE}}}
    git = {"head_ref": HOSTILE, "head_repo_name": "../../evil", "provider": "github", "app_id": HOSTILE}
    service.upload({name: png((1, 1, 1))}, facts, head_sha="a" * 40, **git)
    number = service.upload({name: png((2, 2, 2))}, facts, head_sha="b" * 40, base_sha="a" * 40, **git)
    service.compare()
    alarms: list[str] = []

    def refuse(dialog: Dialog) -> None:
        alarms.append(dialog.message)
        dialog.dismiss()

    person.on("dialog", refuse)
    for path in ("/", f"/snapshots/{number}", f"/snapshots/{number}?view=plain", f"/snapshots/{number}/delete"):
        person.goto(path)
        assert person.locator("img[onerror]").count() == 0
        assert person.locator("a[href*='..']").count() == 0
        expect(person.locator("main")).to_contain_text(HOSTILE)
    assert alarms == []


def test_pages_carry_their_security_headers_and_nothing_inline(service: Service, client: httpx.Client) -> None:
    _, head = service.samples()
    for path in ("/", f"/snapshots/{head}", f"/snapshots/{head}/delete", "/deletions", "/absent", "/sign-in"):
        answer = client.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cache-control"] == "private, no-store"
        assert answer.headers["referrer-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?! type=\"module\" src=\"/static/)", answer.text)


def test_images_are_answered_private_and_sandboxed(service: Service, client: httpx.Client) -> None:
    data, page = png((1, 2, 3)), b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>"
    service.upload({"a.png": data, "b.svg": page}, head_sha="a" * 40)
    digest = hashlib.sha256(data).hexdigest()
    where = f"/images/{service.project.id}/{digest}"
    answer = client.get(where)
    assert (answer.content, answer.headers["content-type"]) == (data, "image/png")
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["content-security-policy"] == "default-src 'none'; sandbox"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get(where, headers={"if-none-match": answer.headers["etag"]}).status_code == 304
    odd = client.get(f"/images/{service.project.id}/{hashlib.sha256(page).hexdigest()}")
    assert odd.headers["content-type"] == "application/octet-stream"
    assert odd.headers["content-disposition"] == "attachment"


def test_a_deleted_image_is_not_answered_from_any_cache(service: Service, client: httpx.Client) -> None:
    data = png((1, 2, 3))
    number = service.upload({"a.png": data}, head_sha="a" * 40)
    where = f"/images/{service.project.id}/{hashlib.sha256(data).hexdigest()}"
    etag = client.get(where).headers["etag"]
    order = deletion.Order(service.project.org_id, [service.project], "token:ci", snapshots=[number])
    deletion.request(service.resources, order)
    assert client.get(where, headers={"if-none-match": etag}).status_code == 404


def test_what_is_foreign_looks_absent(service: Service, anybody: httpx.Client) -> None:
    data = png((1, 2, 3))
    number = service.upload({"a.png": data}, head_sha="a" * 40)
    access.add_project(service.resources, "main", "other")
    access.add_project(service.resources, "elsewhere", "main")
    for org, project in (("main", "other"), ("elsewhere", None)):
        token = access.add_token(service.resources, org, project, "foreign", ["admin"], service.address)
        anybody.cookies.set("snapshed", access.sign_in(service.resources, token))
        paths = (
            f"/snapshots/{number}",
            f"/snapshots/{number}/delete",
            f"/images/{service.project.id}/{hashlib.sha256(data).hexdigest()}",
        )
        for path in paths:
            absent = re.sub(r"\d+", "999999", path, count=1)
            assert anybody.get(path).status_code == anybody.get(absent).status_code == 404


def test_our_own_files_are_kept_for_ever_under_their_hash(service: Service) -> None:
    (sheet,) = re.findall(r'href="(/static/[0-9a-f]+/pages.css)"', httpx.get(service.address + "/sign-in").text)
    answer = httpx.get(service.address + sheet)
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    other = httpx.get(f"{service.address}/static/0000/pages.css")
    assert other.headers["cache-control"] == "no-store"
    assert httpx.get(f"{service.address}/static/0000/secrets").status_code == 404


# --- For everybody -------------------------------------------------------------------------------------------------


def test_no_page_has_a_barrier_or_scrolls_sideways(service: Service, person: Page) -> None:
    base, head = service.samples()
    gone = service.upload({"a.png": png((1, 1, 1))}, head_sha="e" * 40)
    order = deletion.Order(service.project.org_id, [service.project], "token:ci", snapshots=[gone])
    receipt = deletion.request(service.resources, order)
    service.tidy()
    paths = [
        "/",
        f"/snapshots/{head}",
        f"/snapshots/{head}?view=plain",
        f"/snapshots/{head}?section=unchanged",
        f"/snapshots/{base}",
        f"/snapshots/{head}/delete",
        "/deletions",
        f"/deletions/{receipt}",
        "/storage",
        "/trends",
        "/?state=Passed",
        "/absent",
    ]
    for scheme, width in ((scheme, width) for scheme in ("light", "dark") for width in (1280, 400)):
        person.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # pyright: ignore[reportArgumentType]
        person.set_viewport_size({"width": width, "height": 900})
        for path in paths:
            person.goto(path)
            look_for_barriers(person, f"{path}, {scheme}, {width} pixels wide")
    person.context.clear_cookies()
    person.goto("/sign-in")
    look_for_barriers(person, "/sign-in")


def look_for_barriers(page: Page, path: str) -> None:
    found = Axe().run(page)
    assert found.violations_count == 0, f"{path}\n{found.generate_report()}"
    wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0, f"{path} is {wide} px wider than the window"


def test_the_samples_commit_is_linked_where_it_lives(service: Service, person: Page) -> None:
    _, head = service.samples()
    person.goto(f"/snapshots/{head}")
    link = person.get_by_role("link", name=HEAD_SHA[:10])
    expect(link).to_have_attribute("href", f"https://github.com/acme/shop/commit/{HEAD_SHA}")
