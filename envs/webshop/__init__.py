"""WebShop: buy what an instruction asks for in a generated shop, after Yao et al. (2022).

`data/` holds the parts of a catalogue. `catalogue` draws the catalogue and `search` searches it. `goals` draws
instructions and scores a purchase. `pages` holds the pages, `texts` their wording, and `grammar` parses actions. `game`
is the environment, and `demonstrator` the scripted player. A running server of the original belongs to
`envs.webshop_http`. Start with `game`.
"""

from envs.webshop.catalogue import Catalogue, Item, load_catalogue
from envs.webshop.demonstrator import WebShopDemonstrator, best_return
from envs.webshop.game import WebShop
from envs.webshop.goals import Goal, draw_goal, score

__all__ = [
    "Catalogue",
    "Goal",
    "Item",
    "WebShop",
    "WebShopDemonstrator",
    "best_return",
    "draw_goal",
    "load_catalogue",
    "score",
]
