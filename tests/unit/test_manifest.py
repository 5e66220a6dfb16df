"""What a create request may contain, and what is said about one that may not be stored."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapshed.domain import manifest
from snapshed.errors import Invalid

DIGEST = "ab" * 32
IMAGE = {"content_hash": DIGEST, "width": 8, "height": 8}


def body(**fields: Any) -> bytes:
    return json.dumps({"app_id": "web", "images": {"a.png": IMAGE}, **fields}).encode()


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"app_id": ""}, "The app_id field is required"),
        ({"app_id": "x" * 256}, "maximum length of 255"),
        ({"images": []}, "The images field is required and must be an object"),
        ({"images": {"manifest.json": IMAGE}}, "The filename manifest.json is reserved."),
        ({"images": {"a.png": {**IMAGE, "content_hash": "AB" * 32}}}, 'image "a.png", field "content_hash"'),
        ({"images": {"a.png": {**IMAGE, "width": -1}}}, 'image "a.png", field "width"'),
        ({"images": {"a.png": {**IMAGE, "width": True}}}, 'field "width"'),
        ({"images": {"a.png": {**IMAGE, "diff_threshold": 1}}}, "at least 0 and less than 1"),
        ({"images": {"a.png": {**IMAGE, "group": 7}}}, 'field "group": must be a string'),
        ({"images": {"a.png": {**IMAGE, "note": "nul\0"}}}, "NUL"),
        ({"selective": "yes"}, "The selective field must be a boolean."),
        ({"selective": True}, "selective requires base_sha to be provided."),
        ({"all_image_file_names": ["a.png"]}, "all_image_file_names requires selective to be true."),
        ({"head_sha": "A" * 40}, "The head_sha field must be a 40-character hexadecimal SHA1 string"),
        ({"base_sha": "ab"}, "The base_sha field"),
        ({"pr_number": 0}, "The pr_number field must be a positive integer."),
        ({"provider": "x" * 256}, "The provider field"),
        ({"diff_threshold": 1.0}, "The diff_threshold field"),
        ({"diff_threshold": float("nan")}, "Invalid json body"),
    ],
)
def test_what_may_not_be_stored_is_refused_with_a_sentence_that_names_the_field(
    fields: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(Invalid) as refused:
        manifest.parse(body(**fields))
    assert sentence in str(refused.value)


@pytest.mark.parametrize(
    "name",
    ["", "/a.png", "../a.png", "a/../b.png", "a//b.png", "./a.png", "a\\b.png", "a\0.png", "a\n.png", "x" * 1025],
)
def test_a_name_that_is_no_path_below_a_folder_is_refused(name: str) -> None:
    with pytest.raises(Invalid):
        manifest.parse(body(images={name: IMAGE}))


def test_a_selective_upload_names_only_what_its_list_has() -> None:
    fields = {"selective": True, "base_sha": "a" * 40}
    with pytest.raises(Invalid, match="must not be empty"):
        manifest.parse(body(**fields, all_image_file_names=[]))
    with pytest.raises(Invalid, match="must appear"):
        manifest.parse(body(**fields, all_image_file_names=["b.png"]))
    assert manifest.parse(body(**fields, all_image_file_names=["a.png", "b.png"])).all_names == ("a.png", "b.png")


def test_more_images_than_the_limit_are_refused() -> None:
    images = {f"{number}.png": IMAGE for number in range(manifest.MOST_IMAGES + 1)}
    with pytest.raises(Invalid, match="at most 50000"):
        manifest.parse(body(images=images))


def test_tags_and_themes_are_read_leniently() -> None:
    (image,) = manifest.parse(
        body(images={"a.png": {**IMAGE, "tags": ["x", 1], "canvas_theme": "pink", "own": {"kept": True}}})
    ).images
    assert image.facts == {"tags": {"x": "x", "1": "1"}, "own": {"kept": True}}


def test_a_document_of_any_depth_is_answered_with_a_sentence() -> None:
    with pytest.raises(Invalid, match="Invalid json body"):
        manifest.parse(b"[" * 200_000)


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=20,
    )
)
def test_whatever_json_comes_in_either_parses_or_is_refused(document: Any) -> None:
    with suppress(Invalid):
        assert manifest.parse(json.dumps(document).encode()).app_id


def test_what_is_stored_describes_the_snapshot_whole() -> None:
    wanted = manifest.parse(body(head_sha="a" * 40, head_ref="main", images={"a.png": {**IMAGE, "group": "g"}}))
    artifact = uuid.uuid4()
    document = json.loads(manifest.stored(wanted, artifact, 12, datetime(2026, 1, 2, tzinfo=UTC), "token:ci"))
    assert document["artifact_id"] == str(artifact)
    assert document["commit"]["head_sha"] == "a" * 40
    assert document["images"]["a.png"] == {**IMAGE, "group": "g", "diff_threshold": None}
