"""Web forms: find a page over links, fill in what the task says, and submit it.

`site` is a web site and its state, `grammar` reads what the player does, `words` and `tasks` draw sites and tasks from
a seed, `game` is the environment that shows pages as an accessibility tree, and `filler` the scripted demonstrator.
"""

from envs.web_forms.filler import WebFormsFiller
from envs.web_forms.game import WebForms
from envs.web_forms.tasks import Task, draw_task

__all__ = ["Task", "WebForms", "WebFormsFiller", "draw_task"]
