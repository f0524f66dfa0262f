"""The environment `WebShopHttp`: WebShop (Yao et al. 2022) on a running server, played through its pages.

A session named `..._fixed_N` has goal number N of the server, so the episode seed draws N. The server stores only goal
and score of a session; position and chosen options are part of the addresses.
"""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, get_args

from envs.base import INVALID_ACTION, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvFailedError, EnvStateError
from envs.toolkit.argument_checks import check_one_of, refuse_options
from envs.webshop.grammar import MAX_LENGTH, read_action
from envs.webshop.texts import (
    HELP,
    INVALID,
    NO_BOX,
    NO_BUTTON,
    NO_WORDS,
    NOTHING_FOUND,
    SEARCH_BOX,
    Observe,
    describe_item,
    describe_options,
    describe_purchase,
    describe_result,
    with_buttons,
)
from envs.webshop_http.html_pages import Link, SitePage, read_page
from envs.webshop_http.site_client import Answer, SiteClient
from envs.webshop_http.spec import SPEC

LONGEST_TITLE = 80
"""Greatest length of a title in compact results, in characters."""
LONGEST_TEXT = 500
"""Greatest length of a compact description, feature list or review page, in characters."""

# Words only: a slash would break the server's addresses, and tokens such as "<r>" bypass its search.
_WORDS = re.compile(r"[\w.'$&%+-]+")


class WebShopHttp:
    """WebShop on a running server: 0 to 1 on the turn that buys, as the server scores it; 0 on all other turns.

    url: root of the server.
    goals, first_goal: seeds draw from `goals` goals of the server, beginning with number `first_goal`. WebShop's
        authors test on goals 0 to 499, validate on 500 to 1,499 and train on the rest.
    observe: "compact" for few tokens, "full" for the whole pages; as in `webshop`.
    timeout_s: longest wait for one page, in seconds.

    If the server refuses an action, the observation says so and the page does not change. If nothing answers,
    EnvFailedError or EnvTimeoutError is raised.
    """

    spec: ClassVar[EnvSpec] = SPEC

    def __init__(
        self,
        *,
        url: str = "http://127.0.0.1:3000",
        goals: int = 500,
        first_goal: int = 0,
        observe: Observe = "compact",
        timeout_s: float = 20.0,
    ) -> None:
        check_one_of(self.spec.id, "observe", observe, get_args(Observe))
        for name, value, least in (("goals", goals, 1), ("first_goal", first_goal, 0)):
            if not isinstance(value, int) or value < least:
                raise EnvArgumentError(f"{self.spec.id}: {name} is {value!r}, must be a whole number from {least}")
        self.goals, self.first_goal, self.observe = goals, first_goal, observe
        self._client = SiteClient(self.spec.id, url, timeout_s)
        # Unique, so that two episodes with the same goal do not share a session of the server.
        self._name = uuid.uuid4().hex[:12]
        self._page: SitePage | None = None
        self._address = ""

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Open a session for the goal of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        goal = self.first_goal + random.Random(seed).randrange(self.goals)
        self._page = None
        answer = self._client.fetch(f"/{self._name}_fixed_{goal}")
        if answer.status >= 400:
            raise EnvFailedError(
                f"{self.spec.id}: {answer.address} answers HTTP {answer.status}: check that a WebShop server with "
                f"at least {goal + 1} goals (goals is {self.goals}, first_goal {self.first_goal}) runs there"
            )
        page = self._open(answer)
        if page.kind != "search":
            raise EnvFailedError(f"{self.spec.id}: {answer.address} is not the search page with which a session begins")
        return f"{page.instruction.rstrip('.')}. {HELP}", self._info(page) | {TASK_ID: f"goal-{goal}"}

    def step(self, action: str) -> Step:
        """Search or click. An action for which the page has no element costs the turn."""
        page = self._page
        if page is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        parsed = read_action(action)
        after = self._go(page, *parsed) if parsed is not None else INVALID
        if isinstance(after, str):
            return after, 0.0, False, False, self._info(page) | {INVALID_ACTION: True}
        if after.score is not None:
            return describe_purchase(after.score), after.score, True, False, self._info(after)
        return self._describe(after), 0.0, False, False, self._info(after)

    def close(self) -> None:
        self._page = None
        self._client.close()

    def _go(self, page: SitePage, verb: str, words: str) -> SitePage | str:
        """Return the page to which an action leads, or the observation if it leads nowhere."""
        if verb == "click":
            link = _links(page, self.observe).get(words)
            return NO_BUTTON if link is None else self._follow(link)
        if page.search is None:
            return NO_BOX
        words = " ".join(_WORDS.findall(words))
        return self._follow(page.search, {"search_query": words}) if words else NO_WORDS

    def _follow(self, link: Link, form: dict[str, str] | None = None) -> SitePage | str:
        answer = self._client.fetch(link.address, base=self._address, method=link.method, form=form)
        if answer.status >= 400:
            return f"The shop can't do that (HTTP {answer.status})."
        return self._open(answer)

    def _open(self, answer: Answer) -> SitePage:
        try:
            page = read_page(answer.html)
        except EnvFailedError as error:
            raise EnvFailedError(f"{self.spec.id}: {answer.address}: {error}") from error
        self._page, self._address = page, answer.address
        return page

    def _describe(self, page: SitePage) -> str:
        """Return the text of a page."""
        if page.kind == "search":
            return SEARCH_BOX
        compact = self.observe == "compact"
        if page.kind == "results":
            titles = (_cut(result.title, LONGEST_TITLE) if compact else result.title for result in page.results)
            rows = zip(_names(page, self.observe), titles, page.results, strict=True)
            lines = [describe_result(name, title, result.price) for name, title, result in rows]
            text = "\n".join((f"{page.heading}.", *(lines or [NOTHING_FOUND])))
        elif page.kind == "item":
            if compact:
                return describe_options(page.options, page.chosen)
            text = describe_item(page.heading, page.price, page.rating, page.options, page.chosen)
        else:
            text = "\n".join(page.lines) or "Nothing there."
            text = _cut(text, LONGEST_TEXT) if compact else text
        return text if compact else with_buttons(text, page.buttons)

    def _info(self, page: SitePage) -> Info:
        names = list(_links(page, self.observe))
        searches = []
        if page.search is not None:
            searches = [f"search[{' '.join(_WORDS.findall(page.instruction[: MAX_LENGTH // 2]))}]"]
        return {
            SUCCESS: page.score == 1.0,
            INVALID_ACTION: False,
            VALID_ACTIONS: searches + [f"click[{name}]" for name in names],
        }


def _names(page: SitePage, observe: Observe) -> list[str]:
    """Return the names of the items on a page of results: numbers from 1 if compact, else codes."""
    if observe == "compact":
        return [str(number) for number in range(1, len(page.results) + 1)]
    return [result.code.lower() for result in page.results]


def _links(page: SitePage, observe: Observe) -> dict[str, Link]:
    """Return all elements that can be clicked, by name."""
    named = dict(zip((result.code.lower() for result in page.results), _names(page, observe), strict=True))
    return {named.get(name, name): link for name, link in page.links.items()}


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"
