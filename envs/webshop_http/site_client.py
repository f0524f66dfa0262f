"""`SiteClient`: fetches pages of a site over one connection, with a bounded wait; failures raise EnvError with the
address.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import httpx

from envs.errors import EnvArgumentError, EnvFailedError, EnvTimeoutError

MAX_BYTES = 5_000_000
"""Larger pages are refused."""
_NO_SERVER = (502, 503, 504)


@dataclass(frozen=True)
class Answer:
    """The answer of a site: HTTP status, final address after redirects, and page."""

    status: int
    address: str
    html: str


class SiteClient:
    """Fetches pages of one site.

    url: root of the site, http or https.
    timeout_s: longest wait for one page, redirects included, in seconds.
    """

    def __init__(self, env_id: str, url: str, timeout_s: float) -> None:
        try:
            root = httpx.URL(url)
        except (httpx.InvalidURL, TypeError) as error:
            raise EnvArgumentError(f"{env_id}: url is {url!r}, which is not an address: {error}") from error
        if root.scheme not in ("http", "https") or not root.host:
            raise EnvArgumentError(f"{env_id}: url is {url!r}, must be like http://127.0.0.1:3000")
        if not isinstance(timeout_s, int | float) or not timeout_s > 0:
            raise EnvArgumentError(f"{env_id}: timeout_s is {timeout_s!r}, must be a number of seconds above 0")
        self.env_id = env_id
        self.url = str(root).rstrip("/")
        self.timeout_s = timeout_s
        self._client = httpx.Client(follow_redirects=True, max_redirects=5, timeout=timeout_s)

    def fetch(self, address: str, *, base: str = "", method: str = "GET", form: dict[str, str] | None = None) -> Answer:
        """Return one page. `address` may be relative to `base`.

        A status of 400 or more is returned too, except those of a gateway without a server. Raises EnvTimeoutError
        after `timeout_s`, and EnvFailedError if nothing answers or the answer is too large.
        """
        deadline = time.monotonic() + self.timeout_s
        try:
            target = httpx.URL(base or self.url).join(address)
            with self._client.stream(method, target, data=form) as response:
                body = bytearray()
                for chunk in response.iter_bytes():
                    body += chunk
                    if len(body) > MAX_BYTES:
                        raise EnvFailedError(f"{self.env_id}: {target} is larger than {MAX_BYTES:,} bytes")
                    if time.monotonic() > deadline:
                        raise self._timeout(str(target))
        except httpx.TimeoutException as error:
            raise self._timeout(address) from error
        except (httpx.RequestError, httpx.InvalidURL) as error:
            raise EnvFailedError(
                f"{self.env_id}: nothing answers at {self.url} ({type(error).__name__}: {error}): start the WebShop "
                "server there, or give its address as env.kwargs.url"
            ) from error
        if response.status_code in _NO_SERVER:
            raise EnvFailedError(f"{self.env_id}: {target} answers HTTP {response.status_code}: no server behind it")
        return Answer(response.status_code, str(response.url), body.decode(response.encoding or "utf-8", "replace"))

    def close(self) -> None:
        self._client.close()

    def _timeout(self, address: str) -> EnvTimeoutError:
        return EnvTimeoutError(
            f"{self.env_id}: no complete answer from {self.url} within {self.timeout_s:g} s: {address}"
        )
