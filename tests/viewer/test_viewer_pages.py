"""The page in a real browser: open, filter, search, step through, compare, by mouse and by keyboard; axe-core."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from viewer_cases import SCRIPT, small_runs

from archer.viewer.app import make_app
from archer.viewer.serve import listening
from archer.viewer.store import Store

CHROMIUM = Path("/usr/bin/chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: make install")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM.exists(), reason=f"{CHROMIUM} is not installed: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve two small runs and return the address."""
    store = Store(small_runs(tmp_path_factory.mktemp("runs")))
    store.refresh()
    sock = listening("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(make_app(store), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{sock.getsockname()[1]}"
    server.should_exit = True
    thread.join(timeout=20)
    store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(
            executable_path=str(CHROMIUM), args=["--no-sandbox", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any, site: str) -> Iterator[Any]:
    """A page whose requests leave the site for nowhere, and that reports no error."""
    page = browser.new_page(viewport={"width": 1280, "height": 800}, base_url=site)
    page.set_default_timeout(20_000)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url) if not request.url.startswith(site) else None)
    yield page
    page.close()
    assert said == []


def _episodes(page: Any, **asked: str) -> list[dict[str, Any]]:
    page.goto("/")
    return page.evaluate("asked => fetch('/api/episodes?' + new URLSearchParams(asked)).then(a => a.json())", asked)[
        "rows"
    ]


def _open(page: Any, row: dict[str, Any]) -> None:
    page.goto(f"/#/episode?run={row['run']}&file={row['file']}&row={row['row']}")
    page.wait_for_selector(".turn")


def test_a_turn_shows_its_values_as_they_were_used_and_as_the_newest_critic_sees_them(page: Any) -> None:
    rows = _episodes(page, run="alpha", stage="training", limit="200")
    _open(page, next(one for one in rows if one["cycle"] == 4))
    shown = page.locator(".turn .useds").first.inner_text()
    assert "used, cycle 4" in shown
    assert "now, cycle 4" in shown


def test_runs_are_listed_with_their_curves_and_open_by_keyboard(page: Any) -> None:
    page.goto("/")
    page.wait_for_selector("table.wide tbody tr")
    assert page.locator("table.wide tbody th").all_inner_texts() == ["alpha", "beta"]
    assert "alpha training from" in page.get_by_role("img", name="Return").get_attribute("aria-label")
    assert page.locator(".plot canvas").count() == 1
    page.get_by_label("show beta in the chart").uncheck()
    page.locator(".plot[aria-label*='beta']").wait_for(state="detached")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.wait_for_selector("h1:has-text('beta')")
    page.wait_for_selector(".charts .plot canvas")
    assert page.locator(".charts .card").count() >= 8
    page.get_by_text("config.yaml").click()
    assert "algorithm: ppo" in page.locator("details[open] pre").inner_text()


def test_episodes_are_filtered_and_searched_and_a_search_can_match_nothing(page: Any) -> None:
    page.goto("/#/episodes")
    page.wait_for_selector("table.wide tbody tr")
    total = page.locator(".title p").inner_text()
    page.get_by_label("Outcome").select_option("no")
    page.locator(".title p", has_text=total).wait_for(state="detached")
    assert set(page.locator("tbody td:nth-child(4)").all_inner_texts()) == {"✗ failure"}
    page.keyboard.press("Escape")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("violin")
    page.wait_for_selector("mark")
    assert set(page.locator("mark").all_inner_texts()) == {"violin"}
    assert "q=violin" in page.url
    page.locator("input[type=search]").fill("nothing says this")
    page.get_by_text("No episode matches.").wait_for()
    page.get_by_role("button", name="Clear filters").first.click()
    page.wait_for_selector("table.wide tbody tr")


