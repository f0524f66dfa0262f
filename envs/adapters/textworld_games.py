"""`TextWorld`: games of TextWorld, made from the seed or loaded from a file of the user.

Different from TextWorld itself: texts omit the title and the status line, one plain command a turn reaches the game
(`envs.toolkit.inform_commands`), and the reward is the score gained divided by the greatest possible score.
"""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from envs.adapters.specs import TEXTWORLD
from envs.base import INVALID_ACTION, PRIVILEGED, SUCCESS, TASK_ID, VALID_ACTIONS, EnvSpec, Info, Observation, Step
from envs.errors import EnvArgumentError, EnvStateError
from envs.toolkit.argument_checks import refuse_options
from envs.toolkit.inform_commands import is_understood, read_command, tidy
from envs.toolkit.mixed_demonstrator import MixedDemonstrator

_NEXT_ATTEMPT = 1_000_003
"""Added to a seed whose game is ambiguous; far larger than the number of worlds."""
CLOSED = "You can't do that in this game: one plain command a turn."


class TextWorld:
    """One game of TextWorld. The reward is the score gained in the turn divided by the greatest score, 1 in all.

    game: path of a .z8 file with TextWorld's .json of the same name beside it; every seed plays it.
    worlds: without `game`, the number of games; a seed plays game `seed % worlds`. Making a game takes seconds.
    rooms, objects, quest_length: size of the games that are made.
    cache: folder for games that were made; by default archer/textworld in the user's cache folder.
    """

    spec: EnvSpec = TEXTWORLD

    def __init__(
        self,
        *,
        game: str | None = None,
        worlds: int = 16,
        rooms: int = 5,
        objects: int = 10,
        quest_length: int = 5,
        cache: str | None = None,
    ) -> None:
        self._sizes = {"rooms": rooms, "objects": objects, "quest_length": quest_length}
        self.check_arguments(game=game, cache=cache, worlds=worlds, **self._sizes)
        self.game = Path(game).expanduser() if game is not None else None
        self.worlds = worlds
        self._cache = Path(cache).expanduser() if cache is not None else default_cache()
        self._path: Path | None = None
        self._env: Any = None
        self._state: Any = None
        self._score = 0.0

    @classmethod
    def check_arguments(cls, *, game: str | None = None, cache: str | None = None, **sizes: int) -> None:
        """Raise EnvArgumentError for a missing file or an impossible size, before a child process starts."""
        del cache
        for name, size in sizes.items():
            if size < 1:
                raise EnvArgumentError(f"{cls.spec.id}: {name} is {size}, must be at least 1")
        if game is None:
            return
        path = Path(game).expanduser()
        for needed in (path, path.with_suffix(".json")):
            if not needed.is_file():
                raise EnvArgumentError(f"{cls.spec.id}: {needed} does not exist; a game is a .z8 file and its .json")
        if path.suffix != ".z8":
            raise EnvArgumentError(
                f"{cls.spec.id}: {game} is not a .z8 file; compile the game with `tw-make ... --format z8`"
            )

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[str, Info]:
        """Begin the game of `seed`, and make it first if it is not in the cache. Raises EnvArgumentError for any
        option.
        """
        refuse_options(self.spec.id, options)
        world = seed % self.worlds
        path = self.game if self.game is not None else made_game(self._cache, seed=world, **self._sizes)
        if path != self._path:
            self._start(path)
        self._state, self._score = self._env.reset(), 0.0
        task = path.stem if self.game is not None else f"world-{world}"
        return clean(self._state.feedback), self._info() | {TASK_ID: task}

    def step(self, action: str) -> Step:
        """Pass one command to the game. A command that must not be passed costs the turn."""
        if self._state is None:
            raise EnvStateError(f"step of {self.spec.id}: the episode has not begun: call reset first")
        command = read_command(action)
        if command is None:
            return CLOSED, 0.0, False, False, self._info() | {INVALID_ACTION: True}
        self._state, score, done = self._env.step(command)
        gained, self._score = float(score) - self._score, float(score)
        text = clean(self._state.feedback)
        info = self._info() | {INVALID_ACTION: not is_understood(text)}
        reward = gained / max(self._state["max_score"], 1)
        if done:
            self._state = None
        return text or CLOSED, reward, bool(done), False, info

    def close(self) -> None:
        if self._env is not None:
            self._env.close()
            self._env = self._path = self._state = None

    def _start(self, path: Path) -> None:
        import textworld  # imported here, so that only the child process loads it

        self.close()
        wanted = textworld.EnvInfos(
            score=True, max_score=True, won=True, lost=True, admissible_commands=True, policy_commands=True
        )
        self._env, self._path = textworld.start(str(path), wanted), path

    def _info(self) -> Info:
        state = self._state
        return {
            SUCCESS: bool(state["won"]),
            INVALID_ACTION: False,
            VALID_ACTIONS: list(state["admissible_commands"]),
            PRIVILEGED: {"way": list(state["policy_commands"] or ())},
        }


class TextWorldDemonstrator(MixedDemonstrator):
    """Plays `TextWorld(...)`: the next command of TextWorld's solution with probability `skill`, else any command."""

    def __init__(self, *, skill: float, **arguments: Any) -> None:
        del arguments  # arguments of the environment
        super().__init__(skill=skill)

    def see(self, action: str, observation: Observation, info: Mapping[str, Any]) -> None:
        if PRIVILEGED in info:  # missing after a hang, which ends the episode
            super().see(action, observation, info)

    def best_actions(self) -> Sequence[str]:
        way = self.state["way"]
        return way[:1] or self._valid


def default_cache() -> Path:
    """Return the default folder for games that were made."""
    folder = os.environ.get("XDG_CACHE_HOME")
    return (Path(folder) if folder else Path.home() / ".cache") / "archer" / "textworld"


def made_game(cache: Path, *, seed: int, rooms: int, objects: int, quest_length: int) -> Path:
    """Return the path of the game of a seed and sizes; make the game if it is not in the cache."""
    name = f"r{rooms}-o{objects}-q{quest_length}-s{seed}"
    folder = cache / version("textworld")
    path = folder / name / "game.z8"
    if path.is_file():
        return path
    from textworld.generator import compile_game

    folder.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))
    try:
        made, options = _unambiguous(seed, rooms=rooms, objects=objects, quest_length=quest_length)
        options.path = str(building / path.name)
        compile_game(made, options)
        # Rename at the end, so that a folder with this name is complete. Another process may have made it first.
        if not path.is_file():
            os.rename(building, path.parent)
    except OSError:
        if not path.is_file():
            raise
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return path


def _unambiguous(seed: int, *, rooms: int, objects: int, quest_length: int) -> tuple[Any, Any]:
    """Return a game of these sizes in which every name means one thing, and the options that made it.

    TextWorld may create a locker and a red locker. The game then asks which one "open locker" means, and its own
    solution fails.
    """
    import textworld
    from textworld.generator import make_game

    for attempt in itertools.count():
        options = textworld.GameOptions()
        options.nb_rooms, options.nb_objects, options.quest_length = rooms, objects, quest_length
        options.seeds = seed + attempt * _NEXT_ATTEMPT
        made = make_game(options)
        names = [f" {name}" for name in made.entity_names]
        if not any(one != other and one.endswith(other) for one in names for other in names):
            break
    return made, options


def clean(text: str) -> str:
    """Return a game's text without the title, the prompt and the status line after it."""
    words = text.rsplit("\n>", 1)[0]
    lines = words.splitlines()
    title = max((number for number, line in enumerate(lines) if "$$" in line or "____" in line), default=-1)
    return tidy("\n".join(lines[title + 1 :]))
