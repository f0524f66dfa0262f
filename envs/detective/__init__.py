"""Detective: a real adventure game of 1993, in a Z-machine interpreter.

`story` checks the user's story file, `valid` finds what changes the world, `game` is the environment, and `walker` the
scripted demonstrator.
"""

from envs.detective.game import Detective
from envs.detective.walker import DetectiveWalker

__all__ = ["Detective", "DetectiveWalker"]
