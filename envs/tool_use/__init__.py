"""Tool use: files, SQL, a calculator and a calendar in memory, and tasks that are judged by the state they leave.

`files`, `database`, `calculator` and `agenda` are what the tools work on, `desktop` holds them together, `tools`
declares them to the policy, `tasks` is what a seed asks for, `game` the environment and `player` the scripted
demonstrator.
"""

from envs.tool_use.game import ToolUse
from envs.tool_use.player import ToolUser
from envs.tool_use.tasks import Task, draw_task

__all__ = ["Task", "ToolUse", "ToolUser", "draw_task"]
