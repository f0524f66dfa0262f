"""Prove the learner's passes on tiny models of every family, and write the table of docs/models.md.

The gap is the largest difference between the learner's log-probabilities and the family's own forward pass over each
sequence alone, on trunks and branches longer than every window of attention. With `--engines`, the engine of a run
reads random tokens with the named families on this machine's CPU, and its log-probabilities are compared with the
learner's. Of other families, the table says whether vLLM's registry has them.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.common import parser, print_table, report, say  # isort: skip - sets the threads first

import numpy as np
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

from bench.families import FAMILIES, VOCABULARY, WINDOW, Family
from learner.check.proof import prove

PAGE = Path(__file__).resolve().parents[1] / "docs" / "models.md"
BEGIN, END = "<!-- table: bench/architectures.py -->", "<!-- end of table -->"
TOKENS = 3 * WINDOW
TIMEOUT_S = 600
COLUMNS = {
    "family": "family",
    "architecture": "architecture",
    "passes": "passes",
    "gap": "largest gap, nats",
    "engine": "engine on CPU",
    "gpu": "engine on GPU",
    "reason": "why separate",
}


def engine_gap(folder: Path) -> float:
    """Return the largest difference between the engine's log-probabilities of random tokens and the learner's."""
    from actors.config import EngineConfig
    from actors.engine.engine import VllmEngine
    from learner.models.policy import Policy, sequence_logprobs
    from learner.models.pretrained import load_causal_model

    tokens = np.random.default_rng(0).integers(3, VOCABULARY, TOKENS)

    async def probe() -> np.ndarray:
        config = EngineConfig(max_model_len=256, max_num_seqs=4, kv_cache_gib=0.25)
        engine = await VllmEngine.start(str(folder), config, stop_token_ids=[2], seed=0)
        try:
            return await engine.probe(tokens.tolist(), 1.0)
        finally:
            engine.shutdown()

    got = asyncio.run(probe())
    own = sequence_logprobs(Policy(load_causal_model(folder, "float32"), 1.0), tokens)
    return float(np.abs(got - own).max())


def run_engine(family: Family) -> str:
    """Return the gap between vLLM and the learner on a tiny model of the family, or vLLM's error, as text."""
    with tempfile.TemporaryDirectory() as folder:
        family.model(scale=4).save_pretrained(folder)  # vLLM's attention needs heads of 32 dimensions
        command = [sys.executable, __file__, "--engine-of", folder]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return f"ran: no answer within {TIMEOUT_S} s"
    found = [line for line in done.stdout.splitlines() if line.startswith("gap ")]
    if found:
        return f"ran: gap {float(found[-1].split()[1]):.0e}"
    errors = re.findall(r"\b\w+Error: .+", done.stderr)
    return f"fails: {errors[0] if errors else 'no reason given'}"


def registry() -> frozenset[str]:
    """Return the architectures that vLLM on this machine has."""
    from vllm.model_executor.models.registry import ModelRegistry

    return frozenset(ModelRegistry.get_supported_archs())


def row(family: Family, known: frozenset[str]) -> dict[str, object]:
    """Return a row of the table: how the learner runs a family, and whether vLLM has it."""
    with tempfile.TemporaryDirectory() as folder:
        family.model().save_pretrained(folder)
        proof = prove(folder)
    say(f"{family.name}: {proof.line()}")
    return {
        "family": family.name,
        "architecture": proof.architecture,
        "passes": proof.passes,
        "gap": proof.gap,
        "engine": "in the registry" if proof.architecture in known else "not in the registry",
        "gpu": "not run",
        "reason": proof.reason,
    }


def write_page(rows: list[dict[str, object]]) -> None:
    """Replace the table in docs/models.md."""
    lines = ["| " + " | ".join(COLUMNS.values()) + " |", "|" + " --- |" * len(COLUMNS)]
    for found in rows:
        cells = {**found, "gap": f"{found['gap']:.0e}"}
        lines.append("| " + " | ".join(str(cells[name]) for name in COLUMNS) + " |")
    before, rest = PAGE.read_text().split(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n\n" + "\n".join(lines) + f"\n\n{END}{rest.split(END)[1]}")


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--engines", nargs="*", default=[], metavar="FAMILY", help="families that vLLM runs here")
    options.add_argument("--engine-of", type=Path, metavar="FOLDER", help="print the gap of vLLM on this model alone")
    options.add_argument("--page", action="store_true", help="write the table into docs/models.md")
    arguments = options.parse_args()
    set_verbosity_error()
    disable_progress_bar()
    if arguments.engine_of is not None:
        print("gap", engine_gap(arguments.engine_of), flush=True)
        os._exit(0)  # some engines do not end with their process
    known = registry()
    rows = [row(family, known) for family in FAMILIES]
    for family, found in zip(FAMILIES, rows, strict=True):
        if family.name in arguments.engines:
            found["engine"] = run_engine(family)
            say(f"{family.name}: engine {found['engine']}")
    print_table("The learner's passes over tiny models", COLUMNS, rows)
    del arguments.engine_of
    say(str(report("architectures", arguments, rows, compact=True)))
    if arguments.page:
        write_page(rows)


if __name__ == "__main__":
    main()
