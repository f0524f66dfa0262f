"""The documentation site: it builds without a warning, no link is dead, and a browser reads and searches it offline."""

from __future__ import annotations

import shutil
import sys
from importlib import import_module
from pathlib import Path

import pytest
from pages import DOCS, ROOT

sys.path.insert(0, str(DOCS / "site"))  # docs/site/ is no package: its programs are run, not installed
import api_pages
import build_site
import check_links
import sources


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    return build_site.build(tmp_path_factory.mktemp("docs"))


def test_every_page_is_in_the_site_and_in_its_navigation(site: Path) -> None:
    built = {page.relative_to(site).with_suffix(".md").as_posix() for page in site.rglob("*.html")} - {"404.md"}
    assert {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")} <= built
    navigation = (DOCS / "site" / "zensical.toml").read_text(encoding="utf-8")
    assert [page for page in sorted(built) if f'"{page}"' not in navigation] == []


def test_every_link_and_anchor_leads_somewhere_and_nothing_comes_from_outside(site: Path) -> None:
    assert check_links.check_site(site) == []


@pytest.mark.parametrize(
    ("added", "fault"),
    [
        ('<a href="no_such.html">x</a>', "links to no_such.html, which does not exist"),
        ('<a href="demo.html#no-such">x</a>', "links to demo.html#no-such, which has no such anchor"),
        ('<a href="../../secret">x</a>', "links to ../../secret, which does not exist"),
        ('<script src="https://example.org/x.js"></script>', "loads https://example.org/x.js from outside"),
        ('<link rel="stylesheet" href="//example.org/x.css">', "loads //example.org/x.css from outside"),
    ],
)
def test_a_dead_link_and_a_script_from_outside_are_found(site: Path, tmp_path: Path, added: str, fault: str) -> None:
    for page in ("demo", "index"):
        shutil.copy(site / f"{page}.html", tmp_path)
    (tmp_path / "page.html").write_text(f"<body>{added}</body>", encoding="utf-8")
    (tmp_path / "style.css").write_text('@font-face { src: url("https://example.org/f.woff2") }', encoding="utf-8")
    found = check_links.check_site(tmp_path)
    assert f"page.html: {fault}" in found
    assert "style.css: loads https://example.org/f.woff2" in found


@pytest.mark.parametrize("room", api_pages.ROOMS)
def test_every_public_name_of_a_front_door_is_documented(site: Path, room: str) -> None:
    text = (site / "api" / f"{room}.html").read_text(encoding="utf-8")
    for name, module in import_module(room)._MODULES.items():
        assert f'id="{module}.{name}"' in text


def test_links_fit_the_site() -> None:
    names = {"docs/a.md": "a.md", "docs/b/c.md": "b/c.md", "CONTRIBUTING.md": "contributing.md"}
    with pytest.raises(sources.LinkError, match=r"docs/a.md links to d.md, which does not exist"):
        sources.with_links("docs/a.md", "[x](d.md)", names)
    text = (
        "[x](../../CONTRIBUTING.md#style) ![y](../images/architecture.svg) [z](../../envs/base.py) [w](../../Makefile)"
    )
    moved = "[x](../contributing.md#style) ![y](../images/architecture.svg) [z](../api/envs.md) `w`"
    assert sources.with_links("docs/b/c.md", text, names) == moved
    same = "[x](#here) [y](https://example.org/a)\n```\n[z](no/file.md)\n```\n"
    assert sources.with_links("docs/a.md", same, names) == same


def test_links_of_a_checkout_lead_to_files() -> None:
    """Also where the site does not show them: README.md is no page of it."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "see `LICENSE`" in sources.with_links("README.md", text, {"README.md": "index.md"})


@pytest.mark.browser
def test_a_browser_searches_the_site_without_a_server_or_a_network(site: Path) -> None:
    browser_path = shutil.which("chromium")
    if browser_path is None:
        pytest.skip("chromium is not installed")
    from playwright.sync_api import sync_playwright

    requests: list[str] = []
    faults: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.on("request", lambda request: requests.append(request.url))
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.goto((site / "api" / "envs.html").as_uri())
        search = page.get_by_placeholder("Search")
        search.wait_for(state="attached")  # the page's script has run
        page.locator(".md-search__button").click()
        search.fill("importance exponent")
        found = page.locator("a", has_text="Configuration").filter(has=page.locator("mark")).first
        found.wait_for()
        found.click()
        page.wait_for_url("**/configuration.html*")
        browser.close()
    assert faults == []
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []
