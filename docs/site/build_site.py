"""Build the documentation site in build/docs/site: python docs/site/build_site.py. It ends with 1 at the first warning.

The site needs no server and no network: its pages, its fonts and its search work from the files.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import generated
from api_pages import api_pages
from check_links import check_site
from sources import ROOT, SITE, LinkError, copy_pages

BUILD = ROOT / "build" / "docs"
_WORKER_SHIM = "https://unpkg.com/iframe-worker/shim"
"""The script from outside that Zensical's offline pages load to search without a server; assets/ has our own."""


def build(folder: Path = BUILD) -> Path:
    """Build the site below `folder`; return the site's folder. Raises LinkError, or SystemExit with what is wrong."""
    shutil.rmtree(folder, ignore_errors=True)
    pages = folder / "pages"
    copy_pages(pages)
    for name, text in api_pages().items():
        (pages / name).parent.mkdir(exist_ok=True)
        (pages / name).write_text(text, encoding="utf-8")
    shutil.copytree(SITE / "assets", pages / "assets")
    config = (SITE / "zensical.toml").read_text(encoding="utf-8")
    (folder / "zensical.toml").write_text(config.replace('paths = ["../.."]', f'paths = ["{ROOT}"]'), encoding="utf-8")
    command = [sys.executable, "-m", "zensical", "build", "--strict"]
    done = subprocess.run(command, cwd=folder, env=os.environ | {"NO_COLOR": "1"}, capture_output=True, text=True)
    if done.returncode != 0 or "warning" in (done.stdout + done.stderr).lower():
        said = re.sub(r"\x1b\[[\d;]*m", "", f"{done.stdout}\n{done.stderr}").partition("\nTraceback ")[0]
        sys.exit(f"the site has warnings:\n{said}")
    for page in (folder / "site").rglob("*.html"):
        page.write_text(_readable_from_files(page, folder / "site"), encoding="utf-8")
    return folder / "site"


def _readable_from_files(page: Path, site: Path) -> str:
    """Return the text of a page without what needs a server: the worker's script, links to a folder."""
    up = os.path.relpath(site, page.parent)
    text = page.read_text(encoding="utf-8").replace(_WORKER_SHIM, f"{up}/assets/search_without_server.js")
    return text.replace(f'href="./{up}"', f'href="{up}/index.html"')


def main() -> None:
    """Write the generated pages, build the site and check its links."""
    generated.write()
    try:
        site = build()
    except LinkError as error:
        sys.exit(str(error))
    if faults := check_site(site):
        sys.exit("\n".join(faults))
    print(f"open {os.path.relpath(site / 'index.html')}")


if __name__ == "__main__":
    main()
