"""The scorer chooses the action with the largest Q."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from actor_cases import completions, fresh_actions
from learner_cases import VOCABULARY, llama
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from learner.config import LearnerConfig
from learner.critic_scorer import STATES_A_PASS, CriticScorer


def _policy(folder: Path) -> str:
    AutoModelForCausalLM.from_config(llama()).save_pretrained(folder)
    vocabulary = {f"w{i}": i for i in range(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="w1"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="w0").save_pretrained(folder)
    return str(folder)


def test_the_scorer_picks_the_largest_q_of_the_critic_it_was_given(tmp_path: Path) -> None:
    config = LearnerConfig.model_validate({"critic": {"head_hidden_size": 16}})
    rng = np.random.default_rng(0)
    count = STATES_A_PASS + 5
    states = [rng.integers(1, VOCABULARY, rng.integers(2, 20)).astype(np.int32) for _ in range(count)]
    lengths = rng.integers(1, 5, (count, 4))
    candidates = [fresh_actions([rng.integers(1, VOCABULARY, n).tolist() for n in row]) for row in lengths]

    scorer = CriticScorer(config, _policy(tmp_path))
    assert scorer.choose(states, candidates) == [0] * count, "before the first critic the policy plays alone"

    torch.manual_seed(5)
    state = {name: torch.randn_like(tensor) * 0.3 for name, tensor in scorer._critic.state_dict().items()}
    assert scorer.load(state, 3) == 3
    chosen = scorer.choose(states, candidates)
    assert len(set(chosen)) > 1

    # The reference: one pass for each candidate after its whole state.
    critic = scorer._critic
    for prefix, actions, picked in zip(states, candidates, chosen, strict=True):
        values = []
        for action in completions(actions):
            ids = torch.tensor([[*prefix.tolist(), *action.token_ids]])
            hidden = critic.backbone(input_ids=ids).last_hidden_state[0, -1]
            values.append(min(head(hidden).item() for head in critic.q))
        assert values[picked] >= max(values) - 1e-5
