"""A whole service in a thread, and the system's own Chromium looking at it."""

from __future__ import annotations

import shutil
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn
from browser.service import Service
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from snapshed import problems, ui
from snapshed.resources import opened
from snapshed.settings import Secret, Settings
from snapshed.work import access

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture
def service(tmp_path: Path, dsn: str) -> Iterator[Service]:
    """A fresh installation, served on a free port."""
    with serving(tmp_path / "data", dsn) as running:
        yield running


@contextmanager
def serving(folder: Path, dsn: str) -> Iterator[Service]:
    with opened(Settings(data=folder, database_url=Secret(dsn))) as resources, listening() as sock:
        address = f"http://127.0.0.1:{sock.getsockname()[1]}"
        once = access.first_start(resources, address)
        assert once
        app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
        app.state.resources = resources
        problems.install(app, ui.error_page)
        app.include_router(ui.router)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        (project,) = access.list_projects(resources)
        yield Service(resources, address, project, (folder / "admin-token").read_text().strip(), once)
        server.should_exit = True
        thread.join(10)


def listening() -> socket.socket:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH; install the system's package to run the browser tests")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def context(chromium: Browser, service: Service) -> Iterator[BrowserContext]:
    context = chromium.new_context(base_url=service.address, viewport={"width": 1280, "height": 900})
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def stranger(context: BrowserContext) -> Page:
    """A browser that is not signed in."""
    return context.new_page()


@pytest.fixture
def person(context: BrowserContext, service: Service) -> Page:
    """A browser that is signed in."""
    secret = access.sign_in(service.resources, service.token)
    context.add_cookies([{"name": "snapshed", "value": secret, "url": service.address}])
    return context.new_page()


@pytest.fixture
def anybody(service: Service) -> Iterator[httpx.Client]:
    """What a browser sends, without a browser: nobody is signed in."""
    with httpx.Client(base_url=service.address) as client:
        yield client


@pytest.fixture
def client(anybody: httpx.Client, service: Service) -> httpx.Client:
    """The same, signed in."""
    anybody.cookies.set("snapshed", access.sign_in(service.resources, service.token))
    return anybody
