"""Native tool calls: calls that a chat model writes in the format of its template, as the environment's lines of JSON.

`native.NativeTools` reads the text of an action and writes the calls of scripted players. `parsers` wraps the tool
parsers of vLLM, `call_format` finds out from the template how a call is written, and `choice` selects the parser. The
environment's side, a line of JSON for each call, is `envs.toolkit.tool_calls`. Start with `native.py`.
"""
