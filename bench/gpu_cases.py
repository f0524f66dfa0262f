"""The cases of `gpu.py` in the order of their value: what a short loan of a GPU must answer comes first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from bench.gpu_models import Adapter, Kind, Settings

SMALL, LARGE = 16_384, 65_536
"""Tokens of a step."""


@dataclass(frozen=True)
class Case:
    """One step to time.

    Attributes:
        tokens, turns: of a step, and of each episode.
        micro_tokens: tokens of a micro-batch.
        compiled: whether `torch.compile` compiles the blocks.
        profiled: whether a further step runs under the profiler.
    """

    size: str
    trains: Kind
    adapters: bool
    tokens: int = SMALL
    turns: int = 10
    micro_tokens: int = SMALL
    checkpointing: bool = True
    compiled: bool = False
    profiled: bool = False

    @property
    def settings(self) -> Settings:
        return Settings(
            dtype="bfloat16",
            lora=Adapter() if self.adapters else None,
            activation_checkpointing=self.checkpointing,
        )

    @property
    def base(self) -> tuple[object, ...]:
        """What cases with the same frozen model have in common."""
        return self.size, self.checkpointing

    def row(self) -> dict[str, object]:
        """Return the case as the beginning of its row in the report."""
        return {
            "size": self.size,
            "trains": "actor" if self.trains == "policy" else "critic",
            "weights": f"LoRA, rank {Adapter.rank}" if self.adapters else "whole",
            "tokens": self.tokens,
            "turns": self.turns,
            "micro_tokens": self.micro_tokens,
            "checkpointing": self.checkpointing,
            "compiled": self.compiled,
        }


def all_cases() -> list[Case]:
    """Return every case once: first adapters at 7B and 4B, which have published figures beside them.

    Then whole models, what checkpointing, `torch.compile` and one large pass change, and then the rest of the table of
    sizes, weights, tokens and turns.
    """
    found: dict[Case, Case] = {}
    for case in _in_order():
        found.setdefault(replace(case, profiled=False), case)
    return list(found.values())


def quick_cases() -> list[Case]:
    """Return the cases of a CPU: a small model, and each kind of case once."""
    first = Case("tiny", "policy", adapters=True, tokens=1200, micro_tokens=600, turns=3)
    return [
        replace(first, profiled=True),
        replace(first, trains="critic", checkpointing=False),
        replace(first, adapters=False, checkpointing=False),
        replace(first, trains="critic", adapters=False, turns=5),
    ]


def _in_order() -> Iterator[Case]:
    for size in ("7B", "4B"):
        for kind in _KINDS:
            yield Case(size, kind, adapters=True, profiled=True)
        for kind in _KINDS:
            yield Case(size, kind, adapters=True, tokens=LARGE)
    for size in ("1.5B", "0.5B"):
        for kind in _KINDS:
            yield Case(size, kind, adapters=False, profiled=size == "0.5B")
    for compiled, checkpointing, large in ((True, True, False), (False, False, False), (False, True, True)):
        tokens = LARGE if large else SMALL
        change = Case("4B", "policy", True, tokens, 10, tokens, checkpointing, compiled)
        for size in ("4B", "7B"):
            for kind in _KINDS:
                yield replace(change, size=size, trains=kind)
        yield replace(change, size="0.5B", adapters=False)
    for tokens, turns in ((SMALL, 20), (LARGE, 10), (LARGE, 20), (SMALL, 10)):
        for size in ("7B", "4B", "1.5B", "0.5B"):
            for adapters in (True, False):
                for kind in _KINDS:
                    yield Case(size, kind, adapters, tokens=tokens, turns=turns)


_KINDS: tuple[Kind, Kind] = ("policy", "critic")
