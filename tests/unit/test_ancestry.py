"""The choice of a base, row by row of its table, and what a partial base stands for."""

from __future__ import annotations

from uuid import UUID

import pytest

from snapshed.domain.ancestry import SENTENCES, Candidate, Layer, PassedOver, Reason, choose, fold

HEAD = UUID(int=99)


def candidate(number: int, app: str = "web", repo: str | None = "shop/web", *, marked: bool = False) -> Candidate:
    return Candidate(UUID(int=number), number, app, repo, marked)


@pytest.mark.parametrize(
    ("candidates", "base", "passed"),
    [
        ([], None, []),
        ([candidate(5)], 5, []),
        ([candidate(6), candidate(5)], 6, [(5, "older")]),
        ([candidate(6, marked=True), candidate(5)], 5, [(6, "being_deleted")]),
        ([candidate(6, "ios"), candidate(5)], 5, [(6, "other_app")]),
        ([candidate(6, repo="fork/web"), candidate(5)], 5, [(6, "other_repository")]),
        ([candidate(6, repo=None)], None, [(6, "other_repository")]),
        ([candidate(6, "ios", "fork/web", marked=True)], None, [(6, "being_deleted")]),
        ([candidate(6, "ios", "fork/web")], None, [(6, "other_app")]),
        ([candidate(99), candidate(5)], 5, []),
        ([candidate(99)], None, []),
        (
            [candidate(9, "ios"), candidate(8), candidate(7, marked=True), candidate(6)],
            8,
            [(9, "other_app"), (7, "being_deleted"), (6, "older")],
        ),
    ],
)
def test_the_table(candidates: list[Candidate], base: int | None, passed: list[tuple[int, Reason]]) -> None:
    choice = choose(HEAD, "web", "shop/web", candidates)
    assert choice.base_id == (None if base is None else UUID(int=base))
    assert choice.passed_over == tuple(PassedOver(number, reason) for number, reason in passed)
    assert all(SENTENCES[one.reason] for one in choice.passed_over)


def test_nobody_having_named_a_repository_is_one_repository() -> None:
    assert choose(HEAD, "web", None, [candidate(5, repo=None)]).base_id == UUID(int=5)


@pytest.mark.parametrize(
    ("layers", "whole"),
    [
        ([Layer({"a": 1}, None)], {"a": 1}),
        ([Layer({"a": 2}, None), Layer({"a": 1, "b": 1}, None)], {"a": 2, "b": 1}),
        ([Layer({"a": 2}, ["a"]), Layer({"a": 1, "b": 1}, None)], {"a": 2}),
        ([Layer({"a": 2}, ["a", "b", "nowhere"]), Layer({"b": 1, "c": 1}, None)], {"a": 2, "b": 1}),
        ([Layer({}, None), Layer({"n": 2}, ["n"]), Layer({"a": 1}, None)], {"n": 2}),
        (
            [Layer({"a": 3}, None), Layer({"b": 2}, None), Layer({"a": 1, "b": 1, "c": 1}, None)],
            {"a": 3, "b": 2, "c": 1},
        ),
    ],
)
def test_a_partial_base_stands_for_its_own_images_and_what_it_does_not_deny(
    layers: list[Layer[int]], whole: dict[str, int]
) -> None:
    assert fold(layers) == whole
