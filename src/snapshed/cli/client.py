"""Client commands: they talk HTTP to a server, as the token they are given.

Nothing is deleted here that a person did not confirm, at a terminal or with --yes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from snapshed import settings
from snapshed.cli import archives, commit, images, receipts, shards, transfer, waiting
from snapshed.cli.commit import Facts
from snapshed.cli.http import Document, Server, inner, items, server_of
from snapshed.cli.shards import Handed
from snapshed.cli.terminal import Output, counted, sized
from snapshed.errors import Broken, Invalid, Unavailable

_WAIT_SECONDS = 600.0

Url = Annotated[
    str | None, typer.Option(help="Address of the server; else the one in the token.", envvar="SNAPSHED_URL")
]
Token = Annotated[str | None, typer.Option(help="Token; better in the environment than here.", envvar="SNAPSHED_TOKEN")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Number = Annotated[str, typer.Argument(metavar="SNAPSHOT", help="The snapshot's number.")]
Group = Annotated[
    str | None, typer.Option(help="What the jobs of one sharded upload call their snapshot; the same in all of them.")
]
Wait = Annotated[bool, typer.Option("--wait", help="Wait for the verdict and exit as `snapshed wait` does.")]


def register(app: typer.Typer) -> None:
    """Add the client commands."""
    for command in (upload, wait, show, approve, reject, download, delete, receipt):
        app.command()(command)


# --- Uploading -------------------------------------------------------------------------------------------------------


def upload(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Folder of PNG and JPEG files.")],
    app_id: Annotated[str, typer.Option(help="What the images are of, such as web or storybook.")],
    project: Annotated[str, typer.Option(help="Project of the token's organization.")] = "main",
    head_sha: Annotated[str | None, typer.Option(help="Commit the images were taken of.")] = None,
    base_sha: Annotated[str | None, typer.Option(help="Commit to compare with.")] = None,
    provider: Annotated[str | None, typer.Option(help="Where the repository is, such as github.")] = None,
    head_repo_name: Annotated[str | None, typer.Option(help="Repository of the commit, such as acme/web.")] = None,
    base_repo_name: Annotated[str | None, typer.Option(help="Repository of the base commit.")] = None,
    head_ref: Annotated[str | None, typer.Option(help="Branch of the commit.")] = None,
    base_ref: Annotated[str | None, typer.Option(help="Branch of the base commit.")] = None,
    pr_number: Annotated[int | None, typer.Option(help="Pull request.", min=1)] = None,
    diff_threshold: Annotated[
        float | None, typer.Option(help="Share of pixels that may differ, at least 0 and less than 1.")
    ] = None,
    selective: Annotated[bool, typer.Option("--selective", help="The folder holds only some of all images.")] = False,
    all_image_file_names_file: Annotated[
        Path | None, typer.Option(help="File with the names of all images, one a line; implies --selective.")
    ] = None,
    no_git_metadata: Annotated[
        bool, typer.Option("--no-git-metadata", help="Find out nothing from CI and git.")
    ] = False,
    shard: Annotated[str | None, typer.Option(help="This is one of several jobs, such as 2/5; with --group.")] = None,
    group: Group = None,
    wait: Wait = False,
    url: Url = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Upload a folder of images as a new snapshot, or as one shard of one."""
    output = Output(as_json=as_json)
    one_of = shards.read(shard, group)
    given: dict[str, str | int | None] = {
        "head_sha": head_sha,
        "base_sha": base_sha,
        "provider": provider,
        "head_repo_name": head_repo_name,
        "base_repo_name": base_repo_name,
        "head_ref": head_ref,
        "base_ref": base_ref,
        "pr_number": pr_number,
    }
    facts = commit.given_only(given) if no_git_metadata else _found_facts(given)
    options: dict[str, Any] = {name: fact.value for name, fact in facts.items()}
    if diff_threshold is not None:
        options["diff_threshold"] = diff_threshold
    if all_image_file_names_file is not None:
        options["all_image_file_names"] = _names_in(all_image_file_names_file)
    if selective or all_image_file_names_file is not None:
        options["selective"] = True
    with server_of(token, url) as server:
        scan = _scan(folder, output, may_be_empty=one_of is not None)
        _say_facts(facts, output)
        body = transfer.wanted(app_id, scan.files, options)
        if one_of is None:
            made = transfer.upload(server, project, scan, body, output)
            handed = Handed(made, [], made.already, made.sent)
        else:
            handed = shards.upload(server, project, one_of, scan, body, output)
        number = handed.made.number if handed.made else None
        if wait and number is None and one_of is not None:
            number = shards.snapshot_of(server, project, one_of.group, _WAIT_SECONDS, output)
        outcome = waiting.verdict(server, number, _WAIT_SECONDS, output) if wait and number else None
        page = server.page(number) if number else None
    if as_json:
        document: Document = {
            "snapshot": number,
            "images": handed.made.images if handed.made else len(scan.files),
            "already_uploaded": handed.already,
            "uploaded": handed.sent,
            "left_out": list(scan.left_out),
            "commit": {name: fact.value for name, fact in facts.items()},
        }
        missing = {} if one_of is None else {"missing_shards": handed.missing}
        url_of = {"url": handed.made.url if handed.made else page}
        output.document(document | missing | (outcome.document if outcome else {}) | url_of)
    if outcome is not None:
        output.say(waiting.sentence(outcome))
        raise typer.Exit(outcome.exit_code)


