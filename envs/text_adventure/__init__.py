"""Text adventure: find the treasure under a village.

`world` holds the village and its rules, `commands` parses what the player types, `texts` describes the world, `game` is
the environment, and `demonstrator` the scripted player. Start with `world`.
"""

from envs.text_adventure.demonstrator import TextAdventureDemonstrator
from envs.text_adventure.game import TextAdventure
from envs.text_adventure.world import World, draw_world

__all__ = ["TextAdventure", "TextAdventureDemonstrator", "World", "draw_world"]
