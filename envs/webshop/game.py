"""The environment `WebShop`, after WebShop (Yao et al. 2022).

As in the original: pages and buttons, the action grammar, the score, and fifty results per search. Different: the
catalogue is generated. `compact` observations, which small models can read, omit buttons that are always present and
text of the page before, and name results by number. The search box is available on the search page only.
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
from envs.webshop.texts import BUY, HELP, INVALID, NO_BOX, NO_BUTTON, NO_WORDS, Observe, describe_purchase

MAX_TURNS = 10


class WebShop:
    """Buy what the instruction asks for: 0 to 1 on the turn that buys, by how well the item fits; 0 on all other turns.

    items: size of the catalogue, up to 100,000. Environments of a process with the same catalogue share it.
    catalogue_seed: seed of the catalogue.
    departments: departments of the items (clothing, home, electronics, beauty, grocery, outdoors); None for all.
    goals: number of distinct goals, from which the episode seed draws one; None draws a new goal per seed.
    results_per_page: 1 to 50.
    observe: "compact" for few tokens, "full" for pages with prices, ratings and buttons, as in WebShop.

    `info["valid_actions"]` lists the clicks, or on the search page a search for each type of item. `invalid_action`
    means that the page has no element for the action. Such an action costs the turn, and the page does not change.
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
        """Draw the goal of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        goal = self._goal = self.goal_of(seed)
        self._visit = Visit()
        return f"{goal.instruction} {HELP}", self._info(goal, False) | {TASK_ID: f"goal-{self._goal_number(seed)}"}

    def step(self, action: str) -> Step:
        """Search or click. An action for which the page has no element costs the turn."""
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
        """Return the goal of an episode."""
        return draw_goal(self.catalogue, random.Random(f"goal {self._goal_number(seed)}"))

    def _goal_number(self, seed: int) -> int:
        return seed if self.goals is None else random.Random(seed).randrange(self.goals)

    def _go(self, verb: str, words: str) -> Visit | str:
        """Return the visit to which an action leads, or the observation if it leads nowhere."""
        if verb == "click":
            return self.shop.click(self._visit, words) or NO_BUTTON
        if self._visit.page != "search":
            return NO_BOX
        return self.shop.search(words) if words else NO_WORDS

    def _buy(self, goal: Goal) -> Step:
        assert self._visit.item is not None
        reward = score(self.catalogue, goal, self.catalogue.items[self._visit.item], dict(self._visit.chosen))
        return describe_purchase(reward), reward, True, False, self._info(goal, reward == 1.0)

    def _info(self, goal: Goal, success: bool) -> Info:
        clickables = self.shop.clickables(self._visit)
        return {
            SUCCESS: success,
            INVALID_ACTION: False,
            VALID_ACTIONS: [f"click[{name}]" for name in clickables] if clickables else list(self._searches),
            PRIVILEGED: {"goal": goal, "visit": self._visit},
        }
