"""The pytest plugin: a fixture that takes images, and one upload when the run is over.

Every pytest run of an environment with Snapshed loads this module, so nothing of Snapshed is imported before a run asks
for it. No test waits for a server: images are written to a folder, and the process that ends the run uploads it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import pytest

if TYPE_CHECKING:
    from snapshed.cli.commit import Facts
    from snapshed.cli.http import Server
    from snapshed.cli.images import Scan
    from snapshed.cli.waiting import Outcome

FIXTURE = "snapshed"
_GATE_SECONDS = 600.0
_GLANCE_SECONDS = 30.0
"""How long the verdict is waited for when nothing depends on it."""

_STARTS = {b"\x89PNG": ".png", b"\xff\xd8\xff": ".jpg"}
_SHOWN = 10
_FAILED = pytest.ExitCode.TESTS_FAILED


class HasScreenshot(Protocol):
    """A page or a part of one, such as Playwright's."""

    def screenshot(self) -> object: ...


Picture = bytes | bytearray | Path | HasScreenshot
"""What the fixture takes an image from."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options, and their lines in an ini file."""
    group = parser.getgroup("snapshed", "visual snapshots")
    group.addoption(
        "--snapshed", action="store_true", help="Upload the images of the `snapshed` fixture as one snapshot."
    )
    group.addoption(
        "--snapshed-gate",
        action="store_true",
        help="Upload, wait for the verdict, and fail the run unless there is nothing left to review.",
    )
    group.addoption("--snapshed-dir", metavar="DIR", help="Keep the images in this new or empty folder.")
    group.addoption(
        "--snapshed-app-id", metavar="APP", help="What the images are of; else the ini line snapshed_app_id."
    )
    group.addoption("--snapshed-project", metavar="PROJECT", help="Else the ini line snapshed_project, else main.")
    group.addoption(
        "--snapshed-selective",
        action="store_true",
        help="This run takes only some of all images; the rest is not gone.",
    )
    parser.addini("snapshed_app_id", "What the images of the `snapshed` fixture are of, such as web.")
    parser.addini("snapshed_project", "Project of the token's organization.", default="main")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare what the options ask for; whatever is wrong with them is said before the first test runs."""
    given = getattr(config, "workerinput", None)
    if given is not None:  # one of several workers; the process that started it does everything but taking images
        if places := given.get(FIXTURE):
            config.pluginmanager.register(Taking(Collection(*map(Path, places))), "snapshed-taking")
        return
    uploads = bool(config.getoption("snapshed") or config.getoption("snapshed_gate"))
    kept = config.getoption("snapshed_dir")
    if uploads or kept:
        run = Run(config, Path(kept) if kept else None, uploads=uploads)
        config.pluginmanager.register(run, "snapshed-run")
        config.pluginmanager.register(Taking(run.collection), "snapshed-taking")


@pytest.fixture(name=FIXTURE)
def _taking(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Take an image: `snapshed(name, image)`.

    `image` is the bytes of a PNG or JPEG file, the path of one, or anything with `screenshot()`, such as a page or a
    locator of Playwright. What else is given (`group`, `display_name`, `tags`, `diff_threshold`, …) is kept with it.
    """
    taking = request.config.pluginmanager.get_plugin("snapshed-taking")
    test = request.node.nodeid
    used: set[str] = set()

    def take(name: str, image: Picture, **facts: object) -> None:
        __tracebackhide__ = True
        from snapshed.errors import Invalid

        try:
            data = _bytes_of(image)
            stem, ending = _named(name, data, used)
            _check(stem + ending, data, facts)
            if taking is not None:
                taking.collection.take(test, stem, ending, data, facts)
        except Invalid as wrong:
            pytest.fail(str(wrong), pytrace=True)

    return take


# --- Taking images ---------------------------------------------------------------------------------------------------


def _bytes_of(image: Picture) -> bytes:
    from snapshed.errors import Invalid

    if isinstance(image, bytes | bytearray):
        return bytes(image)
    if isinstance(image, Path):
        return image.read_bytes()
    if not callable(getattr(image, "screenshot", None)):
        raise Invalid(f"A {type(image).__name__} is no image; give bytes, a Path, or something with screenshot().")
    made: object = image.screenshot()
    if inspect.isawaitable(made):
        if inspect.iscoroutine(made):
            made.close()
        raise Invalid("screenshot() has to be awaited here; await it and give its bytes.")
    return _bytes_of(cast("bytes", made))


