"""Environments that an OpenEnv server serves, as ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import requests
from openenv.core.generic_client import GenericEnvClient
from openenv.core.sync_client import SyncEnvClient
from websockets.exceptions import ConnectionClosed

from envs.adapters.specs import OPENENV
from envs.adapters.user_functions import load_function
from envs.base import INVALID_ACTION, TASK_ID, EnvSpec, Info, Observation, Step
from envs.errors import EnvArgumentError, EnvFailedError, EnvStateError, EnvTimeoutError

MAX_ACTION = 100_000
"""Actions longer than this many characters aren't sent."""

TOO_LONG = "That action is too long."
INVALID = "Not a possible action."
ENVELOPE = ("done", "reward", "metadata")
"""What every observation of OpenEnv has besides its own fields; actions have `metadata` alone."""


class OpenEnv:
    """One session on an OpenEnv server, begun at the first reset.

    url: the server's address, http:// or ws://.
    action_field, text_field: the field of its actions in which the text goes, and the one of its observations that is
        read; by default what the server's own schema has as the only field of text.
    actions: `module:function` of your own instead, from the text to the action's fields, or None where it means none.
    observe: `module:function` of your own instead, from the observation's fields to the text.
    timeout_s: longest wait for one answer, in seconds.

    `truncated` comes from servers that say it, as ours does; of others `done` is `terminated`.
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
        timeout_s: float = 60.0,
    ) -> None:
        self.check_arguments(url=url)
        self.url = url.rstrip("/")
        self.timeout_s = timeout_s
        self._action_field, self._text_field = action_field, text_field
        self._read = None if actions is None else load_function("openenv", "actions", actions)
        self._tell: Callable[[Mapping[str, Any]], str] | None = (
            None if observe is None else load_function("openenv", "observe", observe)
        )
        self._client: SyncEnvClient[Any, Any, Any] | None = None

    @staticmethod
    def check_arguments(*, url: str, **others: Any) -> None:
        """Raise EnvArgumentError for what is no address."""
        del others
        scheme, _, rest = str(url).partition("://")
        if scheme not in ("http", "https", "ws", "wss") or not rest:
            raise EnvArgumentError(
                f"openenv: url is {url!r}, must be the server's address, such as http://127.0.0.1:8000"
            )

    def reset(self, *, seed: int, options: Mapping[str, Any] | None = None) -> tuple[Observation, Info]:
        """Begin an episode; `options` are sent along as further fields of the reset."""
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
        # JSON carries no lone surrogates: each becomes a question mark.
        text = action if action.isascii() else action.encode("utf-8", "replace").decode()
        fields = {self._action_field: text} if self._read is None else self._read(text)
        if fields is None:
            return INVALID, 0.0, False, False, {INVALID_ACTION: True}
        return self._step_of(self._asked("step", lambda: client.step(fields)))

    def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _connect(self) -> SyncEnvClient[Any, Any, Any]:
        schema = self._schema() if self._read is None or self._tell is None else {}
        if self._read is None and self._action_field is None:
            self._action_field = self._only_text(schema, "action")
            if self._action_field is None:
                raise EnvArgumentError(
                    f"openenv: the actions of {self.url} have the fields {sorted(_fields(schema, 'action'))}, none of "
                    "them the only text: name one, action_field=, or a function of yours, actions=module:function"
                )
        if self._tell is None and self._text_field is None:
            self._text_field = self._only_text(schema, "observation")
        async_client = GenericEnvClient(self.url, connect_timeout_s=self.timeout_s, message_timeout_s=self.timeout_s)
        client = async_client.sync()
        self._asked("connect", client.connect)
        self._client = client
        return client

    def _schema(self) -> Mapping[str, Any]:
        address = "http" + self.url.removeprefix("ws") if self.url.startswith("ws") else self.url
        try:
            answer = requests.get(f"{address}/schema", timeout=self.timeout_s)
            answer.raise_for_status()
            found = answer.json()
        except requests.Timeout as error:
            raise EnvTimeoutError(f"openenv: {self.url} gave no schema within {self.timeout_s:g} s") from error
        except requests.RequestException as error:
            raise EnvFailedError(f"openenv: no OpenEnv server answers at {self.url}: {error}") from error
        return found if isinstance(found, Mapping) else {}

    @staticmethod
    def _only_text(schema: Mapping[str, Any], what: str) -> str | None:
        """The one field of text; where there are several, the only one of them that is required."""
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
                f"{method} of openenv: {self.url} closed the session ({error}); it may have none free, or have ended"
            ) from error
        except (RuntimeError, ConnectionError) as error:
            # A session after an error is in no known state; the next reset begins another.
            self.close()
            raise EnvFailedError(f"{method} of openenv at {self.url}: {error}") from error

    def _step_of(self, answer: Any) -> Step:
        """Text, reward, ends and info of an answer; of ours, messages, `truncated` and info as they are sent."""
        fields: Mapping[str, Any] = answer.observation
        sent = fields.get("info")
        info: Info = {INVALID_ACTION: False} | (sent if isinstance(sent, dict) else {})
        truncated = bool(answer.done) and fields.get("truncated") is True
        observation: Observation
        if self._tell is not None:
            observation = self._tell(fields)
        elif self._text_field is not None:
            observation = fields.get("messages") or str(fields.get(self._text_field, ""))
        else:
            observation = json.dumps({k: v for k, v in fields.items() if k not in ENVELOPE}, ensure_ascii=False)
        return observation, float(answer.reward or 0.0), bool(answer.done) and not truncated, truncated, info


def _fields(schema: Mapping[str, Any], what: str) -> dict[str, Mapping[str, Any]]:
    """Fields of the server's actions or observations, but for those that all have."""
    part = schema.get(what)
    properties = part.get("properties", {}) if isinstance(part, Mapping) else {}
    return {name: field for name, field in properties.items() if name not in ENVELOPE}
