"""Tiny models of many architectures, from configurations with random weights: for the tests and for docs/models.md."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

VOCABULARY = 96
WINDOW = 24
"""Tokens of the windows of local attention: much less than the episodes of a proof."""


@dataclass(frozen=True)
class Family:
    """One architecture.

    Attributes:
        name: as people call it.
        model_type: transformers' name of the configuration.
        settings: what the tiny model changes, beside `_SIZES`.
        passes: how the learner runs it.
        drop: settings of `_SIZES` that the configuration does not take.
    """

    name: str
    model_type: str
    settings: dict[str, Any] = field(default_factory=dict)
    passes: str = "packed"
    drop: tuple[str, ...] = ()

    def config(self, scale: int = 1) -> PreTrainedConfig:
        """Return the configuration of the tiny model, `scale` times as wide."""
        sizes = {name: value for name, value in _SIZES.items() if name not in self.drop} | self.settings
        return AutoConfig.for_model(
            self.model_type, **{name: value * scale if name in _WIDTHS else value for name, value in sizes.items()}
        )

    def model(self, seed: int = 0, scale: int = 1) -> PreTrainedModel:
        """Return a model with random weights, large enough that each layer matters to the output."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model: PreTrainedModel = AutoModelForCausalLM.from_config(self.config(scale), dtype=torch.float32)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if "sinks" in name:
                        parameter.normal_()
                    elif parameter.dim() == 2 and "norm" not in name and not name.endswith(("A_log", "conv1d.weight")):
                        parameter.normal_(std=1.5 * parameter.shape[1] ** -0.5)
        return model


_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 512,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_WIDTHS = frozenset({"hidden_size", "head_dim", "n_embd", "d_model", "word_embed_proj_dim", "lru_width"})
_LOCAL = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_LINEAR = {
    "num_hidden_layers": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
}
_LATENT = {"q_lora_rank": 16, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 8}
_GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512, "n_inner": 64}
_OLD = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
)
_OLD_ALL = (*_OLD, "max_position_embeddings")

FAMILIES = (
    Family("Llama 3", "llama"),
    Family("Mistral", "mistral", {"sliding_window": WINDOW}),
    Family("Mixtral", "mixtral", {"sliding_window": WINDOW, **_EXPERTS}),
    Family("Ministral", "ministral", _LOCAL),
    Family("Qwen2", "qwen2"),
    Family("Qwen2, with windows", "qwen2", {"use_sliding_window": True, **_LOCAL}),
    Family("Qwen3", "qwen3"),
    Family("Qwen3 MoE", "qwen3_moe", _EXPERTS),
    Family("Gemma", "gemma"),
    Family("Gemma 2", "gemma2", {**_LOCAL, "query_pre_attn_scalar": 8}),
    Family("Gemma 3", "gemma3_text", {**_LOCAL, "query_pre_attn_scalar": 8}),
    Family("Phi-2", "phi"),
    Family("Phi-3, Phi-4", "phi3", {"sliding_window": WINDOW}),
    Family("Granite", "granite", {"logits_scaling": 8.0, "embedding_multiplier": 2.0, "residual_multiplier": 0.5}),
    Family("Granite MoE", "granitemoe", {"logits_scaling": 8.0, **_EXPERTS}),
    Family("Cohere", "cohere", {"logit_scale": 0.25}),
    Family("Cohere 2", "cohere2", {**_LOCAL, "logit_scale": 0.25}),
    Family("MiniCPM3", "minicpm3", {**_LATENT, "dim_model_base": 8, "num_key_value_heads": 4}, drop=("head_dim",)),
    Family("gpt-oss", "gpt_oss", {**_LOCAL, **_EXPERTS}),
    Family("OLMo 2", "olmo2"),
    Family("OLMo 3", "olmo3", _LOCAL),
    Family("SmolLM3", "smollm3", {"no_rope_layers": [1, 0]}),
    Family("StableLM", "stablelm"),
    Family("Starcoder 2", "starcoder2", {"sliding_window": WINDOW}),
    Family("GLM-4", "glm4"),
    Family("Nemotron", "nemotron"),
    Family("ERNIE 4.5", "ernie4_5"),
    Family("EXAONE 4", "exaone4", {**_LOCAL, "sliding_window_pattern": 2}),
    Family(
        "DeepSeek-V3",
        "deepseek_v3",
        {**_LATENT, **_EXPERTS, "n_routed_experts": 4, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1}
        | {"num_key_value_heads": 4},
        drop=("head_dim",),
    ),
    Family(
        "Llama 4",
        "llama4_text",
        {
            "attention_chunk_size": WINDOW,
            "intermediate_size_mlp": 64,
            "num_local_experts": 2,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
        },
    ),
    Family("GPT-2", "gpt2", _GPT, drop=_OLD_ALL),
    Family("GPT-J", "gptj", {**_GPT, "rotary_dim": 4}, drop=_OLD_ALL),
    Family("GPT-NeoX, Pythia", "gpt_neox"),
    Family(
        "GPT-Neo",
        "gpt_neo",
        {"num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]], "window_size": WINDOW},
        passes="separate",
        drop=("num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim"),
    ),
    Family("OPT", "opt", {"ffn_dim": 64, "word_embed_proj_dim": 32}),
    Family("BLOOM", "bloom", {"n_layer": 2, "n_head": 4}, passes="separate"),
    Family("MPT", "mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2, "max_seq_len": 512}, passes="separate"),
    Family("Falcon", "falcon", {"new_decoder_architecture": False}, drop=("head_dim",)),
    Family("Falcon with ALiBi", "falcon", {"alibi": True}, passes="separate", drop=("head_dim",)),
    Family("Mamba", "mamba", {"state_size": 8, "time_step_rank": 4}, passes="separate"),
    Family("Mamba 2", "mamba2", {"num_heads": 8, "n_groups": 1, "state_size": 8}, passes="separate"),
    Family("Falcon Mamba", "falcon_mamba", {"state_size": 8, "time_step_rank": 4}, passes="separate"),
    Family("RecurrentGemma", "recurrent_gemma", {"lru_width": 32, "attention_window_size": WINDOW}, passes="separate"),
    Family("Qwen3-Next", "qwen3_next", {**_LINEAR, **_EXPERTS, "shared_expert_intermediate_size": 32}, "separate"),
    Family("Qwen3.5", "qwen3_5_text", _LINEAR, "separate"),
    Family("Jamba", "jamba", {**_EXPERTS, "mamba_d_state": 8, "mamba_dt_rank": 4}, "separate"),
    Family("Falcon-H1", "falcon_h1", {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8}, "separate"),
    Family("Bamba", "bamba", {"mamba_n_heads": 8, "mamba_d_head": 8, "attn_layer_indices": [1]}, "separate"),
    Family("LFM2", "lfm2", {"layer_types": ["conv", "full_attention"]}, "separate"),
    Family("RWKV", "rwkv", {"attention_hidden_size": 32}, "separate"),
)
