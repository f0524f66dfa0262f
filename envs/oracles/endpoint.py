"""An oracle that asks an endpoint with OpenAI's chat completions API.

The client retries transient failures (no connection, timeout, 408, 409, 429, 5xx) with growing pauses. `EndpointOracle`
retries answers that are malformed or empty the same number of times. The API key is read from the environment variable
in the settings and never appears in a message or file.
"""

from __future__ import annotations

import hashlib
import os
import threading
import time
from typing import Any

from envs.oracles.base import Enquiry, OracleError
from envs.oracles.settings import EndpointSettings

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
NOT_A_COMPLETION = "an answer that is not a completion"


class EndpointOracle:
    """Asks `settings.model` at `settings.base_url`, one request per answer."""

    blocks = True

    def __init__(self, settings: EndpointSettings) -> None:
        digest = hashlib.sha256(f"{settings.max_tokens}\0{settings.temperature}".encode()).hexdigest()[:8]
        self.name = f"openai:{settings.model}:{digest}"
        self.settings = settings
        self._client: Any = None
        self._lock = threading.Lock()

    def answer(self, enquiry: Enquiry) -> str:
        fault = ""
        for attempt in range(self.settings.retries + 1):
            if attempt:
                time.sleep(min(FIRST_PAUSE_S * 2 ** (attempt - 1), LONGEST_PAUSE_S))
            text, fault = self._ask(enquiry)
            if text:
                return text
        raise OracleError(f"{self._who()}: {fault} to {enquiry.question!r}, after {self.settings.retries + 1} attempts")

    def _ask(self, enquiry: Enquiry) -> tuple[str, str]:
        """Return (answer, ""), or ("", fault) if a retry may help. Raises OracleError if it will not."""
        import openai

        client = self._connect()
        messages = [
            {"role": "system", "content": enquiry.instructions},
            # Lone surrogates cannot be encoded.
            {"role": "user", "content": enquiry.question.encode(errors="replace").decode()},
        ]
        try:
            completion = client.chat.completions.create(
                model=self.settings.model,
                messages=messages,
                max_tokens=self.settings.max_tokens,
                temperature=self.settings.temperature,
            )
        except openai.APITimeoutError as error:
            raise OracleError(
                f"{self._who()}: no answer within {self.settings.timeout_s:g} s, "
                f"after {self.settings.retries + 1} attempts"
            ) from error
        except openai.APIStatusError as error:
            raise OracleError(f"{self._who()}: status {error.status_code}: {self._safe(error.message)}") from error
        except openai.APIResponseValidationError:
            return "", NOT_A_COMPLETION
        except openai.APIConnectionError as error:
            raise OracleError(f"{self._who()}: no connection: {self._safe(str(error.__cause__ or error))}") from error
        except ValueError:  # raised by the client's JSON decoder
            return "", "an answer that is not JSON"
        choices = getattr(completion, "choices", None)
        message = getattr(choices[0], "message", None) if choices else None
        content = getattr(message, "content", None)
        if not isinstance(content, str):
            return "", NOT_A_COMPLETION
        return content.strip(), "an empty answer"

    def _connect(self) -> Any:
        with self._lock:
            if self._client is None:
                from openai import OpenAI  # imported here, because other oracles do not need it

                self._client = OpenAI(
                    base_url=self.settings.base_url,
                    api_key=self._key() or "none",
                    timeout=self.settings.timeout_s,
                    max_retries=self.settings.retries,
                )
            return self._client

    def _key(self) -> str | None:
        name = self.settings.api_key_env
        if name is None:
            return None
        key = os.environ.get(name)
        if not key:
            raise OracleError(
                f"{self._who()}: the environment variable {name} holds no key: set it where the environments run, or "
                "set oracle.api_key_env to another name, or to null if the endpoint needs no key"
            )
        return key

    def _who(self) -> str:
        return f"oracle {self.settings.model} at {self.settings.base_url or 'OpenAI'}"

    def _safe(self, text: str) -> str:
        key = os.environ.get(self.settings.api_key_env or "")
        return " ".join((text.replace(key, "***") if key else text).split())[:300]