def _named(name: str, data: bytes, used: set[str]) -> tuple[str, str]:
    """The name without its ending, and the ending that goes with the bytes; remembered in `used`. Raises Invalid."""
    from snapshed.domain import manifest
    from snapshed.errors import Invalid

    ending = next((ending for start, ending in _STARTS.items() if data.startswith(start)), None)
    if ending is None:
        raise Invalid(f"The image {name!r} is neither a PNG nor a JPEG file.")
    stem = name.removesuffix(".png").removesuffix(".jpg").removesuffix(".jpeg")
    manifest.check_name(stem + ending)
    if any(part.startswith(".") for part in stem.split("/")):
        raise Invalid(f"No part of the image name {name!r} may start with a dot.")
    if stem in used:
        raise Invalid(f"This test has taken {name!r} already; every image needs a name of its own.")
    used.add(stem)
    return stem, ending


def _check(name: str, data: bytes, facts: dict[str, object]) -> None:
    """What the server would refuse when the run is over is the test's mistake now. Raises Invalid."""
    from snapshed.cli import images
    from snapshed.domain import manifest
    from snapshed.errors import Invalid

    size = images.size_of(data)
    if size is None:
        raise Invalid(f"The image {name!r} cannot be read as a PNG or JPEG file.")
    if size[0] * size[1] > images.MOST_PIXELS:
        raise Invalid(f"The image {name!r} is too large; an image may have {images.MOST_PIXELS:,} pixels.")
    entry = {**facts, "content_hash": hashlib.sha256(data).hexdigest(), "width": size[0], "height": size[1]}
    try:
        body = json.dumps({"app_id": "app", "images": {name: entry}}, allow_nan=False).encode()
    except (TypeError, ValueError):
        raise Invalid(f"What is said about the image {name!r} cannot be written as JSON.") from None
    manifest.parse(body)


class Collection:
    """The images of one run, and notes beside them that say whose they are. Every process of the run writes here."""

    def __init__(self, images: Path, notes: Path) -> None:
        self.images = images
        self.notes = notes

    @property
    def places(self) -> list[str]:
        """The two folders, for another process."""
        return [str(self.images), str(self.notes)]

    def take(self, test: str, stem: str, ending: str, data: bytes, facts: dict[str, object]) -> None:
        """Write an image; the same test again, in a second attempt, writes it anew. Raises Invalid."""
        from snapshed.errors import Invalid

        note = self._note("name", stem)
        try:
            with note.open("x") as new:
                new.write(test)
        except FileExistsError:
            owner = note.read_text()
            if owner != test:
                raise Invalid(
                    f"{owner or 'Another test'} has taken {stem!r} already; every image needs its own name."
                ) from None
        file = self.images / f"{stem}{ending}"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            beside = self.images / f"{stem}.json"
            beside.unlink(missing_ok=True)
            if facts:
                beside.write_text(json.dumps(facts))
        except OSError as error:
            raise Invalid(f"The image {stem!r} cannot be written ({error.strerror}); give it another name.") from None

    def lack(self, test: str, why: str | None) -> None:
        """Note that a test's images may be missing, and why; or, with None, that they are all here."""
        note = self._note("lack", test)
        if why is None:
            note.unlink(missing_ok=True)
        else:
            note.write_text(why)

    def lacking(self) -> list[str]:
        """Why images may be missing, a reason a test."""
        return sorted(note.read_text() for note in self.notes.glob("lack-*"))

    def _note(self, kind: str, of: str) -> Path:
        return self.notes / f"{kind}-{hashlib.sha256(of.encode()).hexdigest()}"


class Taking:
    """In every process that runs tests: notes which tests did not give all their images."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """A test that was not wanted takes no images."""
        for item in items:
            if FIXTURE in getattr(item, "fixturenames", ()):
                self.collection.lack(item.nodeid, f"{item.nodeid} was not selected")

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A test that fails may have failed before it took its last image."""
        report = yield
        if FIXTURE in getattr(item, "fixturenames", ()) and (report.failed or report.when == "call"):
            self.collection.lack(item.nodeid, f"{item.nodeid} failed" if report.failed else None)
        return report


# --- The end of the run ----------------------------------------------------------------------------------------------


