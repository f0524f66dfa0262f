"""`TextArena`: single-player games of TextArena that start without a download and without an API key.

Different from TextArena itself: an observation holds only what is new. An action that the game refuses costs a turn and
does not end the game. A game that ends because its turns ran out is truncated. An action that makes the game's own code
raise counts as refused. `compat=True` keeps TextArena's rule that the second refused action in a row ends the game.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from envs.adapters.specs import TEXTARENA
from envs.base import INVALID_ACTION, SUCCESS, TASK_ID, EnvSpec, Info, Step
from envs.errors import EnvArgumentError, EnvStateError, nearest
from envs.toolkit.argument_checks import refuse_options

MAX_LENGTH = 2000
"""Longer actions are refused, because the patterns of the games may take long on them."""
UNREADABLE = "The game can't read that."
NOTHING_NEW = "Nothing new."

_NUMBERS = "2048 Bandit Blackjack Countdown Cryptarithm GuessTheNumber Mastermind Secretary Set ThreeCardMonte"
_BOARDS = "FifteenPuzzle FrozenLake LightsOut Minesweeper PegJump RushHour Slitherlink Sokoban Sudoku TowerOfHanoi"
_WORDS = "Crosswords LogicPuzzle"
FAMILIES = tuple(sorted(f"{_NUMBERS} {_BOARDS} {_WORDS}".split()))
"""Families of games that can be played. The id of a game is a family, `-v0` and an optional variant."""
_NEEDS_WORDS = "it downloads lists of words when it starts"
_NEEDS_KEY = "it calls a model that needs an API key"
CLOSED_FAMILIES: Mapping[str, str] = {
    **dict.fromkeys(("Hangman", "Wordle", "WordLadder", "WordSearch"), _NEEDS_WORDS),
    **dict.fromkeys(("GuessWho", "TwentyQuestions"), _NEEDS_KEY),
    "Klondike": "its code does not run on this version of Python",
}

_OUT_OF_TURNS = re.compile(r"(turn|move) limit|maximum of \d+ turns", re.IGNORECASE)
# Exceptions of the games' own code for unexpected actions.
_PARSER_ERRORS = (ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError, ValueError)


class TextArena:
    """One game of TextArena. The reward comes at the end of the game, as TextArena gives it.

    game: id of the game, such as "Mastermind-v0-hard", from one of FAMILIES.
    compat: end the game at the second refused action in a row, as TextArena does.
    """

    spec: EnvSpec = TEXTARENA

    def __init__(self, *, game: str = "GuessTheNumber-v0", compat: bool = False) -> None:
        self.check_arguments(game=game)
        import textarena  # imported here, in the child process, because the import seeds the global random generator
        from textarena.envs.registration import ENV_REGISTRY

        if f"{game}-raw" not in ENV_REGISTRY:
            variants = [
                name for name in ENV_REGISTRY if name.startswith(game.split("-v0")[0]) and f"{name}-raw" in ENV_REGISTRY
            ]
            raise EnvArgumentError(f"{self.spec.id}: no game {game!r}: {nearest(game, variants)}")
        self.game = game
        self.compat = compat
        self._env = textarena.make(f"{game}-raw")
        self._own_words = textarena.ObservationType.PLAYER_ACTION
        self._watched = _Watched()
        self._running = False

    @classmethod
    def check_arguments(cls, *, game: str = "GuessTheNumber-v0", compat: bool = False) -> None:
        """Raise EnvArgumentError for a game that cannot be played here, before a child process starts."""
        del compat
        family = game.split("-v0")[0]
        if family in CLOSED_FAMILIES:
            raise EnvArgumentError(f"{cls.spec.id}: {game} cannot be played here: {CLOSED_FAMILIES[family]}")
        if family not in FAMILIES or "-v0" not in game:
            raise EnvArgumentError(f"{cls.spec.id}: no single-player game {game!r}: {nearest(game, _first_ids())}")

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Begin the game of `seed`. Raises EnvArgumentError for any option, because there are none."""
        refuse_options(self.spec.id, options)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        self._env.reset(num_players=1, seed=seed)
        state = self._env.state
        if not self.compat:
            state.error_allowance = float("inf")
        self._watched = _Watched()
        state.check_turn_limit = self._watched.limit(state.check_turn_limit)
        state.set_invalid_move = self._watched.refusal(state.set_invalid_move)
        self._running = True
        return self._new(), {SUCCESS: False, INVALID_ACTION: False, TASK_ID: f"{self.game}-{seed}"}

    def step(self, action: str) -> Step:
        """Play one turn. An action without square brackets is put into brackets, as TextArena's wrapper does."""
        if not self._running:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        if len(action) > MAX_LENGTH:
            return UNREADABLE, 0.0, False, False, {SUCCESS: False, INVALID_ACTION: True}
        self._watched.refused = False
        try:
            done, _ = self._env.step(action if "[" in action or "]" in action else f"[{action.strip()}]")
        except _PARSER_ERRORS:
            return UNREADABLE, 0.0, False, False, {SUCCESS: False, INVALID_ACTION: True}
        info = {SUCCESS: False, INVALID_ACTION: self._watched.refused}
        if not done:
            return self._new(), 0.0, False, False, info
        self._running = False
        rewards, about = self._env.close()
        reason = str(about[0].get("reason") or "")
        out_of_turns = self._watched.out_of_turns or _OUT_OF_TURNS.search(reason) is not None
        reward = float(rewards[0])
        info[SUCCESS] = reward >= 1.0 and not out_of_turns
        text = "\n".join(part for part in (self._new(), reason) if part and part != NOTHING_NEW)
        return text or NOTHING_NEW, reward, not out_of_turns, out_of_turns, info

    def close(self) -> None:
        self._running = False

    def _new(self) -> str:
        """Return the messages of the game since the last call, without the player's own words."""
        _, messages = self._env.get_observation()
        # Some games pass the player's words with text and kind exchanged.
        texts = (text.strip() for _, text, kind in messages if isinstance(text, str) and kind is not self._own_words)
        return "\n".join(text for text in texts if text) or NOTHING_NEW


class _Watched:
    """Records which callbacks of the game's state a step called: refused moves and reached turn limits."""

    def __init__(self) -> None:
        self.out_of_turns = False
        self.refused = False

    def limit(self, check: Callable[[], bool]) -> Callable[[], bool]:
        def checked() -> bool:
            reached = check()
            self.out_of_turns |= bool(reached)
            return reached

        return checked

    def refusal(self, refuse: Callable[..., None]) -> Callable[..., None]:
        def refused(*args: Any, **kwargs: Any) -> None:
            self.refused = True
            refuse(*args, **kwargs)

        return refused


def _first_ids() -> list[str]:
    return [f"{family}-v0" for family in FAMILIES]
