"""A real browser, where there is one, and reviews served to it."""

import contextlib
import os
import shutil
import threading
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from outside_programs import go_without
from review_samples import write_pictures, write_tags
from tai_engine.disk_cache import DiskCache
from tai_engine.review.collection import Collection
from tai_engine.review.guard import Guard
from tai_engine.review.journal import Journal, read_decisions
from tai_engine.review.session import ReviewSession
from tai_engine.review.thumbnails import Thumbnails

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
)  # fmt: skip
SLOW = 20_000  # milliseconds to wait for what comes at once on an idle machine


@pytest.fixture(scope="session")
def chromium():
    """A running Chromium, shared by all tests."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    pytest.importorskip("uvicorn", reason="needs the extra 'review'")
    program = os.environ.get("TAI_CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        go_without("chromium", "apt-get install chromium, or its path in TAI_CHROMIUM")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=list(FLAGS), timeout=120_000)
        yield browser
        browser.close()


@dataclass
class Site:
    """A page that is served, and what it writes."""

    address: str
    journal: Path

    @property
    def decisions(self):
        return read_decisions(self.journal)


class Problems(list):
    """What went wrong in a page: errors, refused scripts, and answers of 400 and more."""

    def watch(self, page):
        page.on("pageerror", lambda error: self.append(f"error: {error}"))
        page.on("console", lambda message: message.type in ("error", "warning") and self.append(message.text))
        page.on("response", lambda answer: answer.status >= 400 and self.append(f"{answer.status} {answer.url}"))


@pytest.fixture
def problems():
    """Collected from every page of `open_page`; a test takes out what it expects."""
    found = Problems()
    yield found
    assert found == []


@pytest.fixture
def open_page(chromium, problems):
    """Opens an address in a browser profile of its own, or in that of another page."""
    contexts = []

    def open_(address, beside=None, width=1200, height=800, **options):
        context = (
            beside.context if beside else chromium.new_context(viewport={"width": width, "height": height}, **options)
        )
        if beside is None:
            contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(SLOW)
        problems.watch(page)
        page.goto(address)
        page.locator("html[data-ready]").wait_for(state="attached")
        return page

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture
def serve(tmp_path_factory, tmp_path):
    """Serves a review of a collection; its server runs in a thread of this process."""
    import uvicorn

    from tai_engine.review.server import review_app
    from tai_engine.review.serving import listen

    with contextlib.ExitStack() as stack:

        def start(collection, heatmaps=None, free_words=False, name="j"):
            listener = stack.enter_context(listen(0))
            path = tmp_path / f"{name}.jsonl"
            journal = stack.enter_context(
                closing(Journal(path, tags_file="t", tags_sha256=collection.suggestions.sha256, by="anna"))
            )
            cache = DiskCache(tmp_path_factory.getbasetemp() / "thumbnails", 10**8)
            thumbnails = stack.enter_context(closing(Thumbnails(collection, cache, workers=1)))
            guard = Guard(listener.getsockname()[1])
            session = ReviewSession(collection, journal, free_words=free_words)
            app = review_app(session, thumbnails, guard, title="tags", heatmaps=heatmaps)
            server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
            thread.start()

            def stop():
                server.should_exit = True
                thread.join(30)

            stack.callback(stop)
            return Site(f"http://127.0.0.1:{listener.getsockname()[1]}/?token={guard.token}", path)

        yield start


@pytest.fixture(scope="session")
def forty(tmp_path_factory):
    """Forty pictures with three tags each; the lower the number, the less sure the first one. Not to be changed."""
    folder = tmp_path_factory.mktemp("forty")
    names = [f"{n:02}.jpg" for n in range(40)]
    rows = [
        row
        for n, name in enumerate(names)
        for row in (
            (name, "dog", 3.0, 0.5 + n / 100, 0.5),
            (name, "cat", 0.2, 0.02, 0.5),
            (name, "owl", 0.1, 0.01, 0.5),
        )
    ]
    return Collection.open(write_tags(folder / "tags.parquet", rows), write_pictures(folder / "p", names, (120, 90)))