def _found_facts(given: dict[str, str | int | None]) -> Facts:
    return commit.detect(given, os.environ, commit.read_event(os.environ), commit.read_checkout(Path.cwd()))


def _scan(folder: Path, output: Output, *, may_be_empty: bool) -> images.Scan:
    scan = images.scan(folder)
    for sentence in scan.left_out:
        output.warn(sentence)
    if not scan.files and not may_be_empty:
        raise Invalid(f"There are no PNG or JPEG files in {folder}; nothing was uploaded.")
    output.say(f"Found {counted(len(scan.files), 'image')} in {folder}.")
    return scan


def _say_facts(facts: Facts, output: Output) -> None:
    for name, fact in facts.items():
        output.say(f"  {name} {fact.value} ({fact.source})")
    if "head_sha" not in facts:
        output.say("  no commit is known, so nothing can be compared with this snapshot; --head-sha names one")


def _names_in(file: Path) -> list[str]:
    """The names of a file, the way `sentry-cli` reads it. Raises Invalid."""
    try:
        lines = file.read_text("utf-8").splitlines()
    except (OSError, ValueError):
        raise Invalid(f"{file} cannot be read as text.") from None
    return [line.strip().replace("\\", "/").removeprefix("./") for line in lines if line.strip()]


# --- Verdicts --------------------------------------------------------------------------------------------------------