def test_one_steps_through_turns_and_episodes_and_shades_tokens(page: Any) -> None:
    page.goto("/#/episodes?run=alpha&stage=training&sort=turns")
    page.wait_for_selector("table.wide tbody tr")
    page.keyboard.press("Enter")
    page.wait_for_selector(".turn")
    first = page.locator(".facts code").inner_text()
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.wait_for_selector(".turn.marked >> text=turn 2")
    figures = page.locator(".turn.marked .useds").first.inner_text()
    assert all(word in figures for word in ("Q", "V", "A", "target"))
    assert page.locator("[class*=' lp']").count() > 0
    page.keyboard.press("s")
    page.wait_for_selector("[class*=' ap'], [class*=' an']")
    page.keyboard.press("]")
    page.locator(f".facts code:text-is('{first}')").wait_for(state="detached")
    page.keyboard.press("Escape")
    page.wait_for_selector("h1:has-text('Episodes')")
    assert "sort=turns" in page.url


def test_the_boundary_of_a_policy_version_is_marked(page: Any) -> None:
    rows = _episodes(page, run="alpha", stage="training", limit="200", min_version="1")
    crossing = next(row for row in rows if row["seed"] % 7 == 3)
    _open(page, crossing)
    assert page.locator(".boundary").all_inner_texts() == [f"policy {crossing['version']}"]


def test_two_policy_versions_of_a_seed_stand_side_by_side(page: Any) -> None:
    row = _episodes(page, run="alpha", evaluation="clone")[0]
    _open(page, row)
    select = page.get_by_label("Compare with the same seed")
    labels = select.locator("option").all_inner_texts()
    select.select_option(label=next(label for label in labels if "alpha: version 4, final" in label))
    page.wait_for_selector(".pair .side")
    heads = page.locator(".side strong").all_inner_texts()
    assert (heads[0], heads[2]) == ("version 0", "version 4")
    assert "the same seed" in page.locator(".title").inner_text()
    page.keyboard.press("x")
    page.wait_for_selector(".side:first-child >> text=version 4")
    page.goto("/#/episodes?run=beta")
    page.wait_for_selector("table.wide tbody tr")
    page.keyboard.press("x")
    page.get_by_text("One episode is chosen").wait_for()
    page.keyboard.press("j")
    page.keyboard.press("x")
    page.wait_for_selector(".pair .side")


def test_a_script_in_an_utterance_is_shown_and_never_run(page: Any) -> None:
    row = next(row for row in _episodes(page, run="beta", q="script"))
    _open(page, row)
    assert SCRIPT in page.locator(".turn").first.inner_text()
    page.goto("/#/episodes?q=script")
    page.wait_for_selector("mark")
    assert page.title() != "owned"
    assert page.locator("main script, main img").count() == 0


def test_a_narrow_screen_scrolls_only_downwards(browser: Any, site: str) -> None:
    page = browser.new_page(viewport={"width": 380, "height": 800}, base_url=site)
    row = _episodes(page, run="alpha", stage="training")[0]
    for address in ("/#/runs", "/#/run?run=alpha", "/#/episodes"):
        page.goto(address)
        page.wait_for_selector("table")
        assert page.evaluate("document.documentElement.scrollWidth") <= 380, address
    _open(page, row)
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page.close()


def test_axe_core_finds_nothing(browser: Any, site: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed: make install")
    page = browser.new_page(viewport={"width": 1280, "height": 800}, base_url=site)
    row = _episodes(page, run="alpha", stage="training", sort="turns_up")[0]
    same = "&".join(f"a_{name}={row[name]}&b_{name}={row[name]}" for name in ("run", "file", "row"))
    episode = f"/#/episode?run={row['run']}&file={row['file']}&row={row['row']}"
    looked = [
        ("light", "/#/runs", "table.wide"),
        ("light", "/#/run?run=beta", ".charts"),
        ("light", f"/#/compare?{same}", ".turn"),
        ("dark", "/#/episodes?run=beta&q=violin", "mark"),
        ("dark", episode, ".turn"),
    ]
    for scheme, address, ready in looked:
        page.emulate_media(color_scheme=scheme)
        page.goto(address)
        page.wait_for_selector(ready)
        page.keyboard.press("s")
        if ready == "mark":
            page.keyboard.press("?")
            page.wait_for_selector(".keys")
        found = axe.Axe().run(page)
        assert found.violations_count == 0, f"{address} {scheme}\n{found.generate_report()}"
    page.close()
