"""What a reviewer does at the desk, with the keyboard and without, in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import pytest
from browser.conftest import serving
from browser.service import Service, new_engine, png
from browser.test_pages import HOSTILE, look_for_barriers
from fixtures.world import a_database
from playwright.sync_api import Page, Route, expect

from snapshed.db.embedded import Embedded
from snapshed.work import access, deletion, snapshots

pytestmark = pytest.mark.browser

SHAS = (f"{number:040x}" for number in count(1))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory, cluster: Embedded, template: str) -> Iterator[Service]:
    """One installation for the whole file; every test uploads what it looks at."""
    with (
        a_database(cluster, template) as dsn,
        serving(tmp_path_factory.mktemp("site") / "data", dsn) as running,
        new_engine() as running.engine,
    ):
        yield running


def changed(service: Service, names: list[str], before: int = 1, after: int = 200, **fields: object) -> int:
    """A compared snapshot in which each of these looks different, and one image does not."""
    same = {"same.png": png((7, 7, 7))}
    base, head = next(SHAS), next(SHAS)
    service.upload({name: png((before, place, 0)) for place, name in enumerate(names)} | same, head_sha=base, **fields)
    images = {name: png((after, place, 0)) for place, name in enumerate(names)} | same
    number = service.upload(images, head_sha=head, base_sha=base, **fields)
    service.compare()
    return number


def alike(service: Service, names: list[str]) -> int:
    """A compared snapshot in which all of these changed in the same way, and one in another."""
    base, head = next(SHAS), next(SHAS)
    service.upload({name: png((1, 1, 1)) for name in names} | {"z.png": png((9, 9, 9))}, head_sha=base)
    images = {name: png((1, 200, 1)) for name in names} | {"z.png": png((9, 9, 250), 9, 9)}
    number = service.upload(images, head_sha=head, base_sha=base)
    service.compare()
    return number


def open_desk(person: Page, number: int) -> None:
    person.goto(f"/snapshots/{number}")
    expect(person.locator("#desk[data-ready]")).to_be_visible()


def decisions(service: Service, number: int) -> dict[str, str]:
    found = snapshots.details(service.resources, [service.project.id], number)
    return {one.name: one.decision for one in found.image_decisions}


# --- Deciding ------------------------------------------------------------------------------------------------------


def test_thirty_images_are_decided_with_thirty_keys(
    service: Service, person: Page, record_property: pytest.RecordProperty
) -> None:
    names = [f"page-{place:02}.png" for place in range(30)]
    number = changed(service, names)
    open_desk(person, number)
    keys = 0
    for place in range(30):
        person.keyboard.press("n" if place == 11 else "y")
        keys += 1
    record_property("keystrokes", keys)
    expect(person.locator("#progress")).to_have_text("30 of 30 decided")
    expect(person.locator("#badge")).to_have_text("Rejected")
    assert sorted(decisions(service, number)) == names
    assert list(decisions(service, number).values()).count("rejected") == 1
    # The one that was refused is found among thirty and approved after all: then nothing is left.
    person.keyboard.press("/")
    rejected = next(name for name, decision in decisions(service, number).items() if decision == "rejected")
    person.keyboard.type(rejected)
    person.keyboard.press("Escape")
    person.keyboard.press("j")
    person.keyboard.press("a")
    expect(person.locator("#badge")).to_have_text("Approved")
    person.reload()
    expect(person.locator("#badge")).to_have_text("Approved")
    expect(person.locator(".decisions")).to_contain_text("Approved, image by image, last by admin on the page")


def test_a_group_is_decided_at_once_one_member_taken_out_and_all_undone(service: Service, person: Page) -> None:
    names = [f"{letter}.png" for letter in "abcdefgh"]
    number = alike(service, names)
    open_desk(person, number)
    expect(person.locator("#panel")).to_contain_text("The same change is in 8 images")
    person.keyboard.press("Shift+Y")
    expect(person.locator("#progress")).to_have_text("8 of 9 decided")
    assert decisions(service, number) == dict.fromkeys(names, "approved")
    # The next undecided one is the ninth; back to the group, one member is taken out.
    expect(person.locator("#panel .title")).to_have_text("z.png")
    person.keyboard.press("Home")
    person.keyboard.press("n")
    expect(person.locator("#badge")).to_have_text("Rejected")
    person.keyboard.press("u")
    expect(person.locator("#badge")).to_have_text("Needs review")
    assert decisions(service, number) == dict.fromkeys(names, "approved")
    person.keyboard.press("u")
    expect(person.locator("#progress")).to_have_text("0 of 9 decided")
    assert decisions(service, number) == {}


def test_the_whole_is_approved_and_taken_back(service: Service, person: Page) -> None:
    number = changed(service, ["a.png", "b.png"])
    open_desk(person, number)
    person.get_by_role("button", name="Approve all").click()
    expect(person.locator("#badge")).to_have_text("Approved")
    expect(person.locator("#panel .said")).to_contain_text("admin on the page")
    expect(person.locator("#panel .said")).to_contain_text("with the whole snapshot")
    person.get_by_role("button", name="Undo the last decision about all").click()
    expect(person.locator("#badge")).to_have_text("Needs review")


def test_what_was_not_saved_is_said_and_shown_as_undecided(service: Service, person: Page) -> None:
    number = changed(service, ["a.png", "b.png"])
    open_desk(person, number)

    def refuse(route: Route) -> None:
        route.fulfill(status=503)

    person.route("**/images/decision", refuse)
    person.keyboard.press("y")
    expect(person.locator("#toast")).to_contain_text("That was not saved")
    expect(person.locator(".filter").first).to_have_text("2 undecided")
    assert decisions(service, number) == {}


def test_without_javascript_an_image_is_decided_by_a_form(service: Service, person: Page) -> None:
    number = changed(service, ["a.png", "b.png"])
    person.goto(f"/snapshots/{number}?view=plain")
    person.locator("#changed-2").get_by_role("button", name="Reject").click()
    expect(person.locator("#changed-2 .said")).to_contain_text("Rejected by admin on the page")
    expect(person.locator(".headline .pill")).to_have_text("Rejected")
    person.locator("#changed-2").get_by_role("button", name="Undo").click()
    expect(person.locator(".headline .pill")).to_have_text("Needs review")


# --- Looking -------------------------------------------------------------------------------------------------------


def test_every_view_is_reached_by_a_key_and_says_so(service: Service, person: Page) -> None:
    number = changed(service, ["a.png", "b.png"])
    open_desk(person, number)
    panes = person.locator("#panes")
    for key, mode, images in (("s", "sides", 2), ("e", "single", 1), ("w", "swipe", 2), ("o", "onion", 2)):
        person.keyboard.press(key)
        expect(panes).to_have_attribute("data-mode", mode)
        expect(person.locator(f"button[data-mode={mode}][aria-pressed=true]")).to_be_visible()
        expect(panes.locator("img")).to_have_count(images)
    person.keyboard.press("e")
    person.keyboard.press("ArrowLeft")
    expect(panes.locator("img")).to_have_attribute("alt", "Base of a.png")
    person.keyboard.press("ArrowRight")
    expect(panes.locator("img")).to_have_attribute("alt", "Head of a.png")
    expect(panes.locator(".ink")).to_be_visible()
    person.keyboard.press("d")
    expect(panes.locator(".ink")).to_be_hidden()
    before = person.locator("#scale").inner_text()
    person.keyboard.press(".")
    expect(person.locator("#where")).to_have_text("1 of 1")
    assert person.locator("#scale").inner_text() != before
    person.keyboard.press("?")
    expect(person.get_by_role("dialog", name="Keys")).to_be_visible()
    person.keyboard.press("y")  # nothing is decided behind the sheet
    person.keyboard.press("Escape")
    assert decisions(service, number) == {}


def test_sizes_that_differ_are_said(service: Service, person: Page) -> None:
    base, head = next(SHAS), next(SHAS)
    service.upload({"a.png": png((1, 1, 1), 100, 100)}, head_sha=base)
    number = service.upload({"a.png": png((9, 220, 9), 100, 140)}, head_sha=head, base_sha=base)
    service.compare()
    open_desk(person, number)
    expect(person.locator("#caption")).to_contain_text("Sizes differ: base 100 × 100 px, head 100 × 140 px")


def test_the_page_says_why_this_base_and_who_was_passed_over(service: Service, person: Page) -> None:
    base = next(SHAS)
    other = service.upload({"a.png": png((1, 1, 1))}, head_sha=base, app_id="other")
    chosen = service.upload({"a.png": png((1, 1, 1))}, head_sha=base)
    number = service.upload({"a.png": png((2, 200, 2))}, head_sha=next(SHAS), base_sha=base)
    service.compare()
    person.goto(f"/snapshots/{number}")
    person.get_by_text("Why this base?").click()
    expect(person.locator(".why")).to_contain_text(f"#{chosen} was the newest")
    expect(person.locator(".passed")).to_have_text(f"#{other}: it is of another app")


def test_an_approval_carried_over_names_where_it_comes_from(service: Service, person: Page) -> None:
    facts = {"pr_number": 7, "head_repo_name": "acme/shop", "app_id": "carried"}
    base = next(SHAS)
    service.upload({"a.png": png((1, 1, 1))}, head_sha=base, **facts)
    first = service.upload({"a.png": png((2, 200, 2))}, head_sha=next(SHAS), base_sha=base, **facts)
    service.compare()
    open_desk(person, first)
    person.keyboard.press("y")
    expect(person.locator("#badge")).to_have_text("Approved")
    again = service.upload({"a.png": png((2, 200, 2))}, head_sha=next(SHAS), base_sha=base, **facts)
    service.compare()
    open_desk(person, again)
    expect(person.locator("#badge")).to_have_text("Approved")
    expect(person.locator(".verdict")).to_contain_text(f"Carried over from snapshot #{first} of the same pull request")
    expect(person.locator(".decisions")).to_contain_text(f"by a rule, as in snapshot #{first}")


# --- For everybody -------------------------------------------------------------------------------------------------


@pytest.mark.scale
def test_ten_thousand_images_are_one_list_that_draws_what_is_seen(service: Service, person: Page) -> None:
    kinds = [png((place, 0, 0)) for place in range(40)]
    images = {f"screens/{place:05}.png": kinds[place % 40] for place in range(10_000)}
    base = next(SHAS)
    service.upload(images, head_sha=base, app_id="large")
    some = {f"screens/{place:05}.png": png((place % 40, 99, place // 40)) for place in range(0, 200, 2)}
    number = service.upload(images | some, head_sha=next(SHAS), base_sha=base, app_id="large")
    service.compare()
    open_desk(person, number)
    expect(person.locator("#found")).to_have_text("10,000 images")
    person.keyboard.press("6")  # the unchanged ones unfold
    expect(person.locator("#panel .state")).to_contain_text("Unchanged")
    person.keyboard.press("End")
    expect(person.locator("#panel .title")).to_have_text("09999.png")
    expect(person.locator("#rows [aria-current]")).to_be_visible()
    assert person.locator("#rows li").count() < 60
    person.keyboard.press("/")
    person.keyboard.type("0777")
    expect(person.locator("#found")).to_have_text("11 of 10,000 images")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 400)])
def test_the_desk_has_no_barrier_and_does_not_scroll_sideways(
    service: Service, person: Page, scheme: str, width: int
) -> None:
    number = alike(service, ["a.png", "b.png", "c.png"])
    person.emulate_media(color_scheme=scheme, reduced_motion="reduce")  # pyright: ignore[reportArgumentType]
    person.set_viewport_size({"width": width, "height": 900})
    open_desk(person, number)
    person.keyboard.press("y")
    expect(person.locator("#toast")).to_be_visible()
    look_for_barriers(person, "desk")
    person.keyboard.press("w")
    person.keyboard.press("?")
    look_for_barriers(person, "sheet")


def test_hostile_names_are_inert_at_the_desk(service: Service, person: Page) -> None:
    name = f"{HOSTILE}.png"
    facts = {name: {"display_name": HOSTILE, "group": HOSTILE, "description": HOSTILE, "tags": {HOSTILE: HOSTILE}}}
    base = next(SHAS)
    service.upload({name: png((1, 1, 1))}, facts, head_sha=base)
    number = service.upload({name: png((2, 200, 2))}, facts, head_sha=next(SHAS), base_sha=base)
    service.compare()
    open_desk(person, number)
    expect(person.locator("#panel")).to_contain_text(HOSTILE)
    assert person.locator("img[onerror]").count() == 0
    person.keyboard.press("y")
    expect(person.locator("#badge")).to_have_text("Approved")
    assert decisions(service, number) == {name: "approved"}


def test_an_image_is_followed_through_its_snapshots(service: Service, person: Page) -> None:
    shas = [next(SHAS) for _ in range(3)]
    facts = {"app_id": "followed"}
    first = service.upload({"a.png": png((1, 1, 1))}, head_sha=shas[0], **facts)
    second = service.upload({"a.png": png((78, 201, 76))}, head_sha=shas[1], base_sha=shas[0], **facts)
    third = service.upload({"a.png": png((78, 201, 76))}, head_sha=shas[2], base_sha=shas[1], **facts)
    service.compare()
    open_desk(person, second)
    person.keyboard.press("y")
    expect(person.locator(".strip a")).to_have_count(3)
    expect(person.locator(".strip a[aria-current]")).to_have_attribute("href", f"/snapshots/{second}#image=a.png")
    expect(person.locator("#more")).to_contain_text("named by 2 snapshots")
    person.get_by_role("link", name="This image over time").click()
    expect(person.locator(".content")).to_have_count(2)
    expect(person.locator(".content").first).to_contain_text(f"Snapshots #{second} to #{third}")
    expect(person.locator(".content").first).to_contain_text(f"Changed in #{second}, 100 %: approved by token:admin")
    expect(person.locator(".content").last).to_contain_text(f"Snapshot #{first}")
    look_for_barriers(person, "history")


# --- Lists ---------------------------------------------------------------------------------------------------------


def test_the_list_is_filtered_by_its_address(service: Service, person: Page) -> None:
    base = next(SHAS)
    common = {"app_id": "filtered", "head_repo_name": "acme/shop"}
    first = service.upload({"a.png": png((1, 1, 1))}, head_sha=base, head_ref="main", **common)
    branch = {"head_ref": "feature/x", "pr_number": 41}
    second = service.upload({"a.png": png((1, 200, 1))}, head_sha=next(SHAS), base_sha=base, **branch, **common)
    service.compare()
    person.goto("/?app=filtered")
    expect(person.locator(".line .hash")).to_have_text([f"#{second}", f"#{first}"])
    person.get_by_label("State").select_option("Needs review")
    person.get_by_role("button", name="Filter").click()
    expect(person.locator(".line .hash")).to_have_text([f"#{second}"])
    person.goto(f"/?q={base[-8:]}&app=filtered")
    expect(person.get_by_text("No snapshot is like that.")).to_be_visible()
    for address in ("/?q=41&app=filtered", "/?branch=feature/x&app=filtered"):
        person.goto(address)
        expect(person.locator(".line .hash")).to_have_text([f"#{second}"])


def test_the_storage_page_tells_what_the_store_holds(service: Service, person: Page) -> None:
    service.upload({"a.png": png((1, 2, 3)), "b.png": png((1, 2, 3))}, head_sha=next(SHAS), head_ref="stock")
    gone = service.upload({"c.png": png((3, 2, 1))}, head_sha=next(SHAS))
    order = deletion.Order(service.project.org_id, [service.project], "token:ci", snapshots=[gone])
    deletion.request(service.resources, order)
    service.tidy()
    objects = service.resources.settings.data / "objects"
    files = [file for file in objects.rglob("*") if file.is_file() and ".snapshed" not in file.parts]
    person.goto("/storage")
    held = sum(file.stat().st_size for file in files)
    told = [person.locator(f"#{name}").get_attribute("data-bytes") for name in ("stored", "leaving")]
    assert sum(int(text or 0) for text in told) == held
    row = person.get_by_role("row", name="stock")
    size = len(png((1, 2, 3)))
    expect(row).to_contain_text(f"{size} bytes")
    expect(row).to_contain_text(f"{2 * size} bytes")


def test_trends_are_drawn_from_the_traces_of_what_is_still_here(service: Service, person: Page) -> None:
    names = ["a.png", "b.png"]
    access.add_project(service.resources, "main", "trends")
    other = access.find_project(service.resources, service.project.org_id, "trends")
    assert other
    elsewhere = replace(service, project=other)
    number = changed(elsewhere, names)
    elsewhere.tidy()
    person.goto("/trends?project=trends")
    told = [chart.get_attribute("aria-label") for chart in person.locator(".chart svg").all()]
    assert told[:4] == [
        "Snapshots a day: at most 2, lately 2.",
        "Images uploaded a day: at most 6, lately 6.",
        "Images that changed: at most 2, lately 2.",
        "Share of compared images that changed: at most 66.67 %, lately 66.67 %.",
    ]
    deletion.request(service.resources, deletion.Order(other.org_id, [other], "token:ci", snapshots=[number]))
    person.reload()
    expect(person.locator(".chart svg").first).to_have_attribute("aria-label", "Snapshots a day: at most 1, lately 1.")
