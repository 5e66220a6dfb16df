"""`snapshed demo`: the main job from nothing, on real screenshots, every claim checked on the way.

Nothing of it is left behind, and no installation but its own temporary one is touched.
"""

from __future__ import annotations

import hashlib
import json
import signal
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from functools import partial
from importlib.resources import as_file, files
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast

import typer

from snapshed.cli import images, receipts, transfer, waiting
from snapshed.cli.http import Document, Server, server_of
from snapshed.cli.images import Scan
from snapshed.cli.local import Local
from snapshed.cli.terminal import Output, counted, sized
from snapshed.errors import Broken, NotFound

_APP = "demo"
_PROJECT = "main"
_BASE_SHA, _HEAD_SHA = "a" * 40, "b" * 40
_SECONDS = 120.0
_THREADS = 8

Result = TypeVar("Result")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(demo)


def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the server running until Ctrl-C.")] = False,
) -> None:
    """Upload, compare, delete and prove that it is gone, on a server of its own."""
    output = Output()
    with (
        _stopped_by_signals(),
        as_file(files("snapshed") / "samples") as samples,
        tempfile.TemporaryDirectory(prefix="snapshed-demo-") as folder,
    ):
        local = Local(Path(folder))
        try:
            tour = Tour(output, local, samples)
            tour.step("Start a server with a database of its own", local.wait_until_ready)
            with server_of(local.admin_token(), local.url, use_proxies=False) as server:
                tour.walk(server)
                if keep:
                    tour.stay(server)
            tour.step("Stop the server", local.stop)
        finally:
            local.end()
    output.say("Everything was as it should be, and the temporary folder is gone.")


