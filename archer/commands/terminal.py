"""Text for the terminal."""

from typing import Any

from rich.console import Console


def plain_console(*, stderr: bool = False) -> Console:
    """Return a console that prints lines as they are: no wrapping, no highlighting, no markup."""
    return Console(stderr=stderr, soft_wrap=True, highlight=False, markup=False)


def plain_text(observation: Any) -> str:
    """Return an observation (text or a list of chat messages) as text for a person.

    Control characters, which could move the cursor or recolour the terminal, are replaced.
    """
    if isinstance(observation, str):
        text = observation
    else:
        text = "\n".join(f"{message['role']}: {message['content']}" for message in observation)
    return "".join(char if char.isprintable() or char in "\n\t" else "�" for char in text).rstrip("\n")
