"""Chromium on the pages of a server of this machine; a fault in a console, or a request elsewhere, fails the test."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
AXE = Path(__file__).parents[1] / "page" / "node_modules" / "axe-core" / "axe.min.js"
SMALL, DESK = {"width": 360, "height": 700}, {"width": 1280, "height": 800}


@contextmanager
def launched() -> Iterator:
    """A browser, whose pages each have cookies of their own."""
    if not CHROMIUM:
        pytest.skip("needs Chromium: apt-get install chromium")
    with playwright.sync_playwright() as running:
        browser = running.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def pages(browser) -> Iterator:
    """`open(port, size, path)` opens a page in a context of its own."""
    faults, contexts = [], []

    def start(port: int, size: dict = DESK, path: str = "/"):
        context = browser.new_context(viewport=size)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(30_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda line: faults.append(line.text) if is_fault(line) else None)
        page.on("request", lambda asked: None if f"127.0.0.1:{port}/" in asked.url else faults.append(asked.url))
        page.goto(f"http://127.0.0.1:{port}{path}")
        return page

    yield start
    for context in contexts:
        context.close()
    assert faults == []


def is_fault(line) -> bool:
    """Whether the browser complains of anything but a refused request or a server that is away: the page says those."""
    return line.type in ("error", "warning") and "Failed to load resource" not in line.text


def violations(page) -> list[str]:
    """What axe-core finds."""
    if not AXE.is_file():
        pytest.skip("needs axe-core: python scripts/build_page.py --check")
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then(found => found.violations.map(v => [v.id, v.nodes.map(n => n.html)]))")
    return [f"{rule}: {nodes}" for rule, nodes in found]
