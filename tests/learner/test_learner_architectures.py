"""The learner's passes equal each family's own forward pass, on tiny models of many architectures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedModel

from bench.families import FAMILIES, WINDOW, Family
from learner.check.bounded import bounded, longest_window
from learner.check.episodes import probe_rows
from learner.check.proof import PassProof, PassProofError, prove, prove_model
from learner.check.reference import as_written
from learner.models.policy import Policy, value_head
from learner.models.pretrained import attention_of, hidden_width, set_passes, without_noise
from learner.passes import masks
from learner.passes.attention import FLEX, TREE
from learner.passes.masks import Tree, branch_mask, tree_mask
from learner.passes.packed_encoder import PackedEncoder

GAP = 1e-4
BY_NAME = {family.name: family for family in FAMILIES}


def _model(family: Family, attends: str | None = None) -> PreTrainedModel:
    model = without_noise(family.model())
    if model._can_set_attn_implementation():
        model.config._attn_implementation_internal = attends or attention_of(model.config)
    return model


def _prove(model: PreTrainedModel, **kwargs: Any) -> PassProof:
    torch.manual_seed(0)
    value = value_head(hidden_width(model), 32).requires_grad_(False)
    return prove_model(model, value, probe_rows(model.config, 0), **kwargs)


def test_there_are_twenty_families() -> None:
    assert len(FAMILIES) == len(BY_NAME) >= 20


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_passes_equal_the_familys_own(family: Family) -> None:
    proof = _prove(_model(family))
    assert proof.passes == family.passes, proof.reason
    assert proof.gap < GAP
    assert proof.value_gap < GAP
    assert bool(proof.reason) == (proof.passes == "separate")


@pytest.mark.parametrize("name", ["Mistral", "Gemma 2", "Llama 4", "gpt-oss", "OPT", "GPT-2"])
def test_families_that_pack_also_run_separate_sequences(name: str) -> None:
    proof = _prove(_model(BY_NAME[name]), passes="separate")
    assert max(proof.gap, proof.value_gap) < GAP


@pytest.mark.parametrize("name", ["Mistral", "gpt-oss", "Mamba", "Qwen3.5"])
def test_gradients_are_the_familys_own(name: str) -> None:
    """Through packed passes and separate sequences: the gradient of the summed log-probability of all fresh actions."""
    model = _model(BY_NAME[name])
    set_passes(model, "auto")
    rows = probe_rows(model.config, 0)
    layout = PackedEncoder(0).encode(rows, ("state", "fresh"))
    Policy(model, 1.0)(layout, layout.predictions["fresh"]).sum().backward()
    got = {key: parameter.grad.clone() for key, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    with as_written(model):
        for row in rows:
            for number, turn in enumerate(map(int, row.states)):
                state = row.episode.tokens[: row.episode.state_end(turn)]
                for action in row.fresh_at(number):
                    ids = torch.from_numpy(np.concatenate((state, action)).astype(np.int64))
                    logprobs = model(input_ids=ids[None], use_cache=False).logits[0, :-1].log_softmax(-1)
                    logprobs.gather(-1, ids[1:, None])[len(state) - 1 :].sum().backward()
    for key, parameter in model.named_parameters():
        if parameter.grad is not None:
            scale = float(parameter.grad.abs().max())
            torch.testing.assert_close(got[key], parameter.grad, atol=1e-4 * scale + 1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", ["Mistral", "Gemma 2", "Llama 4", "Cohere 2"])
def test_flex_attention_and_dense_masks_keep_the_windows(name: str) -> None:
    """Runs FlexAttention uncompiled, because a CPU may have no compiler."""
    with torch.compiler.set_stance("force_eager"):
        for attends in (FLEX, "eager"):
            model = _model(BY_NAME[name], attends)
            assert model.config._attn_implementation == attends
            assert _prove(model, passes="packed").gap < GAP


@pytest.mark.parametrize("name", ["Mistral", "Gemma 3", "Llama 4", "gpt-oss"])
def test_a_pass_without_windows_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_local", lambda *_: None)
    with pytest.raises(PassProofError, match=r"packed passes: layer 0 \(\w+\) differs \(log-probabilities by up to"):
        _prove(_model(BY_NAME[name]), passes="packed")


@pytest.mark.parametrize("name", ["Granite", "Cohere", "Gemma 2", "MiniCPM3"])
def test_a_head_without_its_scale_is_found_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("learner.models.policy.OwnHead", lambda model: model.get_output_embeddings())
    with pytest.raises(PassProofError, match="packed passes: the output head differs"):
        _prove(_model(BY_NAME[name]))


@pytest.mark.parametrize("name", ["Mamba", "Qwen3-Next", "Qwen3.5", "Falcon with ALiBi", "GPT-Neo"])
def test_packed_passes_of_a_family_that_cannot_pack_are_refused(name: str) -> None:
    with pytest.raises(PassProofError, match=r"packed passes: .*(layer \d|differs|cannot run them)"):
        _prove(_model(BY_NAME[name]), passes="packed")


@pytest.mark.parametrize("block", [7, 128])
@pytest.mark.parametrize("name", ["Mistral", "Llama 4"])
def test_blocks_hide_what_the_dense_mask_hides(name: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(masks, "_BLOCK", block)
    model = _model(BY_NAME[name], TREE)
    layout = PackedEncoder(0).encode(probe_rows(model.config, 0), ("state", "action", "fresh"))
    tree = layout.structure
    assert isinstance(tree, Tree)
    size = longest_window(model.config)
    chunks = name == "Llama 4"

    def rule(row: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        return key // size == query // size if chunks else key > query - size

    local = masks.Local(tree.positions(), size, rule)
    dense = tree_mask(tree, local)
    found = torch.zeros_like(dense)
    for queries, reach, own, part in branch_mask(tree, torch.float32, local).blocks:
        width = reach.stop - reach.start
        found[:, :, queries, reach] = part[..., :width] == 0
        found[:, :, queries, own] |= part[..., width:] == 0
    real = tree.branch >= 0  # a pad of a trunk attends as the trunk does; nothing reads it
    assert found[:, 0][real].equal(dense[:, 0][real])


def test_positions_continue_after_the_state() -> None:
    layout = PackedEncoder(0).encode(probe_rows(BY_NAME["Mistral"].config(), 0), ("state", "action", "fresh"))
    tree = layout.structure
    assert isinstance(tree, Tree)
    real = tree.branch >= 0
    assert tree.positions()[real].equal(layout.position_ids[real])


def test_activation_checkpointing_changes_nothing() -> None:
    assert _prove(_model(BY_NAME["Gemma 2"]), activation_checkpointing=True).gap < GAP


def test_noise_under_an_unusual_name_is_off() -> None:
    family = BY_NAME["Mistral"]
    model = family.model()
    model.model.layers[0].mlp.act_fn = nn.Sequential(nn.SiLU(), nn.Dropout(0.5))
    model.model.layers[1].self_attn.attention_dropout = 0.5
    model.config._attn_implementation_internal = TREE
    assert _prove(without_noise(model).train()).gap < GAP


def test_a_large_model_is_proved_by_its_first_layers_and_a_long_window_by_a_short_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    family = Family("deep", "qwen2", {"use_sliding_window": True, "sliding_window": 300, "num_hidden_layers": 6})
    config = family.config()
    config.layer_types = ["full_attention"] * 3 + ["sliding_attention"] * 3
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    monkeypatch.setattr("learner.check.bounded.LARGE", 1000)
    small, notes = bounded(config)
    assert (small.num_hidden_layers, small.layer_types[-1], small.sliding_window) == (4, "sliding_attention", 64)
    assert config.num_hidden_layers == 6
    proof = prove(tmp_path)
    assert proof.bounds == tuple(notes) == ("sliding_window 300 as 64", "the first 4 of 6 layers")
    assert proof.passes == "packed"
    assert "proved sliding_window 300 as 64, the first 4 of 6 layers" in proof.line()


def test_episodes_are_longer_than_any_window_and_no_longer_than_the_model_reads() -> None:
    config = BY_NAME["Mistral"].config()
    longest = max(len(row.episode.tokens) for row in probe_rows(config, 0))
    assert longest > 2 * WINDOW
    config.max_position_embeddings = 64
    assert max(row.size for row in probe_rows(config, 0)) >= 40
    assert max(len(row.episode.tokens) for row in probe_rows(config, 0)) + 24 <= 64


def test_an_encoder_is_refused_as_a_policy(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(BY_NAME["GPT-2"].config()).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "t5", "vocab_size": 96}')
    with pytest.raises(PassProofError, match=r"architecture 't5' has no causal language model"):
        prove(tmp_path)


def test_a_model_whose_own_pass_fails_is_refused_with_its_error() -> None:
    model = _model(BY_NAME["Mistral"])
    model.model.layers[1].mlp.up_proj = nn.Linear(3, 3)
    with pytest.raises(PassProofError, match="the forward pass of MistralForCausalLM itself fails: RuntimeError"):
        _prove(model)
