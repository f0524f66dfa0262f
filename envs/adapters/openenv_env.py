"""`OpenEnv`: environments that an OpenEnv server serves."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from openenv.core.generic_client import GenericEnvClient
from openenv.core.sync_client import SyncEnvClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from envs.adapters.openenv_tools import call_fields, mcp_tools, result_text, text_tools
from envs.adapters.specs import OPENENV
from envs.base import INVALID_ACTION, TASK_ID, EnvSpec, Info, Observation, Step
from envs.errors import EnvArgumentError, EnvFailedError, EnvStateError, EnvTimeoutError
from envs.user_code import load_function

MAX_ACTION = 100_000
"""Longer actions are not sent, in characters."""

TOO_LONG = "That action is too long."
INVALID = "Not a possible action."
ENVELOPE = ("done", "reward", "metadata")
"""Fields that every OpenEnv observation has in addition to its own; actions have `metadata` only."""


class OpenEnv:
    """A session on an OpenEnv server, which begins at the first reset.

    url: address of the server, http:// or ws://.
    action_field, text_field: the action field that takes the text, and the observation field that holds it. Defaults:
        the only text fields in the schema of the server.
    actions: `module:function` in place of `action_field`; returns the action's fields for a text, or None if the text
        is not an action.
    observe: `module:function` in place of `text_field`; returns the text for the observation's fields.
    tools: whether the actions are calls of the tools that the server lists by the Model Context Protocol, as lines of
        JSON (`envs.toolkit.tool_calls`). The tools of a server of this project need no argument.
    token_file: file with the token that the server requires; sent as `Authorization: Bearer`.
    timeout_s: longest wait for one answer, in seconds.

    `truncated` is used if the server sends it, as this project's server does; otherwise `done` means `terminated`.
    """

    spec: EnvSpec = OPENENV

    def __init__(
        self,
        *,
        url: str,
        action_field: str | None = None,
        text_field: str | None = None,
        actions: str | None = None,
        observe: str | None = None,
        tools: bool = False,
        token_file: str | None = None,
        timeout_s: float = 60.0,
    ) -> None:
        self.check_arguments(url=url, action_field=action_field, actions=actions, tools=tools)
        self._headers = _authorization(token_file)
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._action_field, self._text_field = action_field, text_field
        self._read = call_fields if tools else load_function("openenv", "actions", actions)
        self._describe = load_function("openenv", "observe", observe)
        if tools and observe is None and text_field is None:
            self._describe = result_text
        self._client: SyncEnvClient[Any, Any, Any] | None = None

    @staticmethod
    def declared_tools(
        *, url: str, tools: bool = False, token_file: str | None = None, timeout_s: float = 60.0, **others: Any
    ) -> tuple[Mapping[str, Any], ...]:
        """Ask the server for the JSON schemas of its tools."""
        del others
        return (mcp_tools if tools else text_tools)(_http(url), timeout_s, _authorization(token_file))

    @staticmethod
    def check_arguments(
        *, url: str, action_field: str | None = None, actions: str | None = None, tools: bool = False, **others: Any
    ) -> None:
        """Raise EnvArgumentError if `url` is not an address, or if two arguments say what an action is."""
        del others
        if tools and (action_field is not None or actions is not None):
            raise EnvArgumentError(
                "openenv: with tools=true an action is a call of a tool: omit action_field and actions, or tools"
            )
        if "@" in str(url):
            raise EnvArgumentError(
                "openenv: url has a user or a password, which would stand in episodes and errors: give token_file"
            )
        scheme, _, rest = str(url).partition("://")
        if scheme not in ("http", "https", "ws", "wss") or not rest:
            raise EnvArgumentError(
                f"openenv: url is {url!r}, must be the server's address, such as http://127.0.0.1:8000"
            )

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin an episode. `options` are sent as further fields of the reset."""
        client = self._client or self._connect()
        answer = self._asked("reset", lambda: client.reset(**(options or {}), seed=seed))
        observation, _, _, _, info = self._step_of(answer)
        return observation, {TASK_ID: self.url} | info

    def step(self, action: str) -> Step:
        client = self._client
        if client is None:
            raise EnvStateError(f"step of {self.spec.id}: there is no session with {self.url}: call reset first")
        if len(action) > MAX_ACTION:
            return TOO_LONG, 0.0, False, False, {INVALID_ACTION: True}
        # JSON cannot encode lone surrogates; each becomes a question mark.
        text = action if action.isascii() else action.encode("utf-8", "replace").decode()
        fields = {self._action_field: text} if self._read is None else self._read(text)
        if fields is None or isinstance(fields, str):
            return fields or INVALID, 0.0, False, False, {INVALID_ACTION: True}
        return self._step_of(self._asked("step", lambda: client.step(fields)))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> SyncEnvClient[Any, Any, Any]:
        schema = self._schema() if self._read is None or self._describe is None else {}
        if self._read is None and self._action_field is None:
            self._action_field = self._only_text(schema, "action")
            if self._action_field is None:
                raise EnvArgumentError(
                    f"openenv: the actions of {self.url} have the fields {sorted(_fields(schema, 'action'))}, none of "
                    "which is the only text: give one, action_field=, or a function, actions=module:function"
                )
        if self._describe is None and self._text_field is None:
            self._text_field = self._only_text(schema, "observation")
        async_client = _Client(self.url, connect_timeout_s=self.timeout_s, message_timeout_s=self.timeout_s)
        async_client.headers = self._headers
        client = async_client.sync()
        self._asked("connect", client.connect)
        self._client = client
        return client

    def _schema(self) -> Mapping[str, Any]:
        try:
            answer = requests.get(f"{_http(self.url)}/schema", timeout=self.timeout_s, headers=self._headers)
            answer.raise_for_status()
            found = answer.json()
        except requests.Timeout as error:
            raise EnvTimeoutError(f"openenv: {self.url} sent no schema within {self.timeout_s:g} s") from error
        except requests.RequestException as error:
            raise EnvFailedError(f"openenv: no OpenEnv server answers at {self.url}: {error}") from error
        return found if isinstance(found, Mapping) else {}

    @staticmethod
    def _only_text(schema: Mapping[str, Any], what: str) -> str | None:
        """Return the only text field, or the only required one if there are several; None if neither exists."""
        fields = _fields(schema, what)
        texts = [name for name, field in fields.items() if field.get("type") == "string"]
        required = [name for name in texts if name in schema[what].get("required", ())]
        chosen = texts if len(texts) == 1 else required
        return chosen[0] if len(chosen) == 1 else None

    def _asked(self, method: str, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except TimeoutError as error:
            self.close()
            raise EnvTimeoutError(
                f"{method} of openenv: no answer from {self.url} within {self.timeout_s:g} s"
            ) from error
        except ConnectionClosed as error:
            self.close()
            raise EnvFailedError(
                f"{method} of openenv: {self.url} closed the session ({error}): the server may have no "
                "free session, or may have stopped"
            ) from error
        except (RuntimeError, ConnectionError) as error:
            # The state of a session after an error is unknown; the next reset begins another.
            self.close()
            raise EnvFailedError(f"{method} of openenv at {self.url}: {error}") from error

    def _step_of(self, answer: Any) -> Step:
        """Return the step of an answer. Messages, `truncated` and info are used if the server sends them."""
        fields: Mapping[str, Any] = answer.observation
        sent = fields.get("info")
        info: Info = {INVALID_ACTION: False} | (sent if isinstance(sent, dict) else {})
        truncated = bool(answer.done) and fields.get("truncated") is True
        observation: Observation
        if self._describe is not None:
            observation = self._describe(fields)
        elif self._text_field is not None:
            observation = fields.get("messages") or str(fields.get(self._text_field, ""))
        else:
            observation = json.dumps({k: v for k, v in fields.items() if k not in ENVELOPE}, ensure_ascii=False)
        return observation, float(answer.reward or 0.0), bool(answer.done) and not truncated, truncated, info


class _Client(GenericEnvClient):
    """OpenEnv's client, which sends `headers` when it connects; OpenEnv's own sends none."""

    headers: Mapping[str, str] = {}
    _ws: Any

    async def connect(self) -> _Client:
        """Open the WebSocket. Raises ConnectionError."""
        if not self.headers:
            await super().connect()
        elif self._ws is None:
            try:
                self._ws = await connect(
                    self._ws_url,
                    additional_headers=self.headers,
                    open_timeout=self._connect_timeout,
                    max_size=self._max_message_size,
                )
            except (OSError, WebSocketException) as error:
                raise ConnectionError(f"Failed to connect to {self._ws_url}: {error}") from error
        return self


def _authorization(token_file: str | None) -> dict[str, str]:
    """Return the headers that carry the token of a file. Raises EnvArgumentError."""
    if token_file is None:
        return {}
    try:
        token = Path(token_file).expanduser().read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise EnvArgumentError(f"openenv: token_file {token_file} cannot be read: {error}") from error
    if not token.isascii() or not token.isprintable() or not token:
        raise EnvArgumentError(f"openenv: token_file {token_file} holds no token")
    return {"Authorization": f"Bearer {token}"}


def _http(url: str) -> str:
    """Return the address of a server's HTTP routes."""
    url = url.rstrip("/")
    return "http" + url.removeprefix("ws") if url.startswith("ws") else url


def _fields(schema: Mapping[str, Any], what: str) -> dict[str, Mapping[str, Any]]:
    """Return the fields of the server's actions or observations, without those that all have."""
    part = schema.get(what)
    properties = part.get("properties", {}) if isinstance(part, Mapping) else {}
    return {name: field for name, field in properties.items() if name not in ENVELOPE}
