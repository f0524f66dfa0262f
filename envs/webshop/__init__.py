"""WebShop: buy in a generated shop what an instruction asks for, after Yao et al. (2022).

`data/` holds what a catalogue is drawn from, `catalogue` draws it, `search` finds things in it, `goals` are the
instructions and what a purchase is worth, `pages` what is on each page, `grammar` reads actions, `game` is the
environment and `shopper` the scripted demonstrator; `wording` is how it talks.
"""

from envs.webshop.catalogue import Catalogue, Item, load_catalogue
from envs.webshop.game import WebShop
from envs.webshop.goals import Goal, draw_goal, score
from envs.webshop.shopper import Shopper, best_return

__all__ = [
    "Catalogue",
    "Goal",
    "Item",
    "Shopper",
    "WebShop",
    "best_return",
    "draw_goal",
    "load_catalogue",
    "score",
]
