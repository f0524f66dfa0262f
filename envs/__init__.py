"""Text environments, their wrappers and their scripted demonstrators.

An environment gives five values over strings and knows nothing of tokens, models or Ray. `make` gives any of them
under the one time limit, `AsyncEnv` awaits any of them, `demonstrate` plays scripted episodes. This room imports no
other room of the house.
"""

from envs.adapters import specs as adapted
from envs.base import (
    INVALID_ACTION,
    PRIVILEGED,
    RESERVED_INFO_KEYS,
    SUCCESS,
    TASK_ID,
    TIMED_OUT,
    VALID_ACTIONS,
    EnvSpec,
    Info,
    Isolation,
    Message,
    Observation,
    Step,
    TextEnv,
    unwrapped,
)
from envs.detective import Detective
from envs.errors import (
    EnvArgumentError,
    EnvError,
    EnvFailedError,
    EnvStateError,
    EnvTimeoutError,
    MissingExtraError,
    UnknownEnvError,
)
from envs.extras import missing as missing_modules
from envs.guess_my_city import GuessMyCity
from envs.hosting.async_env import AsyncEnv
from envs.hosting.child_process import ProcessEnv
from envs.key_door import KeyDoor
from envs.maze import Maze
from envs.registry import check, make, register, spec, specs
from envs.support_desk import SupportDesk
from envs.text_adventure import TextAdventure
from envs.text_nav import TextNav
from envs.tool_use import ToolUse
from envs.toolkit.demonstrations import (
    Demonstration,
    Demonstrator,
    SkillRow,
    demonstrate,
    make_demonstrator,
    returns_by_skill,
)
from envs.toolkit.mixed_player import MixedPlayer
from envs.twenty_questions import TwentyQuestions, TwentyQuestionsSubset
from envs.web_forms import WebForms
from envs.webshop import WebShop
from envs.webshop_http import SPEC as WEBSHOP_HTTP
from envs.wordle import Wordle
from envs.wrappers import TimeLimit

register(Detective.spec, "envs.detective:Detective", demonstrator="envs.detective:DetectiveWalker")
register(GuessMyCity.spec, "envs.guess_my_city:GuessMyCity", demonstrator="envs.guess_my_city:CityAsker")
register(KeyDoor.spec, "envs.key_door:KeyDoor", demonstrator="envs.key_door:KeyDoorWalker")
register(Maze.spec, "envs.maze:Maze", demonstrator="envs.maze:MazeWalker")
register(SupportDesk.spec, "envs.support_desk:SupportDesk", demonstrator="envs.support_desk:DeskAgent")
register(TextAdventure.spec, "envs.text_adventure:TextAdventure", demonstrator="envs.text_adventure:AdventureWalker")
register(TextNav.spec, "envs.text_nav:TextNav", demonstrator="envs.text_nav:TextNavWalker")
register(ToolUse.spec, "envs.tool_use:ToolUse", demonstrator="envs.tool_use:ToolUser")
register(
    TwentyQuestions.spec,
    "envs.twenty_questions:TwentyQuestions",
    demonstrator="envs.twenty_questions:Asker",
)
register(
    TwentyQuestionsSubset.spec,
    "envs.twenty_questions:TwentyQuestionsSubset",
    demonstrator="envs.twenty_questions:SubsetAsker",
)
register(WebShop.spec, "envs.webshop:WebShop", demonstrator="envs.webshop:Shopper")
register(adapted.GYMNASIUM, "envs.adapters.gymnasium_env:GymnasiumEnv")
register(adapted.MINIWOB, "envs.adapters.miniwob_env:MiniWob")
register(adapted.OPENENV, "envs.adapters.openenv_env:OpenEnv")
register(adapted.TEXTARENA, "envs.adapters.textarena_games:TextArena")
register(
    adapted.TEXTWORLD,
    "envs.adapters.textworld_games:TextWorld",
    demonstrator="envs.adapters.textworld_games:TextWorldPlayer",
)
register(WebForms.spec, "envs.web_forms:WebForms", demonstrator="envs.web_forms:WebFormsFiller")
register(WEBSHOP_HTTP, "envs.webshop_http.game:WebShopHttp")
register(Wordle.spec, "envs.wordle:Wordle", demonstrator="envs.wordle:WordleGuesser")

__all__ = [
    "INVALID_ACTION",
    "PRIVILEGED",
    "RESERVED_INFO_KEYS",
    "SUCCESS",
    "TASK_ID",
    "TIMED_OUT",
    "VALID_ACTIONS",
    "AsyncEnv",
    "Demonstration",
    "Demonstrator",
    "Detective",
    "EnvArgumentError",
    "EnvError",
    "EnvFailedError",
    "EnvSpec",
    "EnvStateError",
    "EnvTimeoutError",
    "GuessMyCity",
    "Info",
    "Isolation",
    "KeyDoor",
    "Maze",
    "Message",
    "MissingExtraError",
    "MixedPlayer",
    "Observation",
    "ProcessEnv",
    "SkillRow",
    "Step",
    "SupportDesk",
    "TextAdventure",
    "TextEnv",
    "TextNav",
    "TimeLimit",
    "ToolUse",
    "TwentyQuestions",
    "TwentyQuestionsSubset",
    "UnknownEnvError",
    "WebForms",
    "WebShop",
    "Wordle",
    "check",
    "demonstrate",
    "make",
    "make_demonstrator",
    "missing_modules",
    "register",
    "returns_by_skill",
    "spec",
    "specs",
    "unwrapped",
]
