"""The environments of this project: for each id, its spec, its class and its scripted demonstrator.

`envs.registry` reads `ENTRIES`. Classes and demonstrators are named as `module:Name`, so that the package of an
optional extra is imported only when its environment is made.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from envs.adapters import specs as adapted
from envs.base import EnvSpec
from envs.detective.game import Detective
from envs.guess_my_city.game import GuessMyCity
from envs.key_door import KeyDoor
from envs.maze import Maze
from envs.support_desk.game import SupportDesk
from envs.text_adventure.game import TextAdventure
from envs.text_nav.game import TextNav
from envs.tool_use.game import ToolUse
from envs.twenty_questions.game import TwentyQuestions, TwentyQuestionsSubset
from envs.web_forms.game import WebForms
from envs.webshop.game import WebShop
from envs.webshop_http.spec import SPEC as WEBSHOP_HTTP
from envs.wordle.game import Wordle

Factory: TypeAlias = Callable[..., Any]


@dataclass(frozen=True)
class Entry:
    """One registered environment.

    spec: its spec, known before the environment is made.
    make: the class or function that makes the environment, or its `module:Name`.
    demonstrator: the same for its scripted demonstrator, or None.
    """

    spec: EnvSpec
    make: str | Factory
    demonstrator: str | Factory | None = None


_ENTRIES = (
    Entry(Detective.spec, "envs.detective.game:Detective", "envs.detective.demonstrator:DetectiveDemonstrator"),
    Entry(
        GuessMyCity.spec,
        "envs.guess_my_city.game:GuessMyCity",
        "envs.guess_my_city.demonstrator:GuessMyCityDemonstrator",
    ),
    Entry(KeyDoor.spec, "envs.key_door:KeyDoor", "envs.key_door:KeyDoorDemonstrator"),
    Entry(Maze.spec, "envs.maze:Maze", "envs.maze:MazeDemonstrator"),
    Entry(
        SupportDesk.spec, "envs.support_desk.game:SupportDesk", "envs.support_desk.demonstrator:SupportDeskDemonstrator"
    ),
    Entry(
        TextAdventure.spec,
        "envs.text_adventure.game:TextAdventure",
        "envs.text_adventure.demonstrator:TextAdventureDemonstrator",
    ),
    Entry(TextNav.spec, "envs.text_nav.game:TextNav", "envs.text_nav.demonstrator:TextNavDemonstrator"),
    Entry(ToolUse.spec, "envs.tool_use.game:ToolUse", "envs.tool_use.demonstrator:ToolUseDemonstrator"),
    Entry(
        TwentyQuestions.spec,
        "envs.twenty_questions.game:TwentyQuestions",
        "envs.twenty_questions.demonstrator:TwentyQuestionsDemonstrator",
    ),
    Entry(
        TwentyQuestionsSubset.spec,
        "envs.twenty_questions.game:TwentyQuestionsSubset",
        "envs.twenty_questions.demonstrator:TwentyQuestionsSubsetDemonstrator",
    ),
    Entry(WebForms.spec, "envs.web_forms.game:WebForms", "envs.web_forms.demonstrator:WebFormsDemonstrator"),
    Entry(WebShop.spec, "envs.webshop.game:WebShop", "envs.webshop.demonstrator:WebShopDemonstrator"),
    Entry(WEBSHOP_HTTP, "envs.webshop_http.game:WebShopHttp"),
    Entry(Wordle.spec, "envs.wordle.game:Wordle", "envs.wordle.demonstrator:WordleDemonstrator"),
    Entry(adapted.GYMNASIUM, "envs.adapters.gymnasium_env:GymnasiumEnv"),
    Entry(adapted.MINIWOB, "envs.adapters.miniwob_env:MiniWob"),
    Entry(adapted.OPENENV, "envs.adapters.openenv_env:OpenEnv"),
    Entry(adapted.TEXTARENA, "envs.adapters.textarena_games:TextArena"),
    Entry(
        adapted.TEXTWORLD,
        "envs.adapters.textworld_games:TextWorld",
        "envs.adapters.textworld_games:TextWorldDemonstrator",
    ),
)
ENTRIES: Mapping[str, Entry] = {entry.spec.id: entry for entry in _ENTRIES}
"""Environments of this project, by id."""
