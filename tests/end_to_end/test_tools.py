"""Native tool calls on the real stack: a template in Llama's form, with the date and tools, on the support desk.

The policy trains by filtered cloning.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from actor_cases import load_model, reference_logprobs
from loop_cases import ALGORITHMS, archer, assert_trained, write_config
from tool_templates import LLAMA, save_tool_model
from transformers import AutoTokenizer

from buffer.archive import read_archive
from buffer.episodes.schema import batch_to_episodes

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(900)]


def test_llama_like_template_with_date_and_tools(cluster_address: str, tmp_path: Path) -> None:
    """Two cycles: along every episode the engine's stored log-probabilities are the policy's own."""
    kwargs = {"level": 1, "cases": 2, "observe": "brief"}
    model = save_tool_model(tmp_path / "model", LLAMA, "support_desk", **kwargs)
    config = write_config(
        tmp_path,
        algorithm="filtered_bc",
        model={"build": None, "path": str(model)},
        env={"id": "support_desk", "kwargs": {**kwargs, "max_turns": 5}},
        rollout={"sampling": {"max_tokens": 40}, "system_prompt": "You serve the customers of a shop."},
        demonstrations={"episodes": 32, "skill": 0.6, "keep_in_replay": True},
        learner=ALGORITHMS | {"clone": {"steps": 120, "batch": 4, "lr": 8e-3}},
        replay={"shards": 1},
    )
    with archer(tmp_path, "train", str(config), RAY_ADDRESS=cluster_address) as run:
        assert run.finish() == 0, run.output
    assert "tool calls: native, because the chat template writes them and vLLM's parser llama3_json" in run.output
    assert_trained(run.folder, "actor/token_nll", cycles=2, version=3)
    assert [row["metrics"]["rejected_calls"] >= 0 for row in run.rows("cycle")] == [True, True]

    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = load_model(run.folder / "checkpoints" / "cycle-00001" / "policy")
    found = [episode for batch in read_archive(run.folder) for episode in batch_to_episodes(batch)]
    second = [episode for episode in found if set(episode.versions.tolist()) == {2}]
    assert len(second) == 8
    native, least = 0, 0.0
    for episode in second:
        expected = reference_logprobs(policy, episode.tokens, temperature=1.0)
        spans = zip(episode.action_start, episode.action_end, strict=True)
        np.testing.assert_allclose(
            episode.logprobs, np.concatenate([expected[start - 1 : end - 1] for start, end in spans]), atol=1e-4
        )
        least = min(least, float(episode.logprobs.min()))
        text = tokenizer.decode(episode.tokens)
        assert re.search(r"Today Date: \d\d \w{3} \d{4}\n\nYou serve the customers of a shop\.<\|eot_id\|>", text)
        assert text.count('"name": "verify", "description"') == 1
        native += text.count("<|start_header_id|>ipython<|end_header_id|>")
    assert native > 0, "the clone called no tool"
    assert least < -0.5, "the policy is certain of every token, so the comparison shows nothing"
