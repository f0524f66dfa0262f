"""The game, after WebShop (Yao et al. 2022).

From there come the pages and their buttons, the grammar, the score and the fifty results of a search. Ours is a
generated catalogue instead of scraped products. It differs in what a page says: `compact`, which small models can read,
leaves out buttons that are always there and what was read on the page before, and names results by their number; and
in the search box, which is where it is seen: on the search page alone.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, get_args

from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError
from envs.toolkit.argument_checks import check_one_of, refuse_options
from envs.webshop.catalogue import RESULTS, load_catalogue
from envs.webshop.goals import Goal, draw_goal, score
from envs.webshop.grammar import read_action
from envs.webshop.pages import Shop, Visit
from envs.webshop.texts import BUY, HELP, INVALID, NO_BOX, NO_BUTTON, NO_WORDS, Observe, tell_bought

MAX_TURNS = 10


class WebShop:
    """Buy what the instruction asks for: 0 to 1 on the turn that buys, by how well it fits, 0 on all others.

    items: how many the catalogue holds, up to 100,000. Whoever asks for the same catalogue in one process shares it.
    catalogue_seed: another seed, another catalogue.
    departments: only items of these (clothing, home, electronics, beauty, grocery, outdoors); None for all.
    goals: how many goals there are for episode seeds to draw from; None draws a new one for each seed.
    results_per_page: 1 to 50.
    observe: "compact" for few tokens, "full" for pages with prices, ratings and buttons, as WebShop's.

    `info["valid_actions"]` lists what can be clicked; where the page is the search box, searches for each type of item.
    `invalid_action` says that the page has nothing for the action. It costs a turn, and the page stays as it is.
    """

    spec: ClassVar[EnvSpec] = EnvSpec(
        id="webshop",
        description="Search a generated shop and buy what the instruction asks for.",
        max_turns=MAX_TURNS,
        reward_range=(0.0, 1.0),
    )

    def __init__(
        self,
        *,
        items: int = 1000,
        catalogue_seed: int = 0,
        departments: Sequence[str] | None = None,
        goals: int | None = None,
        results_per_page: int = 5,
        observe: Observe = "compact",
    ) -> None:
        check_one_of(self.spec.id, "observe", observe, get_args(Observe))
        if not isinstance(results_per_page, int) or not 1 <= results_per_page <= RESULTS:
            raise EnvArgumentError(
                f"{self.spec.id}: results_per_page is {results_per_page!r}, must be a whole number from 1 to {RESULTS}"
            )
        if goals is not None and (not isinstance(goals, int) or goals < 1):
            raise EnvArgumentError(f"{self.spec.id}: goals is {goals!r}, must be a whole number from 1, or None")
        self.catalogue = load_catalogue(items, catalogue_seed, departments)
        self.goals = goals
        self.shop = Shop(self.catalogue, results_per_page, observe)
        self._searches = [f"search[{type_}]" for type_ in self.catalogue.types]
        self._goal: Goal | None = None
        self._visit = Visit()

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Draw the goal of `seed`. There are no reset options: any raises EnvArgumentError."""
        refuse_options(self.spec.id, options)
        goal = self._goal = self.goal_of(seed)
        self._visit = Visit()
        return f"{goal.instruction} {HELP}", self._info(goal, False) | {TASK_ID: f"goal-{self._goal_number(seed)}"}

    def step(self, action: str) -> Step:
        """Search or click. Any string is an action; what the page has nothing for is answered so."""
        goal = self._goal
        if goal is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        parsed = read_action(action)
        if parsed == ("click", BUY) and self._visit.page == "item":
            return self._buy(goal)
        after = self._go(*parsed) if parsed is not None else INVALID
        if isinstance(after, str):
            return after, 0.0, False, False, self._info(goal, False) | {INVALID_ACTION: True}
        self._visit = after
        return self.shop.describe(after), 0.0, False, False, self._info(goal, False)

    def close(self) -> None:
        self._goal = None

    def goal_of(self, seed: int) -> Goal:
        """The goal of an episode."""
        return draw_goal(self.catalogue, random.Random(f"goal {self._goal_number(seed)}"))

    def _goal_number(self, seed: int) -> int:
        return seed if self.goals is None else random.Random(seed).randrange(self.goals)

    def _go(self, verb: str, words: str) -> Visit | str:
        """Where an action leads, or what to answer where it leads nowhere."""
        if verb == "click":
            return self.shop.click(self._visit, words) or NO_BUTTON
        if self._visit.page != "search":
            return NO_BOX
        return self.shop.search(words) if words else NO_WORDS

    def _buy(self, goal: Goal) -> Step:
        assert self._visit.item is not None
        reward = score(self.catalogue, goal, self.catalogue.items[self._visit.item], dict(self._visit.chosen))
        return tell_bought(reward), reward, True, False, self._info(goal, reward == 1.0)

    def _info(self, goal: Goal, success: bool) -> Info:
        clickables = self.shop.clickables(self._visit)
        return {
            SUCCESS: success,
            INVALID_ACTION: False,
            VALID_ACTIONS: [f"click[{name}]" for name in clickables] if clickables else list(self._searches),
            PRIVILEGED: {"goal": goal, "visit": self._visit},
        }
