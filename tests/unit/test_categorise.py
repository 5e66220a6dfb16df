"""Categories of names: the documented cases, and what holds for every input."""

from __future__ import annotations

import time
from collections import Counter
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshed.domain.categorise import Entry, Plan, judge, plan


def images(**digests: str) -> dict[str, Entry]:
    return {name: Entry(name, digest, 10, 20, None) for name, digest in digests.items()}


def compare(
    head: dict[str, Entry],
    base: dict[str, Entry],
    *,
    selective: bool = False,
    all_names: list[str] | None = None,
    manifest_threshold: float | None = None,
) -> Plan:
    return plan(head, base, selective=selective, all_names=all_names, manifest_threshold=manifest_threshold)


def words(found: Plan) -> dict[str, str]:
    """Name to category, with "pair" for what has to be decoded."""
    return {outcome.name: outcome.category for outcome in found.outcomes} | {pair.name: "pair" for pair in found.pairs}


def renames(found: Plan) -> dict[str, str | None]:
    return {outcome.name: outcome.previous_name for outcome in found.outcomes if outcome.category == "renamed"}


def test_a_complete_head_adds_removes_and_matches() -> None:
    found = compare(images(same="1", other="2", new="3"), images(same="1", other="9", old="8"))
    assert words(found) == {"same": "unchanged", "other": "pair", "new": "added", "old": "removed"}


def test_a_selective_head_without_a_list_skips_what_it_does_not_have() -> None:
    found = compare(images(a="1"), images(a="1", b="2"), selective=True)
    assert words(found) == {"a": "unchanged", "b": "skipped"}


def test_a_list_tells_skipped_from_removed_and_adds_no_names_of_its_own() -> None:
    found = compare(
        images(a="1"), images(a="1", kept="2", gone="3"), selective=True, all_names=["a", "kept", "nowhere"]
    )
    assert words(found) == {"a": "unchanged", "kept": "skipped", "gone": "removed"}


def test_an_outcome_carries_what_its_side_has() -> None:
    outcomes = {o.name: o for o in compare(images(same="1", new="3"), images(same="1", old="8")).outcomes}
    same, new, old = outcomes["same"], outcomes["new"], outcomes["old"]
    assert (same.head_digest, same.base_digest, same.head_size, same.base_size) == ("1", "1", (10, 20), (10, 20))
    assert (new.head_digest, new.base_digest, new.head_size, new.base_size) == ("3", None, (10, 20), None)
    assert (old.head_digest, old.base_digest, old.head_size, old.base_size) == (None, "8", None, (10, 20))


def test_a_rename_is_listed_under_its_new_name_and_consumes_the_old() -> None:
    found = compare(images(after="1"), images(before="1"))
    assert words(found) == {"after": "renamed"}
    (outcome,) = found.outcomes
    assert (outcome.previous_name, outcome.head_digest, outcome.base_digest) == ("before", "1", None)


def test_a_rename_with_a_new_content_is_an_add_and_a_remove() -> None:
    assert words(compare(images(after="2"), images(before="1"))) == {"after": "added", "before": "removed"}


def test_several_equal_images_pair_by_the_most_similar_names() -> None:
    head = images(new_menu="1", new_footer="1")
    base = images(old_footer="1", old_menu="1", something="1")
    assert renames(compare(head, base)) == {"new_menu": "old_menu", "new_footer": "old_footer"}


def test_ties_do_not_depend_on_the_order_of_the_manifest() -> None:
    names = ["a1", "a2", "a3"]
    found = {
        tuple(sorted(renames(compare(images(**dict.fromkeys(order, "1")), images(b1="1", b2="1")))))
        for order in permutations(names)
    }
    assert len(found) == 1


def test_a_selective_head_renames_a_skipped_image_after_all_removed_ones() -> None:
    head, base = images(new="1", newer="1"), images(new_old="1", kept="1")
    found = compare(head, base, selective=True, all_names=["new", "newer", "kept"])
    assert renames(found) == {"new": "new_old", "newer": "kept"}
    assert words(found) == {"new": "renamed", "newer": "renamed"}