def wait(
    snapshot: Annotated[str | None, typer.Argument(metavar="SNAPSHOT", help="The snapshot's number.")] = None,
    commit_sha: Annotated[str | None, typer.Option("--commit", help="Take the newest snapshot of this commit.")] = None,
    app_id: Annotated[str | None, typer.Option(help="With --commit: only snapshots of this app.")] = None,
    group: Group = None,
    project: Annotated[str, typer.Option(help="With --group: its project.")] = "main",
    timeout: Annotated[str, typer.Option(help="How long to wait, such as 90s or 10m.")] = "600s",
    url: Url = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Wait for a verdict. Exit 0: no unapproved change. 1: changes need review. 2: refused or failed. 75: time is up."""
    if sum(named is not None for named in (snapshot, commit_sha, group)) != 1:
        raise Invalid("Name a snapshot by its number, a commit with --commit, or a sharded upload with --group.")
    if app_id is not None and commit_sha is None:
        raise Invalid("--app-id goes with --commit; a snapshot's number needs no app.")
    try:
        seconds = settings.duration(timeout).total_seconds()
    except ValueError as problem:
        raise Invalid(f"--timeout {problem}.") from None
    output = Output(as_json=as_json)
    with server_of(token, url) as server:
        if group is not None:
            number = shards.snapshot_of(server, project, group, seconds, output)
        else:
            number = snapshot or waiting.newest_of_commit(server, commit_sha or "", app_id)
        outcome = waiting.verdict(server, number, seconds, output)
    if as_json:
        output.document(outcome.document)
    output.say(waiting.sentence(outcome))
    output.say(outcome.url)
    raise typer.Exit(outcome.exit_code)


def show(snapshot: Number, url: Url = None, token: Token = None, as_json: Json = False) -> None:
    """Show a snapshot: its facts, what changed, and where its page is."""
    output = Output(as_json=as_json)
    with server_of(token, url) as server:
        details = waiting.details(server, snapshot)
        page = server.page(snapshot)
    if as_json:
        output.document(details | {"url": page})
        return
    count = counted(int(details.get("image_count") or 0), "image")
    output.say(f"Snapshot {snapshot} of {details.get('app_id')}, {count}, created {details.get('date_added')}.")
    for name, value in inner(details, "vcs_info").items():
        if value is not None:
            output.say(f"  {name} {value}")
    output.say(f"Verdict: {details.get('verdict')}")
    if details.get("comparison_error_message"):
        output.say(f"The comparison failed: {details['comparison_error_message']}")
    if details.get("comparison_type") == "diff":
        output.say(f"Compared with snapshot {details.get('base_artifact_id')}:")
        output.table(("category", "images"), [(name, f"{len(items(details, name)):,}") for name in waiting.CATEGORIES])
        _say_changes(details, output)
    output.say(page)


def _say_changes(details: Document, output: Output) -> None:
    for pair in items(details, "changed"):
        share = f"{pair['diff']:.3%} of its pixels" if pair.get("diff") is not None else "another size"
        output.say(f"changed  {pair['head_image']['image_file_name']}  {share}")
    for pair in items(details, "renamed"):
        output.say(f"renamed  {pair['base_image']['image_file_name']} -> {pair['head_image']['image_file_name']}")
    for pair in items(details, "errored"):
        output.say(
            f"errored  {pair['head_image']['image_file_name']}  {pair.get('detail') or pair.get('reason') or ''}"
        )
    for name in ("added", "removed"):
        for image in items(details, name):
            output.say(f"{name}  {image['image_file_name']}")


def approve(snapshot: Number, url: Url = None, token: Token = None, as_json: Json = False) -> None:
    """Approve a snapshot as it stands: its changes are wanted."""
    _decide(snapshot, "approve", url, token, Output(as_json=as_json))


def reject(snapshot: Number, url: Url = None, token: Token = None, as_json: Json = False) -> None:
    """Reject a snapshot: its changes are not wanted."""
    _decide(snapshot, "reject", url, token, Output(as_json=as_json))


def _decide(snapshot: str, decision: str, url: str | None, token: str | None, output: Output) -> None:
    number = waiting.number_of(snapshot)
    with server_of(token, url) as server:
        answer = server.post(f"preprodartifacts/{number}/{decision}/", {"feature_type": "snapshots"})
        page = server.page(number)
    if output.as_json:
        output.document({"snapshot": number, "detail": answer.get("detail"), "url": page})
        return
    output.say(f"Snapshot {number}: {answer.get('detail')}.")
    output.say(page)


def download(
    snapshot: Number,
    out: Annotated[Path | None, typer.Option(help="Folder to write to; else ./snapshot-NUMBER.")] = None,
    url: Url = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Download a snapshot's images and its manifest into a folder."""
    output = Output(as_json=as_json)
    number = waiting.number_of(snapshot)
    folder = out or Path(f"snapshot-{number}")
    with server_of(token, url) as server:
        done = archives.download(server, number, folder, output)
    if as_json:
        output.document({"snapshot": number, "folder": str(done.folder), "files": done.files, "bytes": done.bytes})
        return
    output.say(f"Snapshot {number}: {counted(done.files, 'file')}, {sized(done.bytes)}, written to {done.folder}.")


# --- Deletions -------------------------------------------------------------------------------------------------------


def delete(
    snapshots: Annotated[list[str], typer.Argument(metavar="SNAPSHOT...", help="Numbers of snapshots.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    reason: Annotated[str | None, typer.Option(help="Why; kept on the receipt.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the receipt is complete.")] = False,
    urgent: Annotated[
        bool, typer.Option("--urgent", help="End uploads in progress that were promised these images.")
    ] = False,
    url: Url = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Delete snapshots and everything of theirs that no other snapshot names, and print the receipt."""
    output = Output(as_json=as_json)
    if not dry_run and not yes and not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise Invalid(
            "Deleting needs --yes where nobody can be asked; nothing was deleted. --dry-run shows what would go."
        )
    with server_of(token, url) as server:
        if dry_run:
            _show(receipts.preview(server, snapshots, reason, urgent=urgent), output)
            return
        plan = None if yes else _confirmed(server, snapshots, reason, output, urgent=urgent)
        receipt = receipts.delete(server, snapshots, reason, urgent=urgent, plan=plan)
        if wait:
            output.say(f"Deletion {receipt.get('id')} has begun; nothing of it can be read any more.")
            receipt = receipts.complete(server, receipt, output)
    _show(receipt, output)


def _confirmed(server: Server, snapshots: list[str], reason: str | None, output: Output, *, urgent: bool) -> str:
    """The plan that a person at the terminal has seen and agreed to."""
    preview = receipts.preview(server, snapshots, reason, urgent=urgent)
    receipts.show(preview, output)
    if not typer.confirm(f"Delete {counted(len(preview['snapshots']), 'snapshot')} now?", err=True):
        sys.stderr.write("Nothing was deleted.\n")
        raise typer.Exit(1)
    return str(preview["plan"])


def receipt(
    deletion: Annotated[str, typer.Argument(metavar="ID", help="The deletion's id.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the signature and ask the store about every object.")
    ] = False,
    url: Url = None,
    token: Token = None,
    as_json: Json = False,
) -> None:
    """Show a deletion's receipt. With --verify exit 70 if it does not hold, 75 if it is not complete yet."""
    output = Output(as_json=as_json)
    with server_of(token, url) as server:
        found = receipts.find(server, deletion)
        if not verify:
            _show(found, output)
            return
        if found.get("state") != "complete":
            raise Unavailable(" ".join(["The deletion is not complete yet.", *receipts.holding(found)]))
        checked = receipts.verify(server, deletion)
    if as_json:
        output.document({"receipt": found, "verification": checked})
    else:
        receipts.show(found, output)
    _judge(checked, output)


def _judge(checked: Document, output: Output) -> None:
    standing = items(checked, "standing")
    if standing:
        raise Broken(f"The receipt does not hold: the store has {images.listed(standing)}.")
    if checked.get("signed") is not True:
        raise Broken("The receipt does not hold: its signature is not the server's.")
    asked = counted(int(checked.get("asked") or 0), "object")
    output.say(f"Verified: the signature is the server's, and of {asked} said to be gone the store has none.")


def _show(receipt: Document, output: Output) -> None:
    if output.as_json:
        output.document(receipt)
    else:
        receipts.show(receipt, output)
