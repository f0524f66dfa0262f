"""Text-Nav: find a thing in a house and put it into a container.

`world` holds the house and its rules, `commands` parses what the player types, `game` is the environment with its
texts, and `demonstrator` the scripted player. Start with `world`.
"""

from envs.text_nav.demonstrator import TextNavDemonstrator
from envs.text_nav.game import TextNav
from envs.text_nav.world import House, draw_house

__all__ = ["House", "TextNav", "TextNavDemonstrator", "draw_house"]
