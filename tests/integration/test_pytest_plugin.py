"""The pytest plugin, as a project that uses it sees it: real runs of pytest against a real server."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import httpx
import pytest
from fixtures.pictures import picture
from fixtures.server import Installation, Server

CI = ("CI", "GITHUB_", "GITLAB_", "SNAPSHED_", "PYTEST_")
BASE, HEAD = "a" * 40, "b" * 40

# Other plugins take most of the time of a run this small.
PYTEST = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "snapshed.pytest_plugin"]
ALONE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}


@dataclass(frozen=True)
class Done:
    status: int
    out: str

    @property
    def snapshot(self) -> str:
        found = re.search(r"/snapshots/(\d+)$", self.out, re.MULTILINE)
        assert found, self.out
        return found[1]


class Suite:
    """A project with tests of its own, and runs of it."""

    def __init__(self, folder: Path, server: Server, token: str) -> None:
        self.folder = folder
        self._server = server
        self._token = token
        (folder / "pytest.ini").write_text("[pytest]\nsnapshed_app_id = shop\n")

    def image(self, name: str, seed: str) -> None:
        (self.folder / f"{name}.png").write_bytes(picture(seed).png)

    def tests(self, text: str) -> None:
        (self.folder / "test_shop.py").write_text(f"from pathlib import Path\nHERE = Path(__file__).parent\n\n{text}")

    def run(self, *options: str, pull: bool = False, token: str | None = None) -> Done:
        """One run in a GitHub job: of the main branch, or of a pull request from it."""
        event: dict[str, Any] = {}
        if pull:
            event = {
                "pull_request": {
                    "number": 7,
                    "head": {"sha": HEAD, "ref": "blue"},
                    "base": {"sha": BASE, "ref": "main"},
                }
            }
        (self.folder / "event.json").write_text(json.dumps(event))
        environment = {name: value for name, value in os.environ.items() if not name.startswith(CI)}
        environment |= {
            "GITHUB_ACTIONS": "true",
            "GITHUB_REPOSITORY": "example/shop",
            "GITHUB_SHA": BASE,
            "GITHUB_REF_NAME": "main",
            "GITHUB_EVENT_PATH": str(self.folder / "event.json"),
            "SNAPSHED_TOKEN": self._token if token is None else token,
            "SNAPSHED_URL": self._server.address,
        } | ALONE
        done = subprocess.run(
            [*PYTEST, *options],
            cwd=self.folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert self._token.rpartition("_")[2] not in done.stdout + done.stderr
        return Done(done.returncode, done.stdout + done.stderr)

    def details(self, snapshot: str) -> dict[str, Any]:
        answer = self._server.client.details(snapshot)
        assert answer.status_code == 200
        return answer.json()

    def approve(self, snapshot: str) -> None:
        answer = httpx.post(
            f"{self._server.address}/api/0/organizations/main/preprodartifacts/{snapshot}/approve/",
            json={"feature_type": "snapshots"},
            headers={"authorization": f"Bearer {self._token}"},
            trust_env=False,
        )
        assert answer.status_code == 201


@pytest.fixture
def suite(tmp_path: Path, installation: Installation) -> Suite:
    installation.settings["SNAPSHED_SESSION_TTL"] = "60s"
    return Suite(tmp_path, installation.serve(), installation.token())


def alone(folder: Path, *options: str) -> Done:
    """A run that has no server and no job around it."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(CI)} | ALONE
    done = subprocess.run(
        [*PYTEST, *options], cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    return Done(done.returncode, done.stdout + done.stderr)


PAGES = """
class Page:
    def __init__(self, name):
        self.name = name

    def screenshot(self):
        return (HERE / f"{self.name}.png").read_bytes()

def test_home(snapshed):
    snapshed("pages/home", Page("home"), group="Pages", tags={"theme": "dark"})

def test_cart(snapshed):
    snapshed("pages/cart", (HERE / "cart.png").read_bytes())
    snapshed("pages/cart-empty.png", HERE / "empty.png")
"""


def test_a_pull_request_is_gated_until_somebody_approves_it(suite: Suite) -> None:
    suite.tests(PAGES)
    for name in ("home", "cart", "empty"):
        suite.image(name, name)
    base = suite.run("--snapshed-gate")
    assert base.status == 0, base.out
    assert "has no base, so there is nothing to compare it with" in base.out
    images = suite.details(base.snapshot)["images"]
    assert [image["image_file_name"] for image in images] == [
        "pages/cart-empty.png",
        "pages/cart.png",
        "pages/home.png",
    ]
    assert (images[2]["group"], images[2]["tags"]) == ("Pages", {"theme": "dark"})

    suite.image("cart", "another cart")
    gated = suite.run("--snapshed-gate", "-p", "xdist.plugin", "-n", "2", pull=True)  # two workers, one snapshot
    assert gated.status == 1, gated.out
    assert "2 passed" in gated.out
    assert "has changes that need review: 1 changed, 2 unchanged" in gated.out
    assert suite.details(gated.snapshot)["vcs_info"]["pr_number"] == 7
    suite.approve(gated.snapshot)

    # What was not selected is not reported as removed; what was approved stays approved.
    some = suite.run("--snapshed-gate", "-k", "cart", pull=True)
    assert some.status == 0, some.out
    assert "test_home was not selected" in some.out
    assert "is approved: 1 changed, 1 unchanged, 1 skipped" in some.out

    # A test that failed did not give all its images, so this run makes no base.
    suite.tests(PAGES.replace('snapshed("pages/cart-empty.png"', 'assert False; snapshed("pages/cart-empty.png"'))
    failed = suite.run("--snapshed")
    assert failed.status == 1
    assert "test_cart failed" in failed.out
    assert "must be whole" in failed.out
    assert "/snapshots/" not in failed.out


def test_the_plugin_is_off_until_it_is_asked(tmp_path: Path) -> None:
    """Without options nothing is written, sent, said or imported; mistakes in tests are found all the same."""
    assert entry_points(group="pytest11", name="snapshed")
    (tmp_path / "home.png").write_bytes(picture("home").png)
    (tmp_path / "test_shop.py").write_text(
        "import sys, pytest\nfrom pathlib import Path\nHOME = Path(__file__).parent / 'home.png'\n"
        "def test_before():\n    assert not [name for name in sys.modules if name.startswith(('snapshed.cli', 'httpx'))]\n"
        "def test_good(snapshed):\n    snapshed('home', HOME, group='Pages')\n"
        "def test_twice(snapshed):\n    snapshed('home', HOME)\n    snapshed('home', HOME)\n"
        "def test_no_image(snapshed):\n    snapshed('home', b'GIF89a')\n"
        "def test_cut(snapshed):\n    snapshed('home', HOME.read_bytes()[:12])\n"
        "def test_elsewhere(snapshed):\n    snapshed('../home', HOME)\n"
        "def test_facts(snapshed):\n    snapshed('home', HOME, diff_threshold=2)\n"
        "def test_awaited(snapshed):\n"
        "    class Page:\n        async def screenshot(self): return b''\n    snapshed('home', Page())\n"
    )
    done = alone(tmp_path)
    assert "6 failed, 2 passed" in done.out, done.out
    assert "- snapshed" not in done.out
    for said in (
        "has taken 'home' already",
        "neither a PNG nor a JPEG",
        "cannot be read",
        "relative path",
        "diff_threshold",
        "has to be awaited",
    ):
        assert said in done.out, said
    assert {path.name for path in tmp_path.iterdir()} <= {"home.png", "test_shop.py", "__pycache__"}


def test_images_can_be_kept_without_a_server(tmp_path: Path) -> None:
    (tmp_path / "test_shop.py").write_text(
        f"def test_home(snapshed):\n    snapshed('pages/home', {picture('home').png!r})\n"
        f"def test_other(snapshed):\n    snapshed('pages/home', {picture('home').png!r})\n"
    )
    done = alone(tmp_path, "--snapshed-dir", "kept")
    assert done.status == 1
    assert "test_shop.py::test_home has taken 'pages/home' already" in done.out
    assert (tmp_path / "kept" / "pages" / "home.png").read_bytes() == picture("home").png
    again = alone(tmp_path, "--snapshed-dir", "kept")
    assert again.status == 4
    assert "is not empty" in again.out
    asked = alone(tmp_path, "--snapshed")
    assert asked.status == 4
    assert "snapshed_app_id" in asked.out