@contextmanager
def _stopped_by_signals() -> Generator[None]:
    """Let SIGTERM and SIGHUP stop us as Ctrl-C does, so that the server and its folder go with us."""
    numbers = (signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, signal.default_int_handler) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Tour:
    """The steps, numbered and timed. Each raises Broken with a sentence if something is not as it should be."""

    def __init__(self, output: Output, local: Local, samples: Path) -> None:
        self._output = output
        self._quiet = Output(quiet=True)
        self._local = local
        self._expected = cast("dict[str, Any]", json.loads((samples / "expected.json").read_bytes()))
        self._base = images.scan(samples / "base")
        self._head = images.scan(samples / "head")
        self._steps = 0

    def step(self, what: str, act: Callable[[], Result]) -> Result:
        """Do one step and say how long it took."""
        self._steps += 1
        started_at = time.monotonic()
        with self._output.waiting(f"{what} …") if self._output.is_watched else nullcontext():
            result = act()
        self._output.say(f"{self._steps:>2}. {what:<52}{time.monotonic() - started_at:6.1f} s")
        return result

    def tell(self, text: str) -> None:
        """A line about the step before."""
        self._output.say(f"    {text}")

    # --- The way ------------------------------------------------------------------------------------------------

    def walk(self, server: Server) -> None:
        """Upload, compare, delete, prove."""
        base = self.step("Upload the base's images", lambda: self._upload_base(server))
        self.tell(f"Snapshot {base.number}: {counted(base.images, 'image')}, {base.already} of them already there.")
        head = self.step("Upload the head's images", lambda: self._upload_head(server))
        self.tell(f"Snapshot {head.number}: {counted(head.images, 'image')}, {head.already} of them already there.")
        outcome = self.step("Compare them", lambda: waiting.verdict(server, head.number, _SECONDS, self._quiet))
        self._check_comparison(waiting.details(server, head.number))
        self.tell(waiting.sentence(outcome))
        self.tell(outcome.url)
        preview = self.step(
            "Preview the deletion of the base", lambda: receipts.preview(server, [base.number], None, urgent=False)
        )
        self._check_preview(preview)
        receipt = self.step("Delete the base", lambda: self._delete(server, base.number, str(preview["plan"])))
        self._output.say()
        receipts.show(receipt, self._output)
        self._output.say()
        self._prove(server, receipt, base.number, head.number)

    def _prove(self, server: Server, receipt: Document, base: str, head: str) -> None:
        asked = self.step("Verify the receipt", lambda: self._verify(server, receipt))
        self.tell(f"Its signature holds; the store was asked about {counted(asked, 'object')} and has none of them.")
        self.step("Read every image of the head, and ask for the deleted", lambda: self._read(server, base, head))
        self.tell(f"{len(_digests(self._head))} are whole; all {len(self._gone)} that only the base had are not found.")
        self.step("Reconcile rows, objects and every byte", self._local.reconcile)
        self.tell("Rows, objects and traces agree.")
        found = self.step("Look at the files on disk", self._look)
        self.tell(f"{counted(found, 'file')}: the head's images and manifest, the journal, and nothing else.")

    def stay(self, server: Server) -> None:
        """Put the base back, so that there is something to look at, and stay until Ctrl-C."""
        self.step("Upload the base again, to have something to see", lambda: self._upload_base(server))
        number = waiting.newest_of_commit(server, _HEAD_SHA, _APP)
        waiting.verdict(server, number, _SECONDS, self._quiet)
        once = self._local.sign_in_address()
        self._output.say()
        self._output.say(f"The server stays at   {self._local.url}")
        if once:
            self._output.say(f"Sign in once at       {once}")
        self._output.say(f"The comparison is at  {server.page(number)}")
        self._output.say(f"Its data folder is    {self._local.data}")
        try:
            # Inside: whoever is told to press Ctrl-C may be quick.
            self._output.say("Press Ctrl-C to stop it and remove the folder.")
            while self._local.is_running:
                time.sleep(0.5)
        except KeyboardInterrupt:
            self._output.say()
            return
        raise Broken("The server has stopped by itself.")

    # --- The steps ----------------------------------------------------------------------------------------------

    def _upload_base(self, server: Server) -> transfer.Uploaded:
        return self._upload(server, self._base, {"head_sha": _BASE_SHA})

    def _upload_head(self, server: Server) -> transfer.Uploaded:
        return self._upload(server, self._head, {"head_sha": _HEAD_SHA, "base_sha": _BASE_SHA})

    def _upload(self, server: Server, scan: Scan, options: dict[str, Any]) -> transfer.Uploaded:
        body = transfer.wanted(_APP, scan.files, options)
        return transfer.upload(server, _PROJECT, scan, body, self._quiet)

    def _check_comparison(self, details: Document) -> None:
        wrong = differences(details, self._expected)
        _demand(not wrong, f"The comparison is not what it should be: {'; '.join(wrong)}.")
        _demand(details.get("verdict") == "changed", f"The verdict is {details.get('verdict')}, not changed.")

    @property
    def _gone(self) -> set[str]:
        return _digests(self._base) - _digests(self._head)

    @property
    def _shared(self) -> set[str]:
        return _digests(self._base) & _digests(self._head)

    def _check_preview(self, preview: Document) -> None:
        counts, waits = preview["objects"]["image"], preview["bytes"]["waiting"]
        _demand(
            counts["waiting"] == len(self._gone) and counts["kept_shared"] == len(self._shared),
            f"The preview says {counts}, but {len(self._gone)} images are the base's alone.",
        )
        self.tell(
            f"{counts['waiting']} of its images would go ({sized(waits)} with masks and manifest); "
            f"the head shares {counts['kept_shared']}, which stay."
        )

    def _delete(self, server: Server, number: str, plan: str) -> Document:
        receipt = receipts.delete(server, [number], "The demo shows a deletion.", urgent=False, plan=plan)
        deadline = time.monotonic() + _SECONDS
        while receipt["state"] != "complete":
            _demand(
                time.monotonic() < deadline, " ".join(["The deletion is not complete.", *receipts.holding(receipt)])
            )
            time.sleep(0.05)
            receipt = receipts.find(server, str(receipt["id"]))
        counts = receipt["objects"]["image"]
        _demand(
            counts["removed"] == len(self._gone) and counts["kept_shared"] == len(self._shared),
            f"The receipt says {counts}, but {len(self._gone)} images were the base's alone.",
        )
        return receipt

    def _verify(self, server: Server, receipt: Document) -> int:
        checked = receipts.verify(server, str(receipt["id"]))
        _demand(checked.get("signed") is True, "The receipt's signature does not hold.")
        _demand(not checked.get("standing"), "The store still has objects that the receipt says are gone.")
        return int(checked["asked"])

    def _read(self, server: Server, base: str, head: str) -> None:
        _demand(_is_absent(lambda: waiting.details(server, base)), "The deleted snapshot can still be read.")
        shown = {image["image_file_name"]: image["key"] for image in waiting.details(server, head)["images"]}
        _demand(
            shown == {file.name: file.digest for file in self._head.files}, "The head does not list all its images."
        )
        place = transfer.open_session(server, _PROJECT)

        def read(digest: str) -> bytes:
            return server.send("GET", place.address(digest), place.headers).content

        def is_absent(digest: str) -> bool:
            return _is_absent(partial(read, digest))

        with ThreadPoolExecutor(_THREADS) as pool:
            wanted = sorted(_digests(self._head))
            for digest, data in zip(wanted, pool.map(read, wanted), strict=True):
                _demand(hashlib.sha256(data).hexdigest() == digest, f"The image {digest} is not whole.")
            gone = sorted(self._gone)
            for digest, absent in zip(gone, pool.map(is_absent, gone), strict=True):
                _demand(absent, f"The deleted image {digest} can still be read.")

    def _look(self) -> int:
        """Every file in the store with our own eyes: by name, and by content, whatever it is called."""
        standing: dict[str, str] = {}
        ours = 0
        for file in self._local.stored_files():
            ours += 1
            actual = hashlib.sha256(file.read_bytes()).hexdigest()
            _demand(actual not in self._gone, f"{file.name} still holds a deleted image.")
            if ".snapshed" not in file.parts:
                standing[file.name.split(".")[0]] = actual
        _demand(all(name == actual for name, actual in standing.items()), "A stored file is not what its name says.")
        _demand(_digests(self._head) <= standing.keys(), "An image of the head is missing on disk.")
        extra = len(standing.keys() - _digests(self._head))
        _demand(extra == 1, f"Beside the head's images there should be its manifest alone, not {extra} objects.")
        return ours


def differences(details: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What a comparison got otherwise than expected, in words. Pure."""
    names = {kind: sorted(image["image_file_name"] for image in details[kind]) for kind in ("added", "removed")}
    names["changed"] = sorted(pair["head_image"]["image_file_name"] for pair in details["changed"])
    found = [
        f"{kind} are {', '.join(names[kind]) or 'none'}" for kind in names if names[kind] != sorted(expected[kind])
    ]
    renamed = {
        pair["head_image"]["image_file_name"]: pair["base_image"]["image_file_name"] for pair in details["renamed"]
    }
    if renamed != expected["renamed"]:
        found.append(f"renamed are {renamed}")
    same = expected["unchanged"] + len(expected["unchanged_but_different_bytes_or_antialiasing"])
    if details["unchanged_count"] != same:
        found.append(f"{details['unchanged_count']} are unchanged instead of {same}")
    if details["errored_count"]:
        found.append(f"{details['errored_count']} could not be compared")
    return found


def _digests(scan: Scan) -> set[str]:
    return {file.digest for file in scan.files}


def _is_absent(ask: Callable[[], object]) -> bool:
    try:
        ask()
    except NotFound:
        return True
    return False


def _demand(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Broken(otherwise)
