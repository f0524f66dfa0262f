"""Tools of OpenEnv servers: their schemas, and calls as the fields of an action.

A server of this project lists the tools of its environment at `/tools`, and takes calls as text. A server whose
environment is an `MCPEnvironment` lists its tools by the Model Context Protocol at `/mcp`, and takes calls as actions
of the type `call_tool`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import requests

from envs.errors import EnvFailedError, EnvTimeoutError
from envs.toolkit.tool_calls import Toolbox, ToolError, split_call

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
_LIST = {"jsonrpc": "2.0", "method": "tools/list", "params": {}, "id": 1}
_NO_TOOLS = Toolbox(())


def text_tools(
    address: str, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS
) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that a server of this project lists; () if the server is another one or has none."""
    answer = _ask("GET", f"{address}/tools", timeout_s, headers)
    if answer.status_code != requests.codes.ok:
        return ()
    found = _json(answer)
    return tuple(found) if isinstance(found, list) else ()


def mcp_tools(address: str, timeout_s: float, headers: Mapping[str, str] = NO_HEADERS) -> tuple[Mapping[str, Any], ...]:
    """Return the tools that a server lists by the Model Context Protocol. Raises EnvFailedError if it lists none."""
    said = _json(_ask("POST", f"{address}/mcp", timeout_s, headers, body=_LIST))
    result = said.get("result") if isinstance(said, Mapping) else None
    if not isinstance(result, Mapping) or not result.get("tools"):
        error = said.get("error") if isinstance(said, Mapping) else said
        raise EnvFailedError(f"openenv: tools is true, but {address} lists no tools at /mcp: {str(error)[:200]}")
    return tuple(
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool.get("description") or "",
                "parameters": tool.get("inputSchema")
                or tool.get("input_schema")
                or {"type": "object", "properties": {}},
            },
        }
        for tool in result["tools"]
    )


def call_fields(action: str) -> dict[str, Any] | str:
    """Return the fields of the action that makes a call, or what is wrong with the action."""
    call = split_call(action)
    if call is not None:
        return {"type": "call_tool", "tool_name": call.tool, "arguments": dict(call.args)}
    try:
        _NO_TOOLS.read(action)
    except ToolError as error:
        return f"Error: {error}."
    raise AssertionError("a toolbox without tools has read a call")


def result_text(fields: Mapping[str, Any]) -> str:
    """Return the result of a call, from the fields of an observation, as text."""
    error = fields.get("error")
    if isinstance(error, Mapping):
        return f"Error: {error.get('message', error)}"
    result = fields.get("result")
    if isinstance(result, Mapping) and "data" in result:  # FastMCP's form of a result
        result = result["data"]
    return result if isinstance(result, str) else json.dumps(result, ensure_ascii=False, default=str)


def _ask(method: str, url: str, timeout_s: float, headers: Mapping[str, str], body: Any = None) -> requests.Response:
    try:
        return requests.request(method, url, json=body, timeout=timeout_s, headers=headers)
    except requests.Timeout as error:
        raise EnvTimeoutError(f"openenv: {url} sent no answer within {timeout_s:g} s") from error
    except requests.RequestException as error:
        raise EnvFailedError(f"openenv: no OpenEnv server answers at {url}: {error}") from error


def _json(answer: requests.Response) -> Any:
    try:
        return answer.json()
    except ValueError:
        return None
