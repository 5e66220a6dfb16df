"""Which commit a folder of images belongs to: what was given, what a CI job says of itself, what git knows.

A guess never stands against what was given, and nothing of a remote's address but host and path is ever kept.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from snapshed.errors import Invalid


@dataclass(frozen=True, slots=True)
class Fact:
    """One value, and where it comes from in words for the person who wonders."""

    value: str | int
    source: str


Facts = dict[str, Fact]
"""Facts by their field in a manifest: head_sha, base_sha, provider, head_repo_name, …"""


@dataclass(frozen=True, slots=True)
class Checkout:
    """What a git checkout knows. `base_sha` is where the branch left the remote's main branch, `base_ref`."""

    head_sha: str | None = None
    branch: str | None = None
    base_sha: str | None = None
    base_ref: str | None = None
    remotes: dict[str, str] = field(default_factory=dict[str, str])


def detect(
    given: Mapping[str, str | int | None], environ: Mapping[str, str], event: Mapping[str, Any], checkout: Checkout
) -> Facts:
    """Every fact that can be had, from the first source that has it. Pure.

    | source            | when                                                    |
    | a flag            | given                                                   |
    | GitHub Actions    | GITHUB_ACTIONS is set; `event` is its event's document  |
    | GitLab CI         | GITLAB_CI is set                                        |
    | the git checkout  | there is one                                            |

    A base that was only found out and equals the head is dropped: a commit of the main branch has no base, it is one.
    """
    facts: Facts = {}
    for source in (_given(given), _github(environ, event), _gitlab(environ), _git(checkout)):
        for name, fact in source.items():
            facts.setdefault(name, fact)
    base, head = facts.get("base_sha"), facts.get("head_sha")
    if base and head and base.value == head.value and not given.get("base_sha"):
        facts = {name: fact for name, fact in facts.items() if name not in ("base_sha", "base_ref")}
    if given.get("pr_number") is not None and "base_sha" not in facts:
        raise Invalid("A pull request needs the commit it builds on; give --base-sha beside --pr-number.")
    return facts


def given_only(given: Mapping[str, str | int | None]) -> Facts:
    """The facts when nothing is to be found out."""
    return detect(given, {}, {}, Checkout())


def _given(given: Mapping[str, str | int | None]) -> Facts:
    return _from("given", given)


def _from(source: str, values: Mapping[str, object]) -> Facts:
    known = {name: value for name, value in values.items() if isinstance(value, str | int) and value != ""}
    return {name: Fact(value, source) for name, value in known.items()}


# --- GitHub Actions --------------------------------------------------------------------------------------------------


def _github(environ: Mapping[str, str], event: Mapping[str, Any]) -> Facts:
    if not environ.get("GITHUB_ACTIONS"):
        return {}
    host = re.sub(r"^https?://", "", environ.get("GITHUB_SERVER_URL", "https://github.com")).split("/")[0]
    repo = environ.get("GITHUB_REPOSITORY")
    facts = {"provider": provider_of(host), "head_repo_name": repo, "base_repo_name": repo}
    pull = _inner(event, "pull_request")
    if pull:
        head, base = _inner(pull, "head"), _inner(pull, "base")
        facts |= {
            # The checked-out commit of a pull request is a trial merge; the images are compared as the branch's.
            "head_sha": head.get("sha"),
            "base_sha": base.get("sha"),
            "head_ref": head.get("ref"),
            "base_ref": base.get("ref"),
            "head_repo_name": _inner(head, "repo").get("full_name") or repo,
            "base_repo_name": _inner(base, "repo").get("full_name") or repo,
        }
        return _from("the pull request of this GitHub job", facts | {"pr_number": pull.get("number")})
    facts |= {"head_sha": environ.get("GITHUB_SHA"), "head_ref": environ.get("GITHUB_REF_NAME")}
    return _from("this GitHub job", facts)


