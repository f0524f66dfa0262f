"""Text-Nav: find a thing in a house and put it away.

`world` is the house and what can be done in it, `commands` reads what the player types, `game` is the environment that
tells it in words, and `walker` the scripted demonstrator.
"""

from envs.text_nav.game import TextNav
from envs.text_nav.walker import TextNavWalker
from envs.text_nav.world import House, draw_house

__all__ = ["House", "TextNav", "TextNavWalker", "draw_house"]
