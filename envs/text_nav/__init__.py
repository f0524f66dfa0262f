"""Text-Nav: find a thing in a house and put it away.

`world` is the house and what can be done in it, `commands` reads what the player types, `game` is the environment that
tells it in words, and `walker` the scripted demonstrator.
"""

from .game import TextNav
from .walker import TextNavWalker
from .world import House, draw_house

__all__ = ["House", "TextNav", "TextNavWalker", "draw_house"]
