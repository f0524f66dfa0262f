"""Support desk: serve a shop's customer by tool calls and plain text, within a written policy.

`records` defines the rows of the shop's database and `shop` the operations on it. `policy` holds the rules, as text and
as code. `cases` draws an episode from a seed, `customer` is the scripted customer, and `tools` declares the tools to
the agent. `game` is the environment, and `demonstrator` the scripted agent. Start with `policy`, then `game`.
"""

from envs.support_desk.cases import Case, draw_case
from envs.support_desk.demonstrator import SupportDeskDemonstrator
from envs.support_desk.game import SupportDesk

__all__ = ["Case", "SupportDesk", "SupportDeskDemonstrator", "draw_case"]