def _inner(document: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = document.get(name)
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def read_event(environ: Mapping[str, str]) -> dict[str, Any]:
    """The document that GitHub Actions wrote about what started the job; empty if there is none to read."""
    place = environ.get("GITHUB_EVENT_PATH")
    if not place:
        return {}
    try:
        value: object = json.loads(Path(place).read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


# --- GitLab CI -------------------------------------------------------------------------------------------------------


def _gitlab(environ: Mapping[str, str]) -> Facts:
    if not environ.get("GITLAB_CI"):
        return {}
    repo = environ.get("CI_PROJECT_PATH")
    facts: dict[str, object] = {"provider": "gitlab", "head_repo_name": repo, "base_repo_name": repo}
    number = environ.get("CI_MERGE_REQUEST_IID", "")
    if number.isdecimal():
        facts |= {
            # In a pipeline for the merged result CI_COMMIT_SHA is a trial merge.
            "head_sha": environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_SHA") or environ.get("CI_COMMIT_SHA"),
            "base_sha": environ.get("CI_MERGE_REQUEST_DIFF_BASE_SHA"),
            "head_ref": environ.get("CI_MERGE_REQUEST_SOURCE_BRANCH_NAME"),
            "base_ref": environ.get("CI_MERGE_REQUEST_TARGET_BRANCH_NAME"),
            "head_repo_name": environ.get("CI_MERGE_REQUEST_SOURCE_PROJECT_PATH") or repo,
            "base_repo_name": environ.get("CI_MERGE_REQUEST_PROJECT_PATH") or repo,
            "pr_number": int(number),
        }
        return _from("the merge request of this GitLab job", facts)
    facts |= {"head_sha": environ.get("CI_COMMIT_SHA"), "head_ref": environ.get("CI_COMMIT_REF_NAME")}
    return _from("this GitLab job", facts)


# --- git -------------------------------------------------------------------------------------------------------------


def _git(checkout: Checkout) -> Facts:
    own = _first(checkout.remotes, "origin")
    above = _first(checkout.remotes, "upstream", "origin")
    facts = {
        "head_sha": checkout.head_sha,
        "base_sha": checkout.base_sha,
        "head_ref": checkout.branch,
        "base_ref": checkout.base_ref,
        "provider": provider_of(own[0]) if own else None,
        "head_repo_name": own[1] if own else None,
        "base_repo_name": above[1] if above else None,
    }
    return _from("the git checkout", facts)


def _first(remotes: Mapping[str, str], *preferred: str) -> tuple[str, str] | None:
    """Host and repository of the first preferred remote there is, else of any."""
    for name in (*preferred, *remotes):
        if name in remotes and (place := place_of(remotes[name])):
            return place
    return None


def place_of(remote: str) -> tuple[str, str] | None:
    """Host and repository that a remote's address names; a file's name none.

    >>> place_of("git@github.com:acme/web.git"), place_of("https://me:secret@git.example.com/acme/web")
    (('github.com', 'acme/web'), ('git.example.com', 'acme/web'))
    """
    match = re.fullmatch(r"(?:ssh|https?|git)://(?:[^/@]*@)?([^/:]+)(?::\d+)?/(.+?)(?:\.git)?/?", remote)
    match = match or re.fullmatch(r"(?:[^/@:]+@)?([^/@:]+\.[^/@:]+):(?!/)(.+?)(?:\.git)?/?", remote)
    return (match[1], match[2]) if match else None


def provider_of(host: str) -> str:
    """The kind of service at a host, by its name.

    >>> provider_of("github.com"), provider_of("gitlab.example.com"), provider_of("acme.ghe.com")
    ('github', 'gitlab', 'github_enterprise')
    """
    labels = host.lower().split(":")[0].split(".")
    if labels[-2:] == ["ghe", "com"]:
        return "github_enterprise"
    known = [label for label in labels if label in ("github", "gitlab", "bitbucket")]
    return known[0] if known else labels[max(0, len(labels) - 2)]


def read_checkout(folder: Path) -> Checkout:
    """What git says about the checkout around a folder; nothing at all if there is none, or no git."""
    head = _ask(folder, "rev-parse", "--verify", "--quiet", "HEAD^{commit}")
    if head is None:
        return Checkout()
    remotes: dict[str, str] = {}
    for line in (_ask(folder, "config", "--get-regexp", r"^remote\..*\.url$") or "").splitlines():
        name, _, address = line.partition(" ")
        remotes[name.removeprefix("remote.").removesuffix(".url")] = address
    remote = "origin" if "origin" in remotes else next(iter(remotes), "origin")
    main = _ask(folder, "symbolic-ref", "--quiet", f"refs/remotes/{remote}/HEAD")
    return Checkout(
        head_sha=head,
        branch=_ask(folder, "symbolic-ref", "--quiet", "--short", "HEAD"),
        base_sha=_ask(folder, "merge-base", "HEAD", main) if main else None,
        base_ref=main.removeprefix(f"refs/remotes/{remote}/") if main else None,
        remotes=remotes,
    )


def _ask(folder: Path, *question: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(folder), *question], capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return answer.stdout.strip() or None
