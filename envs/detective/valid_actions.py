"""Finds the commands that change the world now by trying them in the interpreter, and caches them by state of the
world.

jericho tries every template of the game's grammar with the visible things and undoes it. It uses spaCy to find the
nouns of a text. This module splits the text into words instead, which is sufficient because the interpreter is asked
about each word.
"""

from __future__ import annotations

import hashlib
import itertools
import re
from typing import TYPE_CHECKING

from envs.toolkit.inform_commands import read_command

if TYPE_CHECKING:
    from jericho import FrotzEnv

_WORD = re.compile(r"[a-z0-9'-]+")
_WAYS = "north south east west northeast northwest southeast southwest up down in out"
# Words of the dictionary that refer to other things, to a number of things or to nothing by themselves.
_PRONOUNS = "her him his i it its me my myself self that them these they this those us what yourself"
_NUMBERS = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen eighteen twenty"
_SMALL = "a all an and another both but each every everything except of other some the their n e s w u d"
_DIRECTIONS = frozenset(_WAYS.split())
_NO_THINGS = _DIRECTIONS.union(*(words.split() for words in (_PRONOUNS, _NUMBERS, _SMALL)))
_UNSEEN = ("can't see any such thing", "not something you need to refer to", "don't need to refer")
# Verbs that only look, talk or swear. They change nothing in this game.
_LOOKING = "consult examine listen look read search smell taste touch"
_TALKING = "ask bother fuck kiss pray say show sing sorry tell think"
_IDLE = frozenset(f"{_LOOKING} {_TALKING}".split())
CACHED_STATES = 20_000


class ValidActions:
    """The valid actions of an interpreter's state: one for each distinct effect, in the order of the grammar.

    Finding them takes some hundred milliseconds, so they are cached for each state of the world (the objects and the
    memory that jericho selects), up to `CACHED_STATES` states.
    """

    def __init__(self, frotz: FrotzEnv) -> None:
        self._frotz = frotz
        self._nouns = {word.word for word in frotz.get_dictionary() if word.is_noun}
        self._cut = max(len(word) for word in self._nouns)
        templates = [template for template in frotz.act_gen.templates if _may_try(template)]
        self._holes = [[t for t in templates if t.count("OBJ") == holes] for holes in range(3)]
        self._known: dict[str, list[str]] = {}

    def now(self) -> list[str]:
        """Return the valid actions now. The interpreter keeps its state."""
        key = self.world()
        found = self._known.get(key)
        if found is None:
            found = self._known[key] = self._find()
            if len(self._known) > CACHED_STATES:
                del self._known[next(iter(self._known))]
        return list(found)

    def world(self) -> str:
        """Return a hash of the state of the world."""
        objects, memory = self._frotz.get_world_objects(clean=True), self._frotz._get_special_ram()
        return hashlib.md5(bytes(objects) + memory.tobytes(), usedforsecurity=False).hexdigest()

    def _find(self) -> list[str]:
        here, carried = self._things("look"), self._things("inventory")
        none, one, two = self._holes
        tried = [*none, "drop all"]
        tried += [template.replace("OBJ", thing) for template in one for thing in dict.fromkeys(here + carried)]
        # A command with two things takes one carried thing and one thing in the room.
        pairs = [pair for one, other in itertools.product(carried, here) for pair in ((one, other), (other, one))]
        tried += [template.replace("OBJ", thing, 1).replace("OBJ", other) for template in two for thing, other in pairs]
        alike = self._frotz._filter_candidate_actions(tried, use_ctypes=True).values()
        return [min(actions, key=_plainness) for actions in alike]

    def _things(self, command: str) -> list[str]:
        """Return one word for each thing that the answer to a command names."""
        state = self._frotz.get_state()
        text = self._frotz.step(command)[0].lower()
        self._frotz.set_state(state)
        found: dict[str, str] = {}
        for word in dict.fromkeys(_WORD.findall(text)):
            if word in _NO_THINGS or word[: self._cut] not in self._nouns:
                continue
            answer = self._frotz.step(f"examine {word}")[0]
            self._frotz.set_state(state)
            if not any(says in answer for says in _UNSEEN):
                found.setdefault(answer, word)
        return list(found.values())


def _may_try(template: str) -> bool:
    return read_command(template) is not None and template.split()[0] not in _IDLE


def _plainness(action: str) -> tuple[bool, bool, bool, int]:
    """Return the sort key that selects one of several actions with the same effect: a direction, a named thing, a short
    one.
    """
    return action not in _DIRECTIONS, action.endswith(" all"), not action.startswith("take"), len(action)
