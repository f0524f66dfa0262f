"""`MiniWob`: tasks of MiniWoB in a real browser, with tasks, pages and rewards of the package `browsergym-miniwob`.

Pages are read through BrowserGym's accessibility tree. BrowserGym's own environment is not used, because it starts two
browsers per episode and takes a screenshot on every turn.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from browsergym.core.constants import BROWSERGYM_ID_ATTRIBUTE
from browsergym.core.observation import MarkingError, _post_extract, _pre_extract, extract_merged_axtree
from browsergym.miniwob import ALL_MINIWOB_TASKS
from browsergym.utils.obs import IGNORED_AXTREE_PROPERTIES, IGNORED_AXTREE_ROLES, flatten_axtree_to_str
from playwright.sync_api import Browser, BrowserContext, Error, Page, Playwright, sync_playwright

from envs.adapters.specs import MINIWOB
from envs.base import INVALID_ACTION, SUCCESS, TASK_ID, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError, nearest
from envs.toolkit.argument_checks import refuse_options
from envs.web_forms.grammar import Action, read_action

TASKS = {task.subdomain: task for task in ALL_MINIWOB_TASKS}
"""MiniWoB's tasks by name, such as `click-test`."""

BROWSER_VARIABLE = "ARCHER_CHROMIUM"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

VERBS = "Actions: click[n], type[n] text, select[n] option, check[n], uncheck[n]."
INVALID = "Invalid action."
UNCHANGED = "Nothing changed."
SOLVED = "Task solved."
FAILED = "Task failed."

ACTION_TIMEOUT_MS = 1000
"""How long the browser tries one action: twice as long as in BrowserGym, because a busy machine missed clicks."""
EXTRACT_TRIES = 3

IGNORED_ROLES = [*IGNORED_AXTREE_ROLES, "InlineTextBox", "MenuListPopup", "LabelText"]
"""Roles that BrowserGym ignores, and roles that only repeat or contain another element."""
IGNORED_PROPERTIES = (*IGNORED_AXTREE_PROPERTIES, "url")
"""Properties that BrowserGym ignores, and the addresses of the pages on this machine."""

_ELEMENT = re.compile(r"[a-z0-9]{1,8}")


