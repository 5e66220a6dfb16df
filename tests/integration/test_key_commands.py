"""Registering keys on the command line, and the guide to objects, whose commands and program are run as they stand."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from api_fixtures import clean_environment
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from snapshed.domain import grants

PAGE = (Path(__file__).parents[2] / "docs" / "objects.md").read_text("utf-8")
COMMAND = (sys.executable, "-m", "snapshed")


def block(kind: str) -> str:
    found = re.search(rf"```{kind}\n(.*?)```", PAGE, re.DOTALL)
    assert found is not None
    return found[1]


@dataclass(frozen=True)
class Site:
    """A served installation and a folder with a key pair."""

    address: str
    data: Path
    folder: Path

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*COMMAND, *words, "--data", str(self.data)],
            capture_output=True,
            text=True,
            cwd=self.folder,
            env=clean_environment(),
            timeout=120,
        )
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("keys")
    private, public = grants.key_pair(Ed25519PrivateKey.generate())
    (folder / "uploads.pem").write_text(private)
    (folder / "uploads.pub.pem").write_text(public)
    data = folder / "data"
    with subprocess.Popen(
        [*COMMAND, "serve", "--data", str(data), "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=clean_environment(),
    ) as server:
        assert server.stdout is not None
        line = server.stdout.readline()
        assert line.startswith("Snapshed is ready at ")
        yield Site(line.split()[-1], data, folder)
        server.terminate()
        assert server.wait(30) == 0


def test_the_guide_to_objects_does_what_it_says(site: Site) -> None:
    ours = [line for line in block("sh").splitlines() if line.startswith(".venv/bin/snapshed ")]
    assert len(ours) == 2
    for line in ours:
        done = site.run(*shlex.split(line)[1:])
        assert done.returncode == 0, done.stderr
    assert done.stdout == "uploads  org=*;project=*  read,write,delete  active\n"

    program = block("python").replace("http://127.0.0.1:8400", site.address)
    run = [sys.executable, "-c", program]
    first = subprocess.run(run, capture_output=True, text=True, cwd=site.folder, timeout=60, check=False)
    assert first.returncode == 0, first.stderr
    payload, address, large = first.stdout.splitlines()
    assert (payload, large) == ("b'hello'", "2026/large.bin")
    assert address.startswith(f"{site.address}/v1/objects/reports/org=42;project=1337/2026/may.txt?os_kid=uploads")

    revoked = site.run("key", "revoke", "uploads")
    assert (revoked.returncode, revoked.stdout) == (0, "Key uploads is revoked.\n")
    second = subprocess.run(run, capture_output=True, text=True, cwd=site.folder, timeout=60, check=False)
    assert second.returncode != 0
    assert "401" in second.stderr
    (listed,) = json.loads(site.run("key", "list", "--json").stdout)
    assert listed["revoked_at"] is not None
    again = site.run("key", "add", "uploads", "uploads.pub.pem")
    assert again.returncode == 2
    assert "choose another name" in again.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["add", "k", "uploads.pem"], "private key"),
        (["add", "k", "missing.pem"], "cannot be read"),
        (["add", "a b", "uploads.pub.pem"], "no name for a key"),
        (["add", "k", "uploads.pub.pem", "--scopes", "org"], "no pattern"),
        (["add", "k", "uploads.pub.pem", "--permission", "burn"], "no permission"),
        (["revoke", "nobody"], "no key"),
    ],
)
def test_what_cannot_be_is_refused_in_one_sentence(site: Site, words: list[str], says: str) -> None:
    done = site.run("key", *words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1
