"""Observations as text for people."""

from typing import Any


def plain_text(observation: Any) -> str:
    """An observation, a string or a list of chat messages, as a person reads it, without control characters that
    could move the cursor or recolour the terminal."""
    if isinstance(observation, str):
        text = observation
    else:
        text = "\n".join(f"{message['role']}: {message['content']}" for message in observation)
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text).rstrip("\n")
