"""The documentation site: it builds strictly, names everything public, and loads nothing from the network."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

import histoloom
import histoloom.metrics
import histoloom.readers

ROOT = Path(__file__).parents[1]
PAGES = {histoloom: "api", histoloom.metrics: "metrics", histoloom.readers: "readers"}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """The built site; strict mode fails on dead links, dead anchors and pages missing from the navigation."""
    folder = tmp_path_factory.mktemp("site")
    command = (sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(folder))
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


class Loaded(HTMLParser):
    """Collects the addresses that a browser fetches when it shows a page."""

    def __init__(self):
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Links that are only followed on a click do not count."""
        found = dict(attrs)
        if tag == "link" and found.get("rel") not in ("stylesheet", "icon", "preconnect", "preload", "modulepreload"):
            return
        if tag != "a":
            self.addresses += [str(found[name]) for name in ("src", "href", "srcset", "data") if found.get(name)]


def is_elsewhere(address: str) -> bool:
    """Whether fetching an address takes a network."""
    return "//" in address and not address.startswith("data:")


def loaded(page: Path) -> list[str]:
    """Addresses that a browser fetches for a page."""
    parser = Loaded()
    parser.feed(page.read_text(encoding="utf-8"))
    return parser.addresses


def files(site: Path, ending: str) -> Iterator[Path]:
    """Files of the site with an ending; there must be some."""
    found = sorted(site.rglob(f"*{ending}"))
    assert found
    return iter(found)


def test_pages_load_nothing_from_the_network(site):
    outside = {address for page in files(site, ".html") for address in loaded(page) if is_elsewhere(address)}
    assert outside == set()
    for style in files(site, ".css"):
        addresses = re.findall(r"""url\(["']?([^)"']*)""", style.read_text(encoding="utf-8"))
        assert not [address for address in addresses if is_elsewhere(address)]


def test_whatever_a_page_loads_is_there(site):
    for page in files(site, ".html"):
        base = site if page.name == "404.html" else page.parent
        for address in loaded(page):
            path = address.split("#")[0].split("?")[0]
            if path and not path.startswith("data:"):
                assert (site / path.lstrip("/") if path.startswith("/") else base / path).exists(), (page, address)


@pytest.mark.parametrize("package", PAGES, ids=lambda package: package.__name__)
def test_every_public_name_has_its_place_in_the_reference(site, package):
    text = (site / "reference" / f"{PAGES[package]}.html").read_text(encoding="utf-8")
    for name in package.__all__:
        paths = (name, f"{name}.{name}")  # the second where a module has the name of its function
        assert any(f'id="{package.__name__}.{path}"' in text for path in paths), name
