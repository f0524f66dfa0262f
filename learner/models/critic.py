"""The utterance-level critic: ensembles of Q and V heads on one backbone (ArCHer, section 3.2 and appendix), or two."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer, LlamaConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

from learner.config import CriticConfig, LoraConfig
from learner.errors import LearnerError
from learner.models.adapters import with_adapter
from learner.models.policy import checkpoint_activations, features, value_head
from learner.passes.attention import implementation
from learner.passes.layout import Encoder, Layout, PackedEncoder, Part, SeparateEncoder
from learner.passes.precision import DTYPES, Precision

# Share of the policy's vocabulary that may be unknown to the critic's before the pair is refused.
MAX_UNKNOWN_SHARE = 0.01


class Critic(nn.Module):
    """Q_i(s, a) and V_i(s), i = 1 ... `heads` (two in the paper), read from a backbone's hidden states.

    Q is read at the last token of the action, V at the last token of the state (or at the start mark of an
    encoder, see `learner.layout`).

    Args:
        v_backbone: what V reads, if not the same as Q.
        precision: that the backbones compute in.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        head_hidden_size: int,
        heads: int = 2,
        *,
        v_backbone: PreTrainedModel | None = None,
        precision: Precision = "float32",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.v_backbone = v_backbone
        self.precision = precision
        width = backbone.config.hidden_size
        self.q = nn.ModuleList(value_head(width, head_hidden_size) for _ in range(heads))
        self.v = nn.ModuleList(value_head(width, head_hidden_size) for _ in range(heads))

    def forward(self, layout: Layout, q: Sequence[Part] = (), v: Sequence[Part] = ()) -> dict[str, Tensor]:
        """Values at the layout's points, float32.

        Args:
            q, v: parts at which to read each kind of value.

        Returns:
            "q_PART" and "v_PART": [heads, samples], for "fresh" [heads, samples, actions].
        """
        values: dict[str, Tensor] = {}
        kinds = ((self.backbone, "q", self.q, q), (self.v_backbone or self.backbone, "v", self.v, v))
        hidden: dict[PreTrainedModel, Tensor] = {}
        for backbone, kind, heads, parts in kinds:
            if parts and backbone not in hidden:
                hidden[backbone] = features(backbone, layout, self.precision)
            for part in parts:
                row, column = layout.points[part]
                read = hidden[backbone][row, column].float()
                values[f"{kind}_{part}"] = torch.stack([head(read).squeeze(-1) for head in heads])
        return values


def build_critic(
    config: CriticConfig,
    policy_path: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    precision: Precision = "float32",
    activation_checkpointing: bool = False,
    lora: LoraConfig | None = None,
    base: PreTrainedModel | None = None,
) -> tuple[Critic, Encoder]:
    """The critic that `config` describes and the encoder that feeds it.

    Args:
        policy_path: folder or name of the policy, the backbone where `config.backbone` is "policy".
        tokenizer: the policy's.
        precision: that the backbone computes in.
        lora: train adapters on a frozen backbone in place of the backbone. One made from scratch is trained whole.
        base: the policy's frozen backbone, which adapters share where `config.backbone` is "policy".

    Raises:
        LearnerError: if the backbone's vocabulary can't stand for the policy's.
    """
    adapted = lora is not None and lora.critic and config.build is None
    encoder: Encoder
    if adapted and config.backbone == "policy" and base is not None:
        backbone, encoder = base, PackedEncoder(pad_token_id(tokenizer))
    else:
        backbone, encoder = _backbone(config, policy_path, tokenizer, DTYPES[precision if adapted else "float32"])
        if activation_checkpointing:
            checkpoint_activations(backbone)
    count = 2 if config.backbones == "apart" else 1
    trees = (
        [with_adapter(backbone, lora) for _ in range(count)]
        if adapted and lora is not None
        else [backbone, *(copy.deepcopy(backbone) for _ in range(count - 1))]
    )
    critic = Critic(
        trees[0],
        config.head_hidden_size,
        config.heads,
        v_backbone=trees[1] if count == 2 else None,
        precision=precision,
    )
    return critic, encoder


def _backbone(
    config: CriticConfig, policy_path: str | Path, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype
) -> tuple[PreTrainedModel, Encoder]:
    """The model that the critic starts from, with weights of `dtype`, and the encoder that feeds it."""
    pad = pad_token_id(tokenizer)
    if config.build is not None:
        backbone_config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=config.build.hidden_size,
            num_hidden_layers=config.build.layers,
            num_attention_heads=config.build.heads,
            num_key_value_heads=config.build.heads,
            intermediate_size=config.build.intermediate_size,
            pad_token_id=pad,
            attn_implementation=implementation(),
        )
        return AutoModel.from_config(backbone_config, dtype=dtype), PackedEncoder(pad)
    path = str(policy_path) if config.backbone == "policy" else config.backbone
    backbone_config = AutoConfig.from_pretrained(path)
    _switch_off_dropout(backbone_config)
    special = (
        {"attn_implementation": implementation()}
        if is_causal(backbone_config)
        else {"attn_implementation": "sdpa", "add_pooling_layer": False}
    )
    backbone = AutoModel.from_pretrained(path, config=backbone_config, dtype=dtype, **special)
    if not is_causal(backbone_config):
        return backbone, _encoder_for(tokenizer, AutoTokenizer.from_pretrained(path), path, config)
    if config.backbone != "policy":
        _require_same_vocabulary(tokenizer, AutoTokenizer.from_pretrained(path), path)
    return backbone, PackedEncoder(pad)


