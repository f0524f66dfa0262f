"""A small adventure of our own: a village, its lighthouse and what lies under it.

`world` is the village and what can be done in it, `commands` reads what the player types, `telling` puts it in words,
`game` is the environment, and `walker` the scripted demonstrator.
"""

from envs.text_adventure.game import TextAdventure
from envs.text_adventure.walker import AdventureWalker
from envs.text_adventure.world import World, draw_world

__all__ = ["AdventureWalker", "TextAdventure", "World", "draw_world"]
