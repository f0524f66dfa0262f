"""Detective: an adventure game of 1993, played in jericho's Z-machine interpreter.

`story_file` checks the user's story file, `valid_actions` finds the commands that change the world, `game` is the
environment, and `demonstrator` the scripted player. The filter for commands is `envs.toolkit.inform_commands`. Start
with `game`.
"""

from envs.detective.demonstrator import DetectiveDemonstrator
from envs.detective.game import Detective

__all__ = ["Detective", "DetectiveDemonstrator"]
