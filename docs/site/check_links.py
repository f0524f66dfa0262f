"""Check a built site: every link and anchor leads somewhere inside it, and no page loads anything from outside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from selectolax.lexbor import LexborHTMLParser, LexborNode

_LOADED = {"script": "src", "img": "src", "link": "href", "source": "src", "iframe": "src", "object": "data"}
_CSS_URL = re.compile(r"url\(\s*['\"]?(?!data:|#)([^)'\"]+)")


def check_site(site: Path) -> list[str]:
    """Return what is wrong with a site, one sentence for each fault."""
    faults = []
    for page in sorted(site.rglob("*.html")):
        if page.name == "404.html":  # Zensical writes its links for the root of a server
            continue
        for node, target in _references(page):
            if fault := _fault(site, page, node, target):
                faults.append(f"{page.relative_to(site)}: {fault}")
    for sheet in sorted(site.rglob("*.css")):
        for url in _CSS_URL.findall(sheet.read_text(encoding="utf-8")):
            if urlsplit(url).netloc or not (sheet.parent / unquote(urlsplit(url).path)).is_file():
                faults.append(f"{sheet.relative_to(site)}: loads {url}")
    return faults


def _references(page: Path) -> Iterator[tuple[LexborNode, str]]:
    parsed = LexborHTMLParser(page.read_text(encoding="utf-8"))
    for tag, attribute in {**_LOADED, "a": "href"}.items():
        for node in parsed.css(f"{tag}[{attribute}]"):
            yield node, node.attributes[attribute] or ""


def _fault(site: Path, page: Path, node: LexborNode, target: str) -> str | None:
    parts = urlsplit(target)
    if parts.scheme == "data" or (node.tag == "a" and parts.scheme in ("http", "https", "mailto")):
        return None
    if parts.scheme or parts.netloc:
        return f"loads {target} from outside"
    file = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if site.resolve() not in file.parents or not file.is_file():
        return f"links to {target}, which does not exist"
    if parts.fragment and file.suffix == ".html" and unquote(parts.fragment) not in _anchors(file):
        return f"links to {target}, which has no such anchor"
    return None


@cache
def _anchors(page: Path) -> frozenset[str]:
    parsed = LexborHTMLParser(page.read_text(encoding="utf-8"))
    named = [node.attributes.get("name") for node in parsed.css("a[name]")]
    return frozenset(filter(None, [*(node.attributes["id"] for node in parsed.css("[id]")), *named, "__top"]))
