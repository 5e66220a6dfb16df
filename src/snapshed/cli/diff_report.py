"""The report of `snapshed diff` as a folder: a page for people, a document for programs, and the pictures beside them.

The page runs no script and fetches nothing; every name and text in it came from outside and is escaped.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from snapshed.cli.terminal import share
from snapshed.domain import report
from snapshed.domain.categorise import Category
from snapshed.errors import Invalid

if TYPE_CHECKING:
    from snapshed.cli.diff import Compared
    from snapshed.cli.images import File
    from snapshed.domain.report import Result

_PAGE, _DOCUMENT, _MASKS, _IMAGES = "report.html", "report.json", "masks", "images"
_OURS = re.compile(r"[0-9a-f]{20}(-[0-9a-f]{20})?\.(png|jpg)")

_LISTED = 2000
"""How many names a section of the page lists; the document has them all."""

_SECTIONS: tuple[tuple[Category, str], ...] = (
    ("errored", "They could not be compared, so nobody knows whether they changed."),
    ("changed", "They look different. The largest difference comes first."),
    ("removed", "The base has them, the head does not."),
    ("added", "The head has them, the base does not."),
    ("renamed", "The same image under another name."),
    ("skipped", "Left out of a partial upload; nothing is said about them."),
    ("unchanged", "They look like their base."),
)
_WITH_PICTURES = frozenset({"changed", "added", "removed", "errored"})


@dataclass(frozen=True, slots=True)
class _Mark:
    """A changed region, in percent of the picture it is drawn over."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True, slots=True)
class _Line:
    """One name on the page."""

    name: str
    facts: tuple[tuple[str, str], ...]
    note: str | None
    base: str | None
    head: str | None
    mask: str | None
    marks: tuple[_Mark, ...]


@dataclass(frozen=True, slots=True)
class _Section:
    category: Category
    says: str
    count: int
    lines: tuple[_Line, ...]
    has_pictures: bool


def prepare(out: Path) -> Path:
    """Make the folder ready for a report and return the one for masks. An earlier report of ours is taken away; a folder
    with anything else in it is refused with Invalid."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        present = {entry.name for entry in out.iterdir()}
        if present and not (_DOCUMENT in present and present <= {_PAGE, _DOCUMENT, _MASKS, _IMAGES}):
            raise Invalid(f"{out} is not empty and holds no earlier report alone; name a new folder.")
        for folder in (out / _MASKS, out / _IMAGES):
            folder.mkdir(exist_ok=True)
            for file in folder.iterdir():
                if _OURS.fullmatch(file.name):
                    file.unlink()
    except OSError as error:
        raise Invalid(f"{out} cannot be written to ({error.strerror}); name another folder.") from error
    return out / _MASKS


def write(out: Path, compared: Compared, document: Mapping[str, Any], reasons: Mapping[str, str]) -> None:
    """Write the page and the document, and copy the images that the page shows. Raises Invalid."""
    try:
        pictures = _Pictures(out / _IMAGES)
        sections = tuple(_sections(compared, pictures, reasons))
        page = _template().render(
            verdict=compared.verdict,
            base_dir=document["base_dir"],
            head_dir=document["head_dir"],
            algorithm=document["algorithm"],
            sections=sections,
            left_out=document["left_out"],
        )
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (out / _PAGE).write_text(page, "utf-8", "xmlcharrefreplace")
        (out / _DOCUMENT).write_text(text, "utf-8")
    except OSError as error:
        raise Invalid(f"{out} cannot be written to ({error.strerror}); name another folder.") from error


class _Pictures:
    """Copies of the images that the page shows, each once, named by its digest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def of(self, file: File | None) -> str | None:
        """The page's address of an image; None if there is none that a browser could show."""
        if file is None or not file.width or not file.height:
            return None
        ending = "png" if file.path.suffix.lower() == ".png" else "jpg"
        name = f"{file.digest[:20]}.{ending}"
        if not (self._folder / name).exists():
            shutil.copyfile(file.path, self._folder / name)
        return f"{_IMAGES}/{name}"


def _sections(compared: Compared, pictures: _Pictures, reasons: Mapping[str, str]) -> Iterator[_Section]:
    for category, says in _SECTIONS:
        found = [result for result in compared.results if result.category == category]
        if category == "changed":
            found.sort(key=lambda result: (-(result.ratio or 0), result.name))
        if found:
            has_pictures = category in _WITH_PICTURES
            shown = pictures if has_pictures else None
            lines = tuple(_line(result, compared, shown, reasons) for result in found[:_LISTED])
            yield _Section(category, says, len(found), lines, has_pictures)


def _line(result: Result, compared: Compared, pictures: _Pictures | None, reasons: Mapping[str, str]) -> _Line:
    mask = compared.mask_of(result) if pictures and result.category == "changed" else None
    return _Line(
        name=result.name,
        facts=tuple(_facts(result)),
        note=_note(result, reasons),
        base=pictures.of(compared.base.get(result.name)) if pictures else None,
        head=pictures.of(compared.head.get(result.name)) if pictures else None,
        mask=f"{_MASKS}/{mask.name}" if mask else None,
        marks=tuple(_marks(result)),
    )


def _facts(result: Result) -> Iterator[tuple[str, str]]:
    if result.changed_pixels and result.total_pixels:
        yield "Pixels", f"{result.changed_pixels:,} of {result.total_pixels:,}"
        yield "Share", share(result.ratio or 0)
    if result.category in ("changed", "unchanged") and result.threshold is not None:
        origin = {"image": "the image's own", "manifest": "for all images", "default": "the default"}
        yield "Threshold", f"{share(result.threshold)}, {origin[result.threshold_from or 'default']}"
    if result.category == "changed":
        passing = result.passing_threshold
        yield "Would pass at", "no threshold" if passing is None else f"{passing:.6g} and above"
        yield "Regions", str(len(result.regions or ()))
        yield "Fingerprint", (result.fingerprint or "")[:12]


def _note(result: Result, reasons: Mapping[str, str]) -> str | None:
    if result.category == "renamed":
        return f"was {result.previous_name}"
    if result.category == "errored":
        reason = result.detail or reasons.get(result.reason or "", "it could not be compared")
        return f"{reason[0].upper()}{reason[1:]}."
    return report.sentence(result)


def _marks(result: Result) -> Iterator[_Mark]:
    """Where to draw the regions over the head's picture, which may be smaller than the canvas."""
    width, height = result.head_width or 0, result.head_height or 0
    if not width or not height:
        return
    for left, top, wide, high in result.regions or ():
        right, bottom = min(left + wide, width), min(top + high, height)
        if left < right and top < bottom:
            yield _Mark(
                100 * left / width, 100 * top / height, 100 * (right - left) / width, 100 * (bottom - top) / height
            )


def _template() -> Any:  # noqa: ANN401  jinja2's own type is private to its loader
    environment = Environment(
        loader=PackageLoader("snapshed.cli"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("diff.html")
