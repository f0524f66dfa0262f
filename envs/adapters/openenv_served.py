"""Serves an environment of this project over OpenEnv's WebSocket protocol.

Each connection to `/ws` is a session with its own environment, on its own thread. OpenEnv's HTTP routes keep no
session: `/reset` returns a first observation, and `/step` answers 409. `/schema`, `/metadata`, `/health` and `/docs`
describe the server.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
from openenv.core.env_server.types import EnvironmentMetadata
from pydantic import Field

from envs.adapters.asgi_middleware import BodyLimit, Guard, QuietDisconnect, is_loopback
from envs.base import PRIVILEGED, Message, as_text
from envs.errors import EnvArgumentError, EnvError
from envs.registry import check, make

STOP_TIMEOUT_S = 5
"""Longest time that open sessions can delay the end of the server."""


class TextAction(Action):
    text: str = Field(description="Action of the agent.")


class TextObservation(Observation):
    """An observation. `done` is set at both ends of an episode; `truncated` marks a cut-off."""

    text: str = Field(description="Observation; chat messages become lines of text.")
    messages: list[dict[str, str]] | None = Field(
        default=None, description="The observation as chat messages, if it consists of messages."
    )
    truncated: bool = Field(default=False, description="Whether the episode was cut off before the task ended.")
    info: dict[str, Any] = Field(default_factory=dict, description="Info of the turn, without privileged values.")


class TextState(State):
    env_id: str = Field(description="Id of the environment.")
    seed: int | None = Field(default=None, description="Seed of the episode.")
    max_turns: int = Field(description="Turns after which an episode is truncated.")


class ServedTextEnv(Environment[TextAction, TextObservation, TextState]):
    """One session: an environment of this project with its time limit. Arguments are those of `envs.make`."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, env_id: str, **kwargs: Any) -> None:
        super().__init__()
        self._env = make(env_id, **kwargs)
        self._state = TextState(env_id=env_id, max_turns=self._env.spec.max_turns)

    def reset(self, seed: int | None = None, episode_id: str | None = None, **options: Any) -> TextObservation:
        """Begin an episode. Without a seed, one is drawn. Other fields become reset options."""
        seed = secrets.randbits(62) if seed is None else seed
        observation, info = self._env.reset(seed=seed, options=options or None)
        self._state = self._state.model_copy(update={"seed": seed, "episode_id": episode_id, "step_count": 0})
        return _to_observation(observation, info)

    def step(self, action: TextAction, timeout_s: float | None = None, **kwargs: Any) -> TextObservation:
        observation, reward, terminated, truncated, info = self._env.step(action.text)
        self._state = self._state.model_copy(update={"step_count": self._state.step_count + 1})
        return _to_observation(observation, info, float(reward), terminated=terminated, truncated=truncated)

    @property
    def state(self) -> TextState:
        return self._state

    def get_metadata(self) -> EnvironmentMetadata:
        spec = self._env.spec
        return EnvironmentMetadata(name=spec.id, description=spec.description)

    def close(self) -> None:
        self._env.close()


def make_app(env_id: str, *, sessions: int, max_message_bytes: int, token: str | None = None, **kwargs: Any) -> FastAPI:
    """Return the application that serves an environment. Raises EnvError if the environment cannot be made."""
    check(env_id, **kwargs)
    made = make(env_id, **kwargs)
    made.close()
    factory = partial(ServedTextEnv, env_id, **kwargs)
    app = create_fastapi_app(factory, TextAction, TextObservation, max_concurrent_envs=sessions)

    async def refuse(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": f"{error} (play an episode over one connection to /ws)"}, status_code=409)

    @app.get("/tools")
    async def tools() -> list[dict[str, Any]]:
        """List the tools of the environment; a call of one is the text of an action."""
        return [dict(tool) for tool in made.spec.tools]

    app.add_exception_handler(EnvError, refuse)
    app.add_middleware(QuietDisconnect)
    app.add_middleware(BodyLimit, max_bytes=max_message_bytes)
    app.add_middleware(Guard, token=token)  # the last one added is the first to run
    return app


class EnvServer:
    """Serves an environment at `address`, from `run` until `stop`, SIGINT or SIGTERM.

    port: 0 for a free one.
    sessions: most connections at once, each with an environment; further ones are refused.
    max_message_bytes: greatest length of a message or body.
    token: what every request must carry; may be None only on loopback.
    kwargs: arguments of the environment.

    Raises EnvError if the environment cannot be made or the address cannot be opened.
    """

    def __init__(
        self,
        env_id: str,
        *,
        host: str,
        port: int,
        sessions: int,
        max_message_bytes: int,
        token: str | None = None,
        **kwargs: Any,
    ) -> None:
        if token is None and not is_loopback(host):
            raise EnvArgumentError(f"host {host} accepts other machines: give a token")
        app = make_app(env_id, sessions=sessions, max_message_bytes=max_message_bytes, token=token, **kwargs)
        self._listener = _listen(host, port)
        self.address = f"http://{f'[{host}]' if ':' in host else host}:{self._listener.getsockname()[1]}"
        config = uvicorn.Config(
            app,
            log_level="warning",
            ws_max_size=max_message_bytes,
            ws_per_message_deflate=False,
            timeout_graceful_shutdown=STOP_TIMEOUT_S,
        )
        self._server = _Server(config)

    def run(self, started: Callable[[], None] = lambda: None) -> None:
        """Serve until stopped; `started` is called when connections are accepted. Raises KeyboardInterrupt after
        SIGINT.
        """
        self._server.on_started = started
        with self._listener:
            self._server.run(sockets=[self._listener])

    def stop(self) -> None:
        """End `run` from any thread and close the open sessions."""
        self._server.should_exit = True


class _Server(uvicorn.Server):
    """A uvicorn server that calls `on_started` when it accepts connections."""

    on_started: Callable[[], None]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.on_started()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            why = "is in use by another process: choose another, or 0 for a free one"
        elif error.errno == errno.EACCES:
            why = "needs privileges that this process lacks: choose a port above 1023"
        else:
            why = f"cannot be opened: {error.strerror or error}"
        raise EnvArgumentError(f"port {port} on {host} {why}") from error
    except OverflowError as error:
        raise EnvArgumentError(f"port is {port}, must be 0 to 65535") from error


def _to_observation(
    observation: str | list[Message],
    info: Mapping[str, Any],
    reward: float | None = None,
    *,
    terminated: bool = False,
    truncated: bool = False,
) -> TextObservation:
    messages = None if isinstance(observation, str) else [_plain(message) for message in observation]
    shown = {key: _plain(value) for key, value in info.items() if key != PRIVILEGED and _is_json(value)}
    return TextObservation(
        text=_plain(as_text(observation)),
        messages=messages,
        reward=reward,
        done=terminated or truncated,
        truncated=truncated,
        info=shown,
    )


def _is_json(value: Any) -> bool:
    """Return whether JSON can encode a value."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_json(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(map(_is_json, value))
    return value is None or isinstance(value, str | bool | int | float)


def _plain(value: Any) -> Any:
    """Return a value with lone surrogates replaced by question marks, because JSON cannot encode them."""
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
