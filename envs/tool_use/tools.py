"""The tools, as they are declared to the policy."""

from __future__ import annotations

from envs.tool_use.agenda import DAYS, MAX_TITLE
from envs.tool_use.calculator import MAX_LENGTH
from envs.tool_use.database import MAX_QUERY
from envs.tool_use.files import MAX_PATH, MAX_SIZE
from envs.toolkit.tool_calls import Parameter, Tool, Toolbox

DONE = "done"

_PATH = Parameter('Path of a file, such as "plans/june.txt".', max_length=MAX_PATH)
_TEXT = Parameter("Text.", max_length=MAX_SIZE)
_DAY = Parameter("Day of the week.", choices=DAYS)
_TITLE = Parameter("Title of the meeting.", max_length=MAX_TITLE)
_START = Parameter("Hour at which it begins.", "integer")

TOOLS = Toolbox(
    (
        Tool(
            "list",
            "List the files of a folder, or all.",
            {"folder": Parameter("The folder.", max_length=MAX_PATH, optional=True)},
        ),
        Tool("read", "Read a file.", {"path": _PATH}),
        Tool("write", "Write a file, in place of what was in it.", {"path": _PATH, "text": _TEXT}),
        Tool("edit", "Replace a text wherever it stands in a file.", {"path": _PATH, "old": _TEXT, "new": _TEXT}),
        Tool("move", "Move or rename a file.", {"path": _PATH, "to": _PATH}),
        Tool("delete", "Delete a file.", {"path": _PATH}),
        Tool("sql", "Run one SQL statement.", {"query": Parameter("The statement.", max_length=MAX_QUERY)}),
        Tool("calc", "Work out arithmetic.", {"expression": Parameter("What to work out.", max_length=MAX_LENGTH)}),
        Tool("agenda", "List the meetings of a day.", {"day": _DAY}),
        Tool(
            "book",
            "Book a meeting.",
            {"title": _TITLE, "day": _DAY, "start": _START, "hours": Parameter("How long.", "integer")},
        ),
        Tool("shift", "Move a meeting to another time.", {"title": _TITLE, "day": _DAY, "start": _START}),
        Tool("cancel", "Cancel a meeting.", {"title": _TITLE}),
        Tool(DONE, "Say that the task is done; this ends it.", {}),
    )
)
