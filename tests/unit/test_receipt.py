"""Receipts balance, are signed over exactly what they say, and plans name exactly what would go."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import UUID

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from snapshed.domain import grants, ids, keys, receipt

PRIVATE, PUBLIC = grants.key_pair(Ed25519PrivateKey.generate())
TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@dataclass(frozen=True)
class Tally:
    kind: str
    outcome: str
    objects: int
    bytes: int


TALLIES = st.lists(
    st.builds(
        Tally,
        st.sampled_from([*receipt.KINDS, "file"]),
        st.sampled_from(receipt.OUTCOMES),
        st.integers(0, 10**6),
        st.integers(0, 10**12),
    )
)


@given(TALLIES)
def test_every_object_is_counted_once(tallies: list[Tally]) -> None:
    counts, sums = receipt.objects(tallies)
    for count in counts.values():
        assert count["released"] == sum(count[outcome] for outcome in receipt.OUTCOMES)
    assert sum(sums.values()) == sum(tally.bytes for tally in tallies)
    assert set(counts) >= set(receipt.KINDS)


@given(TALLIES)
def test_a_deletion_is_finished_only_when_nothing_waits_or_is_pinned(tallies: list[Tally]) -> None:
    counts, _ = receipt.objects(tallies)
    left = sum(tally.objects for tally in tallies if tally.outcome in ("waiting", "kept_pinned"))
    assert receipt.finished(counts) == (left == 0)


@given(st.dictionaries(TEXT, TEXT | st.integers() | st.none()), TEXT)
def test_a_signature_covers_every_field(document: dict[str, object], other: str) -> None:
    document = {key: value for key, value in document.items() if key != "signature"}
    signed = {**document, "signature": receipt.sign(document, "k1", PRIVATE)}
    assert receipt.is_signed_by(signed, PUBLIC)
    assert receipt.kid_of(str(signed["signature"])) == "k1"
    assert not receipt.is_signed_by({**signed, f"new {other}": 1}, PUBLIC)


def test_another_key_did_not_sign_it() -> None:
    signed = {"id": "1", "signature": receipt.sign({"id": "1"}, "k1", PRIVATE)}
    _, other = grants.key_pair(Ed25519PrivateKey.generate())
    assert not receipt.is_signed_by(signed, other)
    assert not receipt.is_signed_by({"id": "1", "signature": "nonsense"}, PUBLIC)


def test_a_plan_depends_on_what_goes_and_not_on_its_order() -> None:
    one, two, three = UUID(int=1), UUID(int=2), UUID(int=3)
    assert receipt.plan([one], [two, three]) == receipt.plan([one], [three, two])
    assert receipt.plan([one], [two]) != receipt.plan([one], [three])
    assert receipt.plan([one, two], []) != receipt.plan([one], [two])


def test_a_key_carries_its_digest_and_project_and_nothing_else_looks_like_one() -> None:
    key = keys.storage_key(1, 2, 3, "ab" * 32, UUID(int=5))
    assert (keys.digest_of(key), keys.project_of(key)) == ("ab" * 32, 3)
    for other in (key + "#1", ".snapshed/journal/x.json", "x/" + key, key[:-1]):
        assert keys.digest_of(other) is None


def test_an_epoch_never_issues_a_number_of_an_earlier_one() -> None:
    assert ids.first_number(1) == 1
    assert ids.first_number(2) > 2**32
    assert ids.trace_id(UUID(int=1)) != ids.trace_id(UUID(int=2))
