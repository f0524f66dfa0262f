"""Adapters: sharing of the base, merging, files, and the adapters that are refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from algorithm_cases import make_algorithm
from learner_cases import gpt2, llama, make_row
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from learner.broadcast.policy_source import PolicySource
from learner.config import LearnerConfig, LoraConfig
from learner.errors import AdapterError
from learner.models.adapter_files import Base, fingerprint, load_adapter, require_base, save_adapter
from learner.models.adapters import share, twin, weights, with_adapter
from learner.models.critic import Critic
from learner.models.policy import Policy
from learner.models.pretrained import checkpoint_activations
from learner.passes.packed_encoder import PackedEncoder

LORA = LoraConfig(rank=4, alpha=8)


def _base(seed: int = 0, architecture: str = "llama") -> PreTrainedModel:
    torch.manual_seed(seed)
    config = gpt2() if architecture == "gpt2" else llama(tie_word_embeddings=True)
    return AutoModelForCausalLM.from_config(config).eval()


def _trained(base: PreTrainedModel, seed: int = 1, config: LoraConfig = LORA) -> PreTrainedModel:
    """Return a tree over `base` whose adapter changes its outputs."""
    model = with_adapter(base, config)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in weights(model):
            for parameter in weight.adapter.values():
                parameter.copy_(torch.randn_like(parameter) * 0.1)
    return model


def _logprobs(model: PreTrainedModel) -> torch.Tensor:
    layout = PackedEncoder(0).encode([make_row(0, all_turns=True)], ("action",))
    with torch.no_grad():
        return Policy(model, 0.9)(layout, layout.predictions["action"])


def _save(model: PreTrainedModel, folder: Path, base: Base) -> Path:
    save_adapter({k: v.clone() for k, v in PolicySource(model, part="adapter")}, folder, LORA, base)
    return folder


def test_policy_critic_target_and_reference_hold_one_copy_of_the_base() -> None:
    base = _base()
    critic = Critic(with_adapter(base.base_model, LORA), 16, v_backbone=with_adapter(base.base_model, LORA))
    trees = [with_adapter(base, LORA), critic, twin(critic), share(base)]
    own = sum(p.numel() for p in base.parameters())
    held = {id(p): p for tree in trees for p in tree.parameters()}
    frozen = sum(p.numel() for p in held.values() if not p.requires_grad)
    assert frozen == own
    # No two trees train the same tensor.
    trained = [{id(p) for p in tree.parameters() if p.requires_grad} for tree in trees]
    assert all(a.isdisjoint(b) for a, b in itertools.combinations(trained, 2))
    assert [bool(t) for t in trained] == [True, True, True, False]


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_merged_weights_compute_like_the_adapter_and_the_base_is_unchanged(architecture: str) -> None:
    base = _base(architecture=architecture)
    before = _logprobs(share(base))
    model = _trained(base)
    merged = _base(7, architecture)
    missing, unexpected = merged.load_state_dict(dict(PolicySource(model)), strict=False)
    assert not unexpected
    assert set(missing) <= {"lm_head.weight"}
    torch.testing.assert_close(_logprobs(merged), _logprobs(model), atol=1e-5, rtol=0)
    assert (_logprobs(model) - before).abs().max() > 0.01
    torch.testing.assert_close(_logprobs(share(base)), before, atol=0, rtol=0)


def test_an_adapter_is_saved_and_loaded_and_peft_reads_it(tmp_path: Path) -> None:
    base = _base()
    base.save_pretrained(tmp_path / "base")
    record = Base(str(tmp_path / "base"), fingerprint(base))
    model = _trained(base)
    folder = _save(model, tmp_path / "adapter", record)
    again = with_adapter(base, LORA)
    load_adapter(again, folder, LORA, record)
    assert torch.equal(_logprobs(again), _logprobs(model))
    by_peft = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tmp_path / "base"), str(folder))
    torch.testing.assert_close(_logprobs(by_peft.merge_and_unload()), _logprobs(model), atol=1e-5, rtol=0)


@pytest.mark.usefixtures("one_rank")
def test_policy_and_reference_start_from_a_given_adapter(tmp_path: Path) -> None:
    settings = {"lora": {"rank": 4, "alpha": 8}, "clone": {"steps": 0}, "actor": {"kl_to_clone": 0.1}}
    base = make_algorithm("archer", **settings).policy_model
    with torch.no_grad():
        for weight in weights(base):
            for parameter in weight.adapter.values():
                parameter.add_(0.05)
    folder = _save(base, tmp_path, Base("", fingerprint(base)))
    algorithm: Any = make_algorithm("archer", **settings | {"lora": {"rank": 4, "alpha": 8, "adapter": str(folder)}})
    assert torch.equal(_logprobs(algorithm.policy_model), _logprobs(base))
    assert torch.equal(_logprobs(algorithm.engines.reference.module.model), _logprobs(base))
    assert sum(p.numel() for p in algorithm.engines.reference.module.parameters() if p.requires_grad) == 0


def test_an_adapter_for_another_base_is_refused_with_both_names(tmp_path: Path) -> None:
    mine, other = (Base(name, fingerprint(_base(seed))) for seed, name in enumerate(("models/mine", "models/other")))
    folder = _save(_trained(_base()), tmp_path / "adapter", mine)
    require_base(folder, Base("moved/elsewhere", mine.fingerprint))
    with pytest.raises(AdapterError, match=r"made for the base models/mine \(\w+\), and the base here is models/other"):
        load_adapter(with_adapter(_base(1), LORA), folder, LORA, other)
    # Without base.json, as in other adapters of peft, only the name of the base is compared.
    (folder / "base.json").unlink()
    load_adapter(with_adapter(_base(), LORA), folder, LORA, Base("hub/mine", "?"))
    with pytest.raises(AdapterError, match=r"models/mine, and the base here is models/other"):
        load_adapter(with_adapter(_base(1), LORA), folder, LORA, other)


def test_an_adapter_of_another_shape_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    mine = Base("mine", fingerprint(_base()))
    folder = _save(_trained(_base()), tmp_path / "adapter", mine)
    wider = LoraConfig(rank=8, alpha=8)
    with pytest.raises(AdapterError, match=r"rank 4 and alpha 8.*set learner.lora.rank=4 learner.lora.alpha=8"):
        load_adapter(with_adapter(_base(), wider), folder, wider, mine)
    fewer = LoraConfig(rank=4, alpha=8, targets=["q_proj"])
    with pytest.raises(AdapterError, match=r"for mine\) does not fit mine: \d+ of its matrices"):
        load_adapter(with_adapter(_base(), fewer), folder, fewer, mine)
    with pytest.raises(AdapterError, match="no LoRA adapter that peft can read"):
        load_adapter(with_adapter(_base(), LORA), tmp_path / "nowhere", LORA, mine)


@pytest.mark.parametrize(
    ("targets", "says"), [(["c_attn"], r"has no such layers.*q_proj"), (["embed_tokens"], "the embedding")]
)
def test_impossible_targets_are_refused(targets: list[str], says: str) -> None:
    with pytest.raises(AdapterError, match=says):
        with_adapter(_base(), LoraConfig(targets=targets))


def test_the_fingerprint_ignores_precision_and_detects_other_weights() -> None:
    assert fingerprint(_base()) == fingerprint(_base().bfloat16())
    assert fingerprint(_base()) != fingerprint(_base(1))
    changed = _base()
    with torch.no_grad():
        changed.base_model.layers[1].mlp.up_proj.weight.mul_(1.01)
    assert fingerprint(changed) != fingerprint(_base())


def test_an_adapter_together_with_cloning_is_refused() -> None:
    with pytest.raises(ValueError, match=r"lora.adapter.*clone.steps"):
        LearnerConfig.model_validate({"lora": {"adapter": "somewhere"}, "clone": {"steps": 5}})


def test_activations_are_recomputed_by_the_adapter_that_made_them() -> None:
    """Two trees over one base make both forward passes before the first backward pass."""
    gradients = []
    for recompute in (False, True):
        base = _base()
        if recompute:
            checkpoint_activations(base)
        models = [_trained(base, 1), _trained(base, 2)]
        layout = PackedEncoder(0).encode([make_row(0, all_turns=True)], ("action",))
        losses = [Policy(model, 0.9)(layout, layout.predictions["action"]).sum() for model in models]
        for loss in losses:
            loss.backward()
        gradients.append([p.grad.clone() for model in models for p in model.parameters() if p.requires_grad])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, plain, atol=1e-5, rtol=1e-4)
