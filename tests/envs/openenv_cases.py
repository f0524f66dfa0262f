"""OpenEnv environments of another project, for the tests of the client; importable as `module:function`."""

from __future__ import annotations

from fastmcp import FastMCP
from openenv.core.env_server import Action, Environment, Observation, State
from openenv.core.env_server.mcp_environment import MCPEnvironment


class Said(Action):
    message: str
    tone: str = "plain"


class Heard(Observation):
    heard: str
    mood: str


class Parrot(Environment[Said, Heard, State]):
    """Ends on "end", never sends `truncated`, and takes a reset option."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        super().__init__()
        self._state = State()

    def reset(self, seed=None, episode_id=None, mood="calm"):
        return Heard(heard=f"seed {seed}", mood=mood)

    def step(self, action, timeout_s=None, **kwargs):
        if action.message == "break":
            raise ValueError("the parrot broke")
        return Heard(heard=f"{action.message} ({action.tone})", mood="calm", done=action.message == "end", reward=0.5)

    @property
    def state(self):
        return self._state


def shout(text):
    return {"message": text.upper(), "tone": "loud"} if text else None


def mood_only(fields):
    return f"It is {fields['mood']}."


class Adder(MCPEnvironment):
    """Has one tool, by the Model Context Protocol."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self):
        server = FastMCP("adder")

        @server.tool
        def add(one: int, other: int) -> int:
            """Add two numbers."""
            return one + other

        super().__init__(server)
        self._state = State()

    def reset(self, seed=None, episode_id=None, **options):
        return Observation()

    def _step_impl(self, action, timeout_s=None, **kwargs):
        raise ValueError(f"no such action: {action}")

    @property
    def state(self):
        return self._state
