"""The client commands and the demo, as a shell sees them: real processes against a real server.

No test here looks inside the server; what counts is exit codes, standard output and standard error.
"""

from __future__ import annotations

import io
import json
import os
import pty
import random
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from snapshed.cli import archives, commit, transfer
from snapshed.cli.commit import Checkout
from snapshed.cli.http import Server, server_of
from snapshed.cli.images import scan
from snapshed.cli.terminal import Output, printable
from snapshed.errors import Broken, Invalid
from snapshed.settings import Secret

COMMAND = (sys.executable, "-m", "snapshed")
CI = ("CI", "GITHUB_", "GITLAB_", "SNAPSHED_")


def environment(**more: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith(CI)} | more


@dataclass(frozen=True)
class Done:
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Site:
    """A running server, and the commands against it."""

    url: str
    token: str

    def run(self, *arguments: str | Path, token: str | None = None, url: str | None = None) -> Done:
        secret = self.token if token is None else token
        more = {"SNAPSHED_TOKEN": secret} | ({"SNAPSHED_URL": url} if url else {})
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            env=environment(**more),
            timeout=120,
        )
        said = done.stdout + done.stderr
        assert "Traceback" not in said
        assert "internal error" not in said
        if secret.startswith("sntrys_"):
            assert secret.rpartition("_")[2] not in said, "the token's secret was shown"
        return Done(done.returncode, done.stdout, done.stderr)

    def upload(self, folder: Path, *more: str) -> str:
        """The number of a new snapshot."""
        done = self.run("upload", folder, "--app-id", "web", "--no-git-metadata", "--json", *more)
        assert done.status == 0, done.err
        return str(done.json["snapshot"])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Generator[Site]:
    data = tmp_path_factory.mktemp("served") / "data"
    with subprocess.Popen(
        [*COMMAND, "serve", "--data", str(data), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("Snapshed is ready at ")
        yield Site(line.split()[-1], (data / "admin-token").read_text().strip())
        server.terminate()
        assert server.wait(30) == 0


@pytest.fixture
def sha() -> Callable[[], str]:
    """Commits nobody else has."""
    return lambda: "".join(random.choices("0123456789abcdef", k=40))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "images"
    for name in ("home.png", "cart/full.png", "cart/empty.PNG"):
        draw(made / name)
    return made


def draw(file: Path, size: tuple[int, int] = (40, 30)) -> None:
    """An image that no other test has."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", size, "white")
    image.paste(tuple(random.choices(range(200), k=3)), (0, 0, 20, 20))
    image.putpixel((25, 5), tuple(random.choices(range(200), k=3)))
    image.save(file)


def one_sentence(text: str) -> bool:
    return text.startswith("snapshed: ") and text.count("\n") == 1


# --- Uploading -------------------------------------------------------------------------------------------------------


def test_a_second_upload_sends_nothing(site: Site, folder: Path, sha: Callable[[], str]) -> None:
    first = site.run("upload", folder, "--app-id", "web", "--head-sha", sha())
    assert first.status == 0
    assert "0 of 3 images already uploaded, uploading 3" in first.out
    assert "with 3 images" in first.out
    second = site.run("upload", folder, "--app-id", "web", "--head-sha", sha())
    assert second.status == 0
    assert "3 of 3 images already uploaded." in second.out
    assert f"{site.url}/snapshots/" in second.out


def test_upload_prints_one_document_and_nothing_else(site: Site, folder: Path, sha: Callable[[], str]) -> None:
    commit_sha = sha()
    done = site.run("upload", folder, "--app-id", "web", "--head-sha", commit_sha, "--no-git-metadata", "--json")
    assert done.status == 0
    assert done.json["images"] == done.json["uploaded"] == 3
    assert done.json["commit"] == {"head_sha": commit_sha}
    assert done.json["url"] == f"{site.url}/snapshots/{done.json['snapshot']}"


def test_a_folder_is_read_as_sentry_cli_reads_it(site: Site, folder: Path) -> None:
    (folder / "home.json").write_text('{"display_name": "Home", "group": "Pages", "width": 1}')
    (folder / "cart/full.json").write_text('{"odd": NaN}')
    (folder / "broken.png").write_bytes(b"no image at all")
    (folder / "notes.txt").write_text("no image")
    draw(folder / ".hidden/secret.png")
    draw(folder / ".secret.png")
    draw(folder.parent / "elsewhere/linked.jpg")
    (folder / "linked").symlink_to(folder.parent / "elsewhere")
    (folder / "cart/loop").symlink_to(folder)
    done = site.run("upload", folder, "--app-id", "web", "--no-git-metadata", "--json")
    assert done.status == 0
    assert len(done.json["left_out"]) == 3  # the broken image, the broken facts, the loop
    assert "Warning: broken.png is not a readable PNG or JPEG" in done.err
    shown = site.run("show", done.json["snapshot"], "--json").json["images"]
    assert [image["image_file_name"] for image in shown] == [
        "cart/empty.PNG",
        "cart/full.png",
        "home.png",
        "linked/linked.jpg",
    ]
    home = shown[2]
    assert (home["display_name"], home["group"], home["width"], home["height"]) == ("Home", "Pages", 40, 30)


def test_an_image_too_large_for_a_batch_travels_alone(site: Site, folder: Path) -> None:
    noise = Image.frombytes("RGB", (700, 700), random.randbytes(700 * 700 * 3))
    noise.save(folder / "noise.png")
    assert (folder / "noise.png").stat().st_size > transfer.MOST_PART
    number = site.upload(folder)
    assert site.run("show", number, "--json").json["image_count"] == 4


def test_an_image_with_too_many_pixels_stops_the_upload(site: Site, folder: Path) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 5_000, 8, 2, 0, 0, 0))
    (folder / "huge.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"") + chunk(b"IEND", b""))
    done = site.run("upload", folder, "--app-id", "web")
    assert done.status == 2
    assert one_sentence(done.err)
    assert "huge.png" in done.err


@pytest.mark.parametrize(
    "options",
    [
        ["--diff-threshold", "1"],
        ["--head-sha", "short"],
        ["--selective"],
        ["--pr-number", "3"],
        ["--project", "absent"],
    ],
)
def test_what_the_server_would_refuse_is_refused(site: Site, folder: Path, options: list[str]) -> None:
    done = site.run("upload", folder, "--app-id", "web", "--no-git-metadata", *options)
    assert done.status == 2
    assert done.err.startswith("snapshed: ")
    assert "already uploaded" not in done.out


def test_a_folder_without_images_is_no_snapshot(site: Site, tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "absent"):
        done = site.run("upload", place, "--app-id", "web")
        assert done.status == 2
        assert one_sentence(done.err)


def test_a_selective_upload_names_all_images(site: Site, folder: Path, sha: Callable[[], str]) -> None:
    base_sha = sha()
    site.upload(folder, "--head-sha", base_sha)
    names = folder.parent / "names.txt"
    names.write_text("./home.png\n\n cart\\full.png\ncart/empty.PNG\n")
    (folder / "cart/full.png").unlink()
    (folder / "cart/empty.PNG").unlink()
    done = site.run(
        "upload", folder, "--app-id", "web", "--no-git-metadata", "--head-sha", sha(), "--base-sha", base_sha,
        "--all-image-file-names-file", names, "--wait", "--json",
    )  # fmt: skip
    assert done.status == 0, done.err
    assert (done.json["verdict"], done.json["counts"]["skipped"]) == ("passed", 2)


# --- Waiting ---------------------------------------------------------------------------------------------------------


def test_wait_is_a_gate(site: Site, folder: Path, sha: Callable[[], str]) -> None:
    base_sha, same_sha, other_sha = sha(), sha(), sha()
    base = site.upload(folder, "--head-sha", base_sha)
    alone = site.run("wait", base)
    assert (alone.status, "nothing to compare" in alone.out) == (0, True)

    same = site.upload(folder, "--head-sha", same_sha, "--base-sha", base_sha)
    assert site.run("wait", same).status == 0

    draw(folder / "home.png")
    done = site.run(
        "upload", folder, "--app-id", "web", "--no-git-metadata", "--head-sha", other_sha, "--base-sha", base_sha,
        "--wait",
    )  # fmt: skip
    assert done.status == 1
    assert "need review: 1 changed, 2 unchanged" in done.out
    again = site.run("wait", "--commit", other_sha, "--app-id", "web", "--json")
    assert again.status == 1
    assert again.json["verdict"] == "changed"
    shown = site.run("show", again.json["snapshot"])
    assert "changed  home.png" in shown.out
    assert f"Compared with snapshot {base}" in shown.out


def test_wait_says_what_it_waits_for_and_gives_up_in_time(site: Site, folder: Path, sha: Callable[[], str]) -> None:
    base_sha = sha()
    number = site.upload(folder, "--head-sha", sha(), "--base-sha", base_sha)
    done = site.run("wait", number, "--timeout", "1s", "--json")
    assert (done.status, done.out) == (75, "")
    assert base_sha[:12] in done.err.splitlines()[-1]
    site.upload(folder, "--head-sha", base_sha)
    assert site.run("wait", number).status == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["wait", "1", "--commit", "a" * 40],
        ["wait", "999999999999"],
        ["wait", "../1"],
        ["wait", "1", "--timeout", "soon"],
        ["wait", "--commit", "f" * 40],
        ["show", "999999999999"],
        ["receipt", "01a21232-5f02-7291-8baf-ae481444ee5a"],
        ["delete", "999999999999", "--yes"],
    ],
)
def test_what_is_not_there_is_refused_in_one_sentence(site: Site, arguments: list[str]) -> None:
    done = site.run(*arguments)
    assert (done.status, done.out) == (2, "")
    assert one_sentence(done.err)


# --- Reviewing and downloading -----------------------------------------------------------------------------------------


def test_a_rejection_and_an_approval_decide_the_gate(site: Site, folder: Path, sha: Callable[[], str]) -> None:
    base, head = sha(), sha()
    site.run("upload", folder, "--app-id", "decided", "--head-sha", base)
    draw(folder / "home.png")
    done = site.run("upload", folder, "--app-id", "decided", "--head-sha", head, "--base-sha", base, "--json")
    number = done.json["snapshot"]
    assert site.run("wait", number).status == 1
    rejected = site.run("reject", number)
    assert rejected.status == 0
    assert f"Snapshot {number}: Rejected." in rejected.out
    assert site.run("wait", number).status != 0
    approved = site.run("approve", number, "--json")
    assert approved.json == {"snapshot": number, "detail": "Approved", "url": f"{site.url}/snapshots/{number}"}
    assert site.run("wait", number).status == 0
    assert "Already approved" in site.run("approve", number).out


def test_a_snapshot_is_downloaded_as_it_was_uploaded(site: Site, folder: Path, tmp_path: Path) -> None:
    number = site.run("upload", folder, "--app-id", "web", "--no-git-metadata", "--json").json["snapshot"]
    out = tmp_path / "copy"
    done = site.run("download", number, "--out", out)
    assert done.status == 0, done.err
    assert "4 files" in done.out
    for file in ("home.png", "cart/full.png"):
        assert (out / file).read_bytes() == (folder / file).read_bytes()
    assert json.loads((out / "manifest.json").read_text())["kind"] == "snapshot"
    site.run("delete", number, "--yes")
    gone = site.run("download", number, "--out", tmp_path / "gone")
    assert gone.status == 2
    assert one_sentence(gone.err)
    assert not (tmp_path / "gone").exists()


@pytest.mark.parametrize("name", ["../escaped.png", "/escaped.png", "a/../../escaped.png", "a\\..\\escaped.png"])
def test_an_archive_cannot_write_outside_the_folder(tmp_path: Path, name: str) -> None:
    """A server that is not ours, or has been taken over, sends an archive with an evil name."""
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("fine.png", b"fine")
        archive.writestr(name, b"evil")

    class Evil(Server):
        def __init__(self) -> None:
            pass

        def stream(self, path: str, **query: str) -> Iterator[bytes]:
            del path, query
            yield made.getvalue()

    with pytest.raises(Broken, match="outside the folder"):
        archives.download(Evil(), "1", tmp_path / "out", Output(quiet=True))
    assert not list(tmp_path.rglob("*.png"))


def test_an_archive_does_not_follow_a_link_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to(tmp_path / "elsewhere")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("link/evil.png", b"evil")

    class Evil(Server):
        def __init__(self) -> None:
            pass

        def stream(self, path: str, **query: str) -> Iterator[bytes]:
            del path, query
            yield made.getvalue()

    with pytest.raises(Broken, match="outside the folder"):
        archives.download(Evil(), "1", tmp_path / "out", Output(quiet=True))
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- Deleting --------------------------------------------------------------------------------------------------------


def test_nothing_is_deleted_unasked(site: Site, folder: Path) -> None:
    number = site.upload(folder)
    done = site.run("delete", number)
    assert done.status == 2
    assert one_sentence(done.err)
    assert "--yes" in done.err
    preview = site.run("delete", number, "--dry-run", "--json")
    assert preview.status == 0
    assert preview.json["state"] == "preview"
    assert preview.json["objects"]["image"]["waiting"] == 3
    assert "Nothing has been deleted" in site.run("delete", number, "--dry-run").out
    assert site.run("show", number).status == 0


def test_a_deletion_waits_for_its_receipt_which_can_be_verified(site: Site, folder: Path) -> None:
    shared, number = site.upload(folder, "--head-sha", "0" * 40), ""
    draw(folder / "more.png")
    number = site.upload(folder)
    done = site.run("delete", number, "--yes", "--wait", "--reason", "no longer \x1b[31mneeded", "--json")
    assert done.status == 0, done.err
    assert done.json["state"] == "complete"
    assert done.json["objects"]["image"] == {
        "released": 4, "removed": 1, "waiting": 0, "kept_shared": 3, "kept_pinned": 0
    }  # fmt: skip
    assert site.run("show", number).status == 2
    assert site.run("show", shared).status == 0

    plain = site.run("receipt", done.json["id"])
    assert plain.status == 0
    assert "is complete" in plain.out
    assert "no longer \\x1b[31mneeded" in plain.out, "a reason must not steer the terminal"
    assert site.run("receipt", done.json["id"], "--json").json == done.json
    verified = site.run("receipt", done.json["id"], "--verify")
    assert verified.status == 0
    assert "Verified" in verified.out
    checked = site.run("receipt", done.json["id"], "--verify", "--json").json
    assert checked["verification"]["signed"] is True
    assert checked["receipt"] == done.json


def test_a_receipt_says_what_holds_it(site: Site, folder: Path) -> None:
    """An upload was promised the images and is still under way: they stay until it ends, and nobody is told less."""
    number = site.upload(folder)
    with server_of(site.token, site.url, use_proxies=False) as server:
        place = transfer.open_session(server, "main")
        assert len(transfer.ask(server, place, [file.digest for file in scan(folder).files])) == 3
    receipt = site.run("delete", number, "--yes", "--json").json
    assert receipt["state"] == "removing"
    held = site.run("receipt", receipt["id"], "--verify")
    assert held.status == 75
    assert "An upload in progress was promised" in held.err
    assert "An upload in progress was promised" in site.run("receipt", receipt["id"]).out


@pytest.mark.parametrize(("answer", "status"), [("n", 1), ("y", 0)])
def test_a_person_at_a_terminal_is_shown_what_goes_and_asked(
    site: Site, folder: Path, answer: str, status: int
) -> None:
    number = site.upload(folder)
    said, code = at_a_terminal(["delete", number, "--wait"], answer, site)
    assert code == status, said
    assert "would let go of" in said
    assert "Delete 1 snapshot now?" in said
    assert ("is complete" in said) == (answer == "y")
    assert site.run("show", number).status == (2 if answer == "y" else 0)


def at_a_terminal(arguments: list[str], answer: str, site: Site) -> tuple[str, int]:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(SNAPSHED_TOKEN=site.token, TERM="xterm", COLUMNS="200"),
        start_new_session=True,
    )
    os.close(theirs)
    said, answered = "", False
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # how a terminal says that nobody is there any more
            piece = b""
        if not piece:
            break
        said += piece.decode(errors="replace")
        if not answered and "now?" in said:
            os.write(ours, answer.encode() + b"\n")
            answered = True
    os.close(ours)
    return said, process.wait(60)


# --- Who and where ---------------------------------------------------------------------------------------------------


def test_a_token_that_is_not_accepted_is_refused_in_one_sentence(site: Site) -> None:
    revoked = site.token[:-6] + "AAAAAA"
    for token in (revoked, "sntrys_e30=_secret", "é", " "):
        done = site.run("show", "1", token=token)
        assert (done.status, done.out) == (2, "")
        assert one_sentence(done.err)


def test_a_server_that_is_away_means_try_later(site: Site, folder: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://127.0.0.1:{free.getsockname()[1]}"
    for arguments in (["show", "1"], ["wait", "1"], ["upload", str(folder), "--app-id", "web"]):
        done = site.run(*arguments, url=away)
        assert done.status == 75
        assert one_sentence(done.err)
    assert site.run("show", "1", "--url", "nowhere").status == 2


def test_requests_are_repeated_while_a_server_asks_for_patience() -> None:
    with answering([503, 502, 200]) as (url, asked), Server(url, "main", Secret("secret"), use_proxies=False) as server:
        assert server.post("deletions/", {"snapshots": ["1"]}) == {"detail": "as told"}
    assert asked == ['{"snapshots": ["1"]}'] * 3


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (200, "<html>Hello</html>", "does not answer like a Snapshed server"),
        (200, "[]", "does not answer like a Snapshed server"),
        (302, "", "served elsewhere"),
    ],
)
def test_a_stranger_is_not_taken_for_our_server(status: int, body: str, sentence: str) -> None:
    with (
        answering([status], body) as (url, _),
        Server(url, "main", Secret("secret"), use_proxies=False) as server,
        pytest.raises(Invalid, match=sentence),
    ):
        server.get("deletions/")


@contextmanager
def answering(statuses: list[int], body: str = '{"detail": "as told"}') -> Generator[tuple[str, list[str]]]:
    """A server that answers with these statuses in turn, and what it was asked."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.rfile.read(int(self.headers.get("content-length", 0))).decode())
            self.send_response(statuses[min(len(asked), len(statuses)) - 1])
            self.send_header("content-type", "application/json")
            self.send_header("location", "/elsewhere")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


# --- Which commit ----------------------------------------------------------------------------------------------------

CHECKOUT = Checkout(
    head_sha="1" * 40,
    branch="topic",
    base_sha="2" * 40,
    base_ref="main",
    remotes={"origin": "git@github.com:me/web.git", "upstream": "https://user:secret@github.com/acme/web.git"},
)


def values(facts: Mapping[str, commit.Fact]) -> dict[str, str | int]:
    return {name: fact.value for name, fact in facts.items()}


def test_git_tells_what_nobody_gave() -> None:
    assert values(commit.detect({"head_ref": "given"}, {}, {}, CHECKOUT)) == {
        "head_sha": "1" * 40,
        "base_sha": "2" * 40,
        "head_ref": "given",
        "base_ref": "main",
        "provider": "github",
        "head_repo_name": "me/web",
        "base_repo_name": "acme/web",
    }


def test_a_commit_of_the_main_branch_is_a_base_and_has_none() -> None:
    found = values(commit.detect({"head_sha": "2" * 40}, {}, {}, CHECKOUT))
    assert "base_sha" not in found
    assert "base_ref" not in found


def test_a_pull_request_on_github_is_known_from_its_event() -> None:
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_SHA": "9" * 40, "GITHUB_REPOSITORY": "acme/web"}
    event = {
        "pull_request": {
            "number": 7,
            "head": {"sha": "3" * 40, "ref": "topic", "repo": {"full_name": "me/web"}},
            "base": {"sha": "4" * 40, "ref": "main", "repo": {"full_name": "acme/web"}},
        }
    }
    facts = commit.detect({}, environ, event, Checkout())
    assert values(facts) == {
        "head_sha": "3" * 40,
        "base_sha": "4" * 40,
        "head_ref": "topic",
        "base_ref": "main",
        "provider": "github",
        "head_repo_name": "me/web",
        "base_repo_name": "acme/web",
        "pr_number": 7,
    }
    assert "pull request" in facts["head_sha"].source
    push = values(commit.detect({}, environ | {"GITHUB_REF_NAME": "main"}, {}, Checkout()))
    assert (push["head_sha"], push["head_ref"], "pr_number" in push) == ("9" * 40, "main", False)


def test_a_merge_request_on_gitlab_is_known_from_its_variables() -> None:
    environ = {
        "GITLAB_CI": "true",
        "CI_PROJECT_PATH": "acme/web",
        "CI_COMMIT_SHA": "9" * 40,
        "CI_MERGE_REQUEST_IID": "12",
        "CI_MERGE_REQUEST_DIFF_BASE_SHA": "4" * 40,
        "CI_MERGE_REQUEST_SOURCE_BRANCH_NAME": "topic",
        "CI_MERGE_REQUEST_TARGET_BRANCH_NAME": "main",
    }
    found = values(commit.detect({}, environ, {}, Checkout()))
    assert (found["head_sha"], found["base_sha"], found["pr_number"]) == ("9" * 40, "4" * 40, 12)
    assert (found["provider"], found["base_repo_name"]) == ("gitlab", "acme/web")


def test_a_real_checkout_is_read(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        named = ["-c", "user.name=a", "-c", "user.email=a@example.com", "-c", "init.defaultBranch=main"]
        done = subprocess.run(
            ["git", "-C", str(tmp_path), *named, *arguments], capture_output=True, check=True, text=True
        )
        return done.stdout.strip()

    assert commit.read_checkout(tmp_path / "absent") == Checkout()
    git("init", "--quiet")
    git("commit", "--quiet", "--allow-empty", "-m", "one")
    base = git("rev-parse", "HEAD")
    git("remote", "add", "origin", "ssh://git@git.example.com:2222/acme/web")
    git("update-ref", "refs/remotes/origin/main", base)
    git("symbolic-ref", "refs/remotes/origin/HEAD", "refs/remotes/origin/main")
    git("checkout", "--quiet", "-b", "topic")
    git("commit", "--quiet", "--allow-empty", "-m", "two")
    found = commit.read_checkout(tmp_path)
    assert (found.head_sha, found.branch) == (git("rev-parse", "HEAD"), "topic")
    assert (found.base_sha, found.base_ref) == (base, "main")
    assert values(commit.detect({}, {}, {}, found))["head_repo_name"] == "acme/web"


# --- What is shown ---------------------------------------------------------------------------------------------------


def test_nothing_from_outside_steers_a_terminal() -> None:
    assert printable("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb\\n"


def test_a_table_without_a_terminal_is_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    Output().table(("", "removed"), [("images", "12"), ("masks", "3")])
    assert capsys.readouterr().out == "        removed\nimages       12\nmasks         3\n"


# --- The demo --------------------------------------------------------------------------------------------------------


def left_of(folder: Path) -> list[str]:
    """Processes that know the folder, and what is in it."""
    found = [str(entry) for entry in folder.iterdir()]
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = entry.read_bytes().decode(errors="replace")
        except OSError:
            continue
        if str(folder) in line:
            found.append(line.replace("\0", " "))
    return found


@pytest.fixture
def demo(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    def start(*arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*COMMAND, "demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A setting of the shell around it must not reach it.
            env=environment(TMPDIR=str(tmp_path), SNAPSHED_DATA="/nowhere", SNAPSHED_FAILPOINT="nonsense"),
        )

    return start


def test_the_demo_proves_itself_and_leaves_nothing_behind(
    demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with demo() as process:
        out, err = process.communicate(timeout=180)
    assert process.returncode == 0, err
    assert err == ""
    assert "8 changed, 1 added, 1 removed, 1 renamed, 33 unchanged" in out
    assert "is complete" in out
    assert "Everything was as it should be" in out
    assert left_of(tmp_path) == []


@pytest.mark.scale
def test_the_demo_can_stay_until_it_is_interrupted(demo: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    with demo("--keep") as process:
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if "Press Ctrl-C" in line:
                break
        assert "/sign-in/once/" in said
        assert len(left_of(tmp_path)) > 1
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert "Stop the server" in out
    assert left_of(tmp_path) == []


@pytest.mark.scale
def test_a_demo_that_is_stopped_half_way_leaves_nothing_behind(
    demo: Callable[..., subprocess.Popen[str]], tmp_path: Path
) -> None:
    with demo() as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    deadline = time.monotonic() + 10
    while left_of(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left_of(tmp_path) == []
