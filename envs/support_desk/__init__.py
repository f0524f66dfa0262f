"""A customer-support desk: orders in a database, a written policy, tools, and a customer who wants something.

`shop` is the database and what can be done to it, `policy` what may be done, `cases` what a seed draws, `customer` the
script that talks, `tools` what the agent can call, `game` the environment and `agent` the scripted demonstrator.
"""

from envs.support_desk.agent import DeskAgent
from envs.support_desk.cases import Case, draw_case
from envs.support_desk.game import SupportDesk

__all__ = ["Case", "DeskAgent", "SupportDesk", "draw_case"]
