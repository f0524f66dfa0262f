"""The scripted shopper: follows a plan to the best item that it finds, or plays any valid action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from envs.base import Observation
from envs.toolkit.mixed_demonstrator import MixedDemonstrator
from envs.webshop.game import MAX_TURNS, WebShop
from envs.webshop.goals import Goal, best_score, fitting_options, score
from envs.webshop.pages import Shop, Visit
from envs.webshop.texts import BACK, BUY, NEXT, PREV

LOOK = 3
"""Number of pages of results that it reads."""


class WebShopDemonstrator(MixedDemonstrator):
    """Plays `WebShop(**shop)`: the next step of its plan with probability `skill`, else any valid action.

    Its plan: search for the goal's words, read the first pages of results, open the item with the greatest possible
    score, choose the goal's options, and buy. It knows all attributes of an item, which a policy must read from its
    features.
    """

    def __init__(self, *, skill: float, **shop: Any) -> None:
        super().__init__(skill=skill)
        self.shop = WebShop(**shop).shop
        self._wanted = 0.0

    def begin(self, observation: Observation, info: Mapping[str, Any], *, seed: int) -> None:
        super().begin(observation, info, seed=seed)
        goal = self.state["goal"]
        self._wanted = best_of(self.shop, goal, self.shop.catalogue.search(query(goal)))[0]

    def best_actions(self) -> Sequence[str]:
        goal, visit = self.state["goal"], self.state["visit"]
        if visit.page == "search":
            return [f"search[{query(goal)}]"]
        return [f"click[{self._best_click(goal, visit)}]"]

    def _best_click(self, goal: Goal, visit: Visit) -> str:
        if visit.page not in ("results", "item"):
            return PREV
        worth, target = best_of(self.shop, goal, visit.hits)
        if visit.page == "item":
            assert visit.item is not None
            item = self.shop.catalogue.items[visit.item]
            if best_score(self.shop.catalogue, goal, item) < max(worth, self._wanted):
                return PREV
            chosen = dict(visit.chosen)
            missing = [value for name, value in fitting_options(goal, item).items() if chosen.get(name) != value]
            return missing[0] if missing else BUY
        if worth < self._wanted:
            return BACK
        number = target // self.shop.results_per_page + 1
        if number != visit.number:
            return NEXT if number > visit.number else PREV
        return self.shop.names(visit)[target % self.shop.results_per_page]


def query(goal: Goal) -> str:
    """Return the words to search for: the goal's attributes, type and options."""
    return " ".join((*goal.attributes, goal.type, *(value for _, value in goal.options)))


def best_of(shop: Shop, goal: Goal, hits: Sequence[int]) -> tuple[float, int]:
    """Return the greatest possible score on the first LOOK pages of results and the first place in `hits` that has it;
    (0, 0) without results.
    """
    looked_at = [shop.catalogue.items[index] for index in hits[: LOOK * shop.results_per_page]]
    worths = [best_score(shop.catalogue, goal, item) for item in looked_at]
    best = max(worths, default=0.0)
    return best, worths.index(best) if worths else 0


def best_return(seed: int, *, max_turns: int = MAX_TURNS, **shop: Any) -> float:
    """Return the greatest return that is known to be reachable in the episode of `seed` of `WebShop(**shop)`.

    It searches for the goal's words and for all words of the goal's item, and buys each result with as many fitting
    options as the turns allow. A return of 1 cannot be exceeded.
    """
    game = WebShop(**shop)
    catalogue, goal, best = game.catalogue, game.goal_of(seed), 0.0
    for words in (query(goal), catalogue.items[goal.item].words()):
        for place, index in enumerate(catalogue.search(words)):
            # One turn each to search, to open the item and to buy, and one per page of results.
            left = max_turns - 3 - place // game.shop.results_per_page
            if left >= 0:
                fitting = list(fitting_options(goal, catalogue.items[index]).items())[:left]
                best = max(best, score(catalogue, goal, catalogue.items[index], dict(fitting)))
    return best