def check_backbone(config: CriticConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Whether the critic that `config` describes can read the policy's tokens; loads no weights.

    Args:
        tokenizer: the policy's.

    Raises:
        LearnerError: if it can't, or there is no such model.
    """
    path = config.backbone
    if config.build is not None or path == "policy":
        return
    try:
        backbone, own = AutoConfig.from_pretrained(path), AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise LearnerError(f"`learner.critic.backbone` {path!r} can't be loaded: {first}") from error
    if is_causal(backbone):
        _require_same_vocabulary(tokenizer, own, path)
    else:
        _encoder_for(tokenizer, own, path, config)


def is_causal(config: AutoConfig) -> bool:
    """Whether a model of this configuration reads from left to right."""
    return type(config) in MODEL_FOR_CAUSAL_LM_MAPPING and not (
        hasattr(config, "is_decoder") and config.is_decoder is False and hasattr(config, "type_vocab_size")
    )


def pad_token_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The id that fills sequences. A pad is masked everywhere, so the end mark does as well where there is none."""
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return int(token_id)
    raise LearnerError(
        f"the tokenizer of {tokenizer.name_or_path!r} has neither a pad nor an end-of-sequence token; set one in its "
        "tokenizer_config.json"
    )


def _switch_off_dropout(config: AutoConfig) -> None:
    """TD targets of a critic with dropout would be noise on noise; the policy's backbone has none either."""
    for name in list(vars(config)):
        if "dropout" in name or name.endswith("_pdrop"):
            value = getattr(config, name)
            if isinstance(value, float):
                setattr(config, name, 0.0)


def _require_same_vocabulary(policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase, path: str) -> None:
    if policy.get_vocab() != critic.get_vocab():
        raise LearnerError(
            f"the critic's backbone {path!r} has another vocabulary than the policy {policy.name_or_path!r}; a causal "
            "critic reads the policy's tokens, so use backbone=policy, a model of the same family, or an encoder"
        )


def _encoder_for(
    policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase, path: str, config: CriticConfig
) -> SeparateEncoder:
    by_text = config.reads == "text"
    return SeparateEncoder(
        pad_token_id(critic),
        translate=text_translation(policy, critic) if by_text else translate_vocabulary(policy, critic, path),
        prefix=[critic.cls_token_id],
        suffix=[critic.sep_token_id],
        read_first=True,
        max_tokens=config.max_tokens,
    )


def text_translation(
    policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase
) -> Callable[[np.ndarray], np.ndarray]:
    """The critic's ids of what the policy's tokens read as, for tokenizers that have no pieces in common.

    What was cut is remembered: the states of an episode come back at each draw of it.
    """

    @lru_cache(maxsize=65_536)
    def cut(tokens: bytes) -> np.ndarray:
        text = policy.decode(np.frombuffer(tokens, dtype=np.int32), skip_special_tokens=True)
        return np.asarray(critic(text, add_special_tokens=False)["input_ids"], dtype=np.int64)

    return lambda tokens: cut(np.ascontiguousarray(tokens, dtype=np.int32).tobytes())


def translate_vocabulary(policy: PreTrainedTokenizerBase, critic: PreTrainedTokenizerBase, path: str) -> np.ndarray:
    """The critic's id of each of the policy's tokens, int64 [policy vocabulary].

    GPT-2 and RoBERTa cut text into the same pieces under different ids, so pieces can be matched by their text and
    nothing is tokenised twice. Special tokens are matched by their role.

    Raises:
        LearnerError: if more than 1% of the pieces have no counterpart.
    """
    vocabulary = critic.get_vocab()
    unknown_id = critic.unk_token_id
    roles = ("pad_token", "bos_token", "eos_token", "sep_token", "cls_token", "mask_token", "unk_token")
    special = {getattr(policy, role): getattr(critic, f"{role}_id") for role in roles if getattr(policy, role)}
    special = {token: token_id for token, token_id in special.items() if token_id is not None}
    table = np.zeros(max(policy.get_vocab().values()) + 1, dtype=np.int64)
    unknown = []
    for token, token_id in policy.get_vocab().items():
        found = special.get(token, vocabulary.get(token, unknown_id))
        if found is None or (found == unknown_id and token not in special):
            unknown.append(token)
        table[token_id] = found if found is not None else 0
    if unknown and (unknown_id is None or len(unknown) > MAX_UNKNOWN_SHARE * len(table)):
        raise LearnerError(
            f"{len(unknown)} of the policy's {len(table)} tokens (such as {unknown[:3]}) have no counterpart in the "
            f"critic's tokenizer {path!r}; set critic.reads=text, choose a backbone of the same tokenizer family, or "
            "backbone=policy"
        )
    return table
