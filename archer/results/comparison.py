"""The result of a comparison of policies: a table for the terminal, and a JSON file with all numbers and episodes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from archer.config.sections import EnvConfig
from archer.driver.run_folder import disk_errors
from archer.results.policies import Policy
from archer.results.statistics import Decoding, Difference, EvalResult, Evaluation, differences
from buffer.atomic_files import write_atomic
from learner.seeds import EVALUATION_SEED


@dataclass
class Comparison:
    """The policies, the episodes that each is to play, and the evaluations that have finished."""

    policies: Sequence[Policy]
    episodes: int
    decodings: Sequence[Decoding]
    first_seed: int
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def env(self) -> EnvConfig:
        """The task, which is the same for all policies."""
        return self.policies[0].config.env

    @property
    def complete(self) -> bool:
        return len(self.evaluations) == len(self.policies) * len(self.decodings)

    @property
    def title(self) -> str:
        held_out = "held-out " if self.first_seed >= EVALUATION_SEED else ""
        return f"{self.env.id}: {self.episodes} {held_out}episodes"

    def write(self, path: Path) -> None:
        """Write everything to `path` as JSON."""
        with disk_errors(path):
            write_atomic(path, json.dumps(self.tree(), indent=2, allow_nan=False) + "\n", sync=True)

    def tree(self) -> dict[str, Any]:
        """Return the content of evaluation.json."""
        return {
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "complete": self.complete,
            "env": self.env.model_dump(mode="json"),
            "episodes": self.episodes,
            "first_seed": self.first_seed,
            "policies": [
                {
                    "name": policy.name,
                    "source": policy.source,
                    "model": policy.model,
                    "seed": policy.config.seed,
                    "rollout": policy.config.rollout.model_dump(mode="json"),
                }
                for policy in self.policies
            ],
            "results": [_result_tree(evaluation) for evaluation in self.evaluations],
            "differences": [asdict(difference) for difference in differences(self.evaluations)],
        }


def _result_tree(evaluation: Evaluation) -> dict[str, Any]:
    """Return the numbers and the episodes of one evaluation."""
    result, report = evaluation.result, evaluation.report
    numbers = {key: value for key, value in asdict(result).items() if key not in ("env", "greedy")}
    return {
        **numbers,
        "decoding": result.decoding,
        "env_failures": report.env_failures,
        "failures": report.failures,
        "window_truncations": report.window_truncations,
        "rejected_calls": report.rejected_calls,
        "endless_thoughts": report.endless_thoughts,
        "rows": evaluation.rows(),
    }


HEADER = ("policy", "env", "decoding", "episodes", "return", "95%", "success", "turns", "tokens", "invalid", "tokens/s")
DIFFERENCE_HEADER = ("difference", "95%")


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print one line per policy and decoding, or one column each if the terminal is too narrow for the lines."""
    out = console or Console()
    found = {(d.name, d.decoding): d for d in differences(comparison.evaluations)}
    header = HEADER + (DIFFERENCE_HEADER if found else ())
    results = [evaluation.result for evaluation in comparison.evaluations]
    lines = [_cells(result, found.get((result.name, result.decoding)))[: len(header)] for result in results]
    tables = [_table(header, lines)]
    if not out.is_terminal:
        out.width = max(out.width, _width(tables[0], out))  # a file has no width, and a reader needs whole lines
    elif _width(tables[0], out) > out.width:
        tables = _transposed(header, lines, out)
    for table in tables:
        out.print(table)
    for note in _notes(comparison, found):
        out.print(Text(note, style="dim"), soft_wrap=True)


def _cells(result: EvalResult, difference: Difference | None) -> tuple[str, ...]:
    return (
        result.name,
        result.env,
        result.decoding,
        str(result.episodes),
        f"{result.return_mean:.2f}",
        f"{result.return_low:.2f} to {result.return_high:.2f}",
        "" if result.success_rate is None else f"{result.success_rate:.0%}",
        f"{result.mean_turns:.1f}",
        "" if result.mean_tokens is None else f"{result.mean_tokens:.1f}",
        f"{result.invalid_share:.1%}",
        f"{result.tokens_per_second:,.0f}",
        "" if difference is None else f"{difference.mean:+.2f}",
        "" if difference is None else f"{difference.low:+.2f} to {difference.high:+.2f}",
    )


def _table(header: Sequence[str], lines: Any) -> Table:
    """Return a table with words to the left and numbers to the right. Brackets in names are not markup."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in header:
        words = column in ("", "policy", "env", "decoding")
        table.add_column(Text(column), justify="left" if words else "right", no_wrap=True)
    for line in lines:
        table.add_row(*map(Text, line))
    return table


def _transposed(header: Sequence[str], lines: Sequence[tuple[str, ...]], console: Console) -> list[Table]:
    """Return tables with a column for each line, as many columns in a table as the console has room for."""
    for size in range(len(lines), 0, -1):
        groups = [lines[start : start + size] for start in range(0, len(lines), size)]
        columns = [list(zip(header, *group, strict=True)) for group in groups]
        tables = [_table(("", *names), rows) for (_, *names), *rows in columns]
        if all(_width(table, console) <= console.width for table in tables):
            break
    return tables


def _width(table: Table, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), table).maximum


def _notes(comparison: Comparison, found: dict[Any, Difference]) -> list[str]:
    """Return the remarks below the table."""
    notes = []
    if found:
        first = comparison.evaluations[0].result.name
        notes.append(f"difference: mean return minus that of {first}, paired by seed")
    for evaluation in comparison.evaluations:
        report, result = evaluation.report, evaluation.result
        label = f"{result.name}, {result.decoding}"
        if report.env_failures:
            notes.append(
                f"{label}: {report.env_failures} of {comparison.episodes} episodes could not be played; first error: "
                f"{report.failures[0]}"
            )
        if report.window_truncations:
            notes.append(f"{label}: {report.window_truncations} episodes truncated at the end of the model's window")
        if report.endless_thoughts:
            notes.append(f"{label}: {report.endless_thoughts} actions were cut inside their thought")
        if report.rejected_calls:
            notes.append(f"{label}: {report.rejected_calls} tool calls could not be parsed or named no tool")
    return notes
