"""Web forms: find a page of a small site, fill in its form and submit it.

`site` holds a site and its state, `grammar` parses actions, `vocabulary` and `tasks` draw sites and tasks from a seed,
`game` is the environment that shows pages as an accessibility tree, and `demonstrator` the scripted player. A real
browser belongs to `envs.adapters.miniwob_env`. Start with `site`.
"""

from envs.web_forms.demonstrator import WebFormsDemonstrator
from envs.web_forms.game import WebForms
from envs.web_forms.tasks import Task, draw_task

__all__ = ["Task", "WebForms", "WebFormsDemonstrator", "draw_task"]
