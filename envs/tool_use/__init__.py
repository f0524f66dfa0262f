"""Tool use: office tasks with files, SQL, a calculator and a calendar, judged by the state that the calls leave.

`files`, `database`, `calculator` and `agenda` are what the tools work on, and `desktop` combines them. `tools` declares
the tools to the policy. `content` and `tasks` draw an episode from a seed. `game` is the environment, and
`demonstrator` the scripted player. Parsing of calls belongs to `envs.toolkit.tool_calls`. Start with `game`, then
`tasks`.
"""

from envs.tool_use.demonstrator import ToolUseDemonstrator
from envs.tool_use.game import ToolUse
from envs.tool_use.tasks import Task, draw_task

__all__ = ["Task", "ToolUse", "ToolUseDemonstrator", "draw_task"]
