"""WebShop by its pages: the same game as `webshop` against a running server of princeton-nlp/WebShop.

`pages` reads the site's HTML, `browser` fetches it, `game` is the environment. Grammar and wording are those of
`webshop`. The registry imports `game` at first use, so that no other run loads an HTTP client and a parser of HTML.
"""

from envs.base import EnvSpec

MAX_TURNS = 10

SPEC = EnvSpec(
    id="webshop_http",
    description="WebShop on a running server of its own code, by its pages.",
    max_turns=MAX_TURNS,
    reward_range=(0.0, 1.0),
    isolation="thread",
)