class Run:
    """In the process that ends the run: uploads the folder, and says what came of it."""

    def __init__(self, config: pytest.Config, kept: Path | None, *, uploads: bool) -> None:
        self._app_id = str(config.getoption("snapshed_app_id") or config.getini("snapshed_app_id") or "")
        self._project = str(config.getoption("snapshed_project") or config.getini("snapshed_project"))
        self._is_gate = bool(config.getoption("snapshed_gate"))
        self._is_selective = bool(config.getoption("snapshed_selective")) or any("::" in word for word in config.args)
        self._uploads = uploads
        self._said: list[str] = []
        self._is_bad = False
        self._facts: Facts = {}
        self._server: Server | None = self._prepared() if uploads else None
        self._own = Path(tempfile.mkdtemp(prefix="snapshed-pytest-"))
        self.collection = Collection(kept.absolute() if kept else self._own / "images", self._own / "notes")
        self.collection.notes.mkdir()
        self._make_folder(self.collection.images)

    def _prepared(self) -> Server:
        """The server, and the commit the images are of. Raises UsageError for whatever would fail an hour later."""
        from snapshed.cli import commit
        from snapshed.cli.http import server_of
        from snapshed.errors import SnapshedError

        if not self._app_id:
            raise pytest.UsageError(
                "Say what the images are of: --snapshed-app-id APP, or the ini line snapshed_app_id."
            )
        try:
            server = server_of(os.environ.get("SNAPSHED_TOKEN"), os.environ.get("SNAPSHED_URL"))
            self._facts = commit.detect({}, os.environ, commit.read_event(os.environ), commit.read_checkout(Path.cwd()))
        except SnapshedError as error:
            raise pytest.UsageError(str(error)) from None
        return server

    def _make_folder(self, images: Path) -> None:
        try:
            images.mkdir(parents=True, exist_ok=True)
            filled = any(images.iterdir())
        except OSError as error:
            raise pytest.UsageError(f"{images} cannot be used ({error.strerror}).") from None
        if filled:
            raise pytest.UsageError(
                f"{images} is not empty; what is left of another run would be uploaded with this one."
            )

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:  # noqa: ANN401  pytest-xdist may not be here to name its type
        """Tell a worker of pytest-xdist where to write."""
        node.workerinput[FIXTURE] = self.collection.places

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:  # noqa: ANN401  as above
        """A worker that died took its images with it."""
        if error:
            self.collection.lack(f"worker {node.gateway.id}", f"the worker {node.gateway.id} died")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Upload; a gate, or an upload that was asked for and is not done, makes the run fail."""
        if session.shouldfail or session.shouldstop:
            self.collection.lack("the run", "the run stopped early")
        if exitstatus not in (pytest.ExitCode.OK, _FAILED, pytest.ExitCode.NO_TESTS_COLLECTED):
            self._say_bad("The run was not finished, so nothing was uploaded.", is_bad=self._uploads)
        else:
            self._finish()
        if self._is_bad and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = _FAILED

    def _finish(self) -> None:
        from snapshed.cli import images
        from snapshed.cli.terminal import counted
        from snapshed.errors import SnapshedError

        try:
            scan = images.scan(self.collection.images)
            if self._server is None:
                self._said.append(f"{counted(len(scan.files), 'image')} in {self.collection.images}.")
            elif not scan.files:
                self._say_bad("No test took an image, so nothing was uploaded.", is_bad=self._is_gate)
            else:
                self._upload(self._server, scan)
        except SnapshedError as error:
            self._say_bad(str(error), is_bad=True)

    def _upload(self, server: Server, scan: Scan) -> None:
        from snapshed.cli import transfer, waiting
        from snapshed.cli.terminal import Output
        from snapshed.errors import Unavailable

        lacking = self.collection.lacking()
        options: dict[str, Any] = {name: fact.value for name, fact in self._facts.items()}
        if lacking or self._is_selective:
            self._say_partial(lacking)
            if "base_sha" not in options:
                self._say_bad(
                    "Nothing was uploaded: a snapshot without a base commit is a base itself, and must be whole.",
                    is_bad=True,
                )
                return
            options["selective"] = True
        output = Output(quiet=True)
        body = transfer.wanted(self._app_id, scan.files, options)
        made = transfer.upload(server, self._project, scan, body, output)
        try:
            outcome = waiting.verdict(server, made.number, _GATE_SECONDS if self._is_gate else _GLANCE_SECONDS, output)
        except Unavailable as error:
            self._say_bad(str(error), is_bad=self._is_gate)
        else:
            self._judge(outcome)
        self._said.append(made.url)

    def _say_partial(self, lacking: list[str]) -> None:
        self._said.append("Only some of all images; the others are not taken for removed.")
        self._said += [f"  {reason}" for reason in lacking[:_SHOWN]]
        if len(lacking) > _SHOWN:
            self._said.append(f"  and {len(lacking) - _SHOWN} more")

    def _judge(self, outcome: Outcome) -> None:
        from snapshed.cli import waiting

        self._say_bad(waiting.sentence(outcome), is_bad=self._is_gate and outcome.exit_code != 0)

    def _say_bad(self, sentence: str, *, is_bad: bool) -> None:
        self._said.append(sentence)
        self._is_bad = self._is_bad or is_bad

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """The verdict and the page's address."""
        from snapshed.cli.terminal import printable

        terminalreporter.section("snapshed", red=self._is_bad, green=not self._is_bad)
        for sentence in self._said:
            terminalreporter.line(printable(sentence))

    def pytest_unconfigure(self) -> None:
        """Remove what nobody asked to keep."""
        shutil.rmtree(self._own, ignore_errors=True)
        if self._server is not None:
            self._server.close()