class MiniWob:
    """One task of MiniWoB, with a variant for each seed; 1 for solving it, else 0.

    task: name, such as "click-test"; docs/environments/miniwob.md links the list.
    browser: executable of Chromium; by default the environment variable ARCHER_CHROMIUM, else found by name on the
        PATH.
    settle_ms: time between an action and reading the page, in milliseconds.

    The pages are those of the `miniwob` package or those at MINIWOB_URL, as in BrowserGym. One browser serves all
    episodes, each with its own context.
    """

    spec: EnvSpec = MINIWOB

    def __init__(self, *, task: str, browser: str | None = None, settle_ms: int = 50) -> None:
        self.check_arguments(task=task, browser=browser, settle_ms=settle_ms)
        self.task_name = task
        self._executable = find_browser(browser)
        self._url = pages_url()
        self._settle_ms = settle_ms
        self._playwright: Playwright | None = None
        self._browser: Browser | None = None
        self._context: BrowserContext | None = None
        self._page: Page | None = None
        self._task: Any = None
        self._page_text = ""

    @staticmethod
    def check_arguments(*, task: str, browser: str | None = None, settle_ms: int = 50) -> None:
        """Raise EnvArgumentError for an unknown task, or a browser or pages that cannot be found."""
        if task not in TASKS:
            raise EnvArgumentError(f"miniwob: there is no task {task!r}: {nearest(str(task), TASKS)}")
        if settle_ms < 0:
            raise EnvArgumentError(f"miniwob: settle_ms is {settle_ms}, must not be negative")
        find_browser(browser)
        pages_url()

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Begin the variant of `seed`, of which MiniWoB uses the lowest 32 bits."""
        refuse_options(self.spec.id, options)
        self._end_episode()
        task = self._task = TASKS[self.task_name](seed=seed % 2**32, base_url=self._url)
        self._context = self._open_browser().new_context(viewport=task.viewport)
        self._context.set_default_timeout(task.timeout)
        page = self._page = self._context.new_page()
        goal, _ = task.setup(page)
        self._page_text = read_page(page)
        text = f"{' '.join(str(goal).split())}\n{VERBS}\n{self._page_text}"
        return text, {TASK_ID: f"{self.task_name}-{seed}", SUCCESS: False, INVALID_ACTION: False}

    def step(self, action: str) -> Step:
        """Do one action on the page. An action that cannot be parsed does not reach the browser and costs the turn."""
        page = self._page
        if page is None:
            raise EnvStateError("step of miniwob: the episode has not begun: call reset first")
        read = read_action(action)
        if read is None or not _ELEMENT.fullmatch(read.element):
            return INVALID, 0.0, False, False, {SUCCESS: False, INVALID_ACTION: True}
        refused = self._do(page, read)
        page.wait_for_timeout(self._settle_ms)
        reward, done, _, _ = self._task.validate(page, [])
        info: Info = {SUCCESS: bool(done and reward > 0), INVALID_ACTION: bool(refused)}
        if done:
            return SOLVED if info[SUCCESS] else FAILED, float(reward), True, False, info
        if refused:
            return refused, 0.0, False, False, info
        before, self._page_text = self._page_text, read_page(page)
        return UNCHANGED if self._page_text == before else self._page_text, 0.0, False, False, info

    def close(self) -> None:
        self._end_episode()
        if self._browser is not None:
            self._browser.close()
            self._browser = None
        if self._playwright is not None:
            self._playwright.stop()
            self._playwright = None

    @staticmethod
    def _do(page: Page, action: Action) -> str:
        """Do an action in the browser; return the observation if the browser refuses it, else an empty string."""
        element = page.get_by_test_id(action.element)
        if element.count() != 1:
            return "There is no such element."
        try:
            if action.verb == "click":
                element.click(timeout=ACTION_TIMEOUT_MS)
            elif action.verb == "type":
                element.fill(action.value, timeout=ACTION_TIMEOUT_MS)
            elif action.verb == "select":
                element.select_option(action.value, timeout=ACTION_TIMEOUT_MS)
            elif action.verb == "check":
                element.check(timeout=ACTION_TIMEOUT_MS)
            else:
                element.uncheck(timeout=ACTION_TIMEOUT_MS)
        except Error:
            return f"You can't {action.verb} that, or not so."
        return ""

    def _open_browser(self) -> Browser:
        if self._browser is None:
            self._playwright = sync_playwright().start()
            # BrowserGym marks each element with this attribute, by which `_do` finds it.
            self._playwright.selectors.set_test_id_attribute(BROWSERGYM_ID_ATTRIBUTE)
            self._browser = self._playwright.chromium.launch(executable_path=self._executable, headless=True)
        return self._browser

    def _end_episode(self) -> None:
        context, self._context, self._page = self._context, None, None
        if self._task is not None:
            self._task.teardown()
            self._task = None
        if context is not None:
            context.close()


def read_page(page: Page) -> str:
    """Return the accessibility tree of a page, one line per element, with BrowserGym's numbers."""
    for left in reversed(range(EXTRACT_TRIES)):
        try:
            _pre_extract(page, tags_to_mark="standard_html", lenient=left == 0)
            tree = extract_merged_axtree(page)
            break
        except (Error, MarkingError):  # the page changed while it was read
            if left == 0:
                raise
            page.wait_for_timeout(100)
        finally:
            _post_extract(page)
    text: str = flatten_axtree_to_str(tree, ignored_roles=IGNORED_ROLES, ignored_properties=IGNORED_PROPERTIES)
    return text.replace("\t", "  ")


def find_browser(named: str | None) -> str:
    """Return the executable of Chromium. Raises EnvArgumentError, with the remedy, if there is none."""
    asked = named or os.environ.get(BROWSER_VARIABLE)
    if asked:
        found = shutil.which(asked)
        if found is None:
            where = "browser" if named else f"the environment variable {BROWSER_VARIABLE}"
            raise EnvArgumentError(f"miniwob: {where} is {asked!r}, which is not an executable program")
        return found
    for name in BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise EnvArgumentError(
        f"miniwob needs Chromium, and none of {', '.join(BROWSERS)} is on the PATH: install it (on Debian and Ubuntu, "
        f"apt-get install chromium), or give one as browser=... or in the environment variable {BROWSER_VARIABLE}"
    )


def pages_url() -> str:
    """Return the address of MiniWoB's pages. Raises EnvArgumentError if there are none."""
    if url := os.environ.get("MINIWOB_URL"):
        return url if url.endswith("/") else url + "/"
    # Not imported, because the package would import selenium.
    package = importlib.util.find_spec("miniwob")
    for place in package.submodule_search_locations or () if package else ():
        folder = Path(place) / "html" / "miniwob"
        if folder.is_dir():
            return f"{folder.as_uri()}/"
    raise EnvArgumentError("miniwob: the package miniwob has no pages: set MINIWOB_URL to their address")