def test_a_canvas_above_the_limit_is_not_decoded_and_equal_files_need_no_canvas() -> None:
    def sized(digest: str, width: int, height: int) -> dict[str, Entry]:
        return {"a": Entry("a", digest, width, height, None)}

    (errored,) = compare(sized("1", 8_000, 1), sized("2", 1, 5_001)).outcomes
    assert (errored.category, errored.reason) == ("errored", "exceeds_pixel_limit")
    assert words(compare(sized("1", 8_000, 1), sized("2", 1, 5_000))) == {"a": "pair"}
    assert words(compare(sized("1", 9_000, 9_000), sized("1", 9_000, 9_000))) == {"a": "unchanged"}


@pytest.mark.parametrize(
    ("own", "manifest", "expected"),
    [(None, None, 0.0), (None, 0.2, 0.2), (0.1, 0.2, 0.1), (0.0, 0.2, 0.0)],
)
def test_the_threshold_is_the_images_own_else_its_manifests(
    own: float | None, manifest: float | None, expected: float
) -> None:
    head = {"a": Entry("a", "1", 1, 1, own)}
    base = {"a": Entry("a", "2", 1, 1, 0.9)}
    (pair,) = compare(head, base, manifest_threshold=manifest).pairs
    assert pair.threshold == expected


@pytest.mark.parametrize(
    ("changed", "total", "threshold", "expected"),
    [
        (0, 100, 0.0, "unchanged"),
        (1, 40_000_000, 0.0, "changed"),
        (1, 100, 0.01, "unchanged"),
        (2, 100, 0.01, "changed"),
        (0, 0, 0.0, "unchanged"),
    ],
)
def test_changed_means_strictly_above_the_threshold(changed: int, total: int, threshold: float, expected: str) -> None:
    assert judge(changed, total, threshold) == expected


@pytest.mark.parametrize("copies", [1, 2, 50, 25_000])
def test_twenty_five_thousand_renames_take_seconds_however_many_share_an_image(copies: int) -> None:
    def suite(folder: str) -> dict[str, Entry]:
        names = [f"components/{folder}/dark/button-{number:05}.png" for number in range(25_000)]
        return {name: Entry(name, str(i // copies), 1, 1, None) for i, name in enumerate(names)}

    started = time.process_time()
    found = compare(suite("atoms"), suite("elements"))
    assert time.process_time() - started < 10
    assert len(renames(found)) == 25_000


NAMES = st.text("ab/.", min_size=1, max_size=4)
SIDES = st.dictionaries(NAMES, st.sampled_from("1234"), max_size=12).map(lambda digests: images(**digests))


@st.composite
def cases(draw: st.DrawFn) -> tuple[dict[str, Entry], dict[str, Entry], bool, list[str] | None]:
    head, base = draw(SIDES), draw(SIDES)
    selective = draw(st.booleans())
    listed = draw(st.lists(NAMES)) + list(head) if selective and draw(st.booleans()) else None
    return head, base, selective, listed


@given(cases())
def test_every_name_is_in_exactly_one_category(
    case: tuple[dict[str, Entry], dict[str, Entry], bool, list[str] | None],
) -> None:
    head, base, selective, all_names = case
    found = compare(head, base, selective=selective, all_names=all_names)
    listed = [o.name for o in found.outcomes] + [p.name for p in found.pairs]
    consumed = [old for old in renames(found).values() if old is not None]
    assert Counter(listed + consumed) == Counter(head.keys() | base.keys())
    assert [o.name for o in found.outcomes] == sorted(o.name for o in found.outcomes)
    assert all(pair.head.digest != pair.base.digest for pair in found.pairs)


@given(cases())
def test_renames_are_a_matching_of_equal_images(
    case: tuple[dict[str, Entry], dict[str, Entry], bool, list[str] | None],
) -> None:
    head, base, selective, all_names = case
    found = compare(head, base, selective=selective, all_names=all_names)
    pairs = renames(found)
    assert len(set(pairs.values())) == len(pairs)
    for new, old in pairs.items():
        assert old is not None
        assert new not in base
        assert old not in head
        assert head[new].digest == base[old].digest
    left = {category: [o for o in found.outcomes if o.category == category] for category in ("added", "removed")}
    assert not {o.head_digest for o in left["added"]} & {o.base_digest for o in left["removed"]}


@given(cases())
def test_a_selective_head_without_a_list_removes_nothing(
    case: tuple[dict[str, Entry], dict[str, Entry], bool, list[str] | None],
) -> None:
    head, base, _, _ = case
    assert "removed" not in words(compare(head, base, selective=True)).values()
