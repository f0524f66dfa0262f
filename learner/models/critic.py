"""The utterance-level critic: ensembles of Q and V heads on one or two backbones (ArCHer, section 3.2 and appendix)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoTokenizer,
    LlamaConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from learner.errors import LearnerError
from learner.models.adapters import with_adapter
from learner.models.heads import HeadModule
from learner.models.policy import features, text_head, token_logprobs, value_head
from learner.models.pretrained import (
    attention_of,
    checkpoint_activations,
    hidden_width,
    is_causal,
    load_causal_model,
    set_passes,
    without_dropout,
    without_noise,
)
from learner.models.value_codes import ScalarCode, ValueCode, value_code
from learner.models.vocabulary import (
    pad_token_id,
    require_same_vocabulary,
    text_tokens,
    translate_text,
    translate_vocabulary,
    vocabulary_size,
)
from learner.passes.attention import implementation
from learner.passes.layout import Encoder, Layout, Part
from learner.passes.packed_encoder import PackedEncoder
from learner.passes.precision import DTYPES, Precision
from learner.passes.separate_encoder import SeparateEncoder

if TYPE_CHECKING:
    from learner.config import CriticConfig, LearnerConfig, LoraConfig
    from learner.critic_config import BackboneConfig


class Critic(nn.Module):
    """Q_i(s, a) and V_i(s), i = 1 ... `heads` (two in the paper), computed from the hidden states of a backbone.

    Q is read at the last token of the action, or from the hidden states there and at the last token of the state; V at
    the last token of the state. An encoder is read at its start token.

    Args:
        v_backbone: the backbone of V; by default V shares that of Q.
        v_heads: whether V has heads; without them, V is computed from Q of fresh actions.
        precision: the dtype in which the backbones compute.
        observation_head: the output head by which each backbone predicts observation tokens; None if none does.
        privileged_head: the head by which each backbone predicts what the environment hides; None if none does.
        code: how the heads encode values; by default as one number.
        q_at: where Q reads the hidden states, see `CriticConfig`.
    """

    def __init__(
        self,
        backbone: PreTrainedModel,
        head_hidden_size: int,
        heads: int = 2,
        *,
        v_backbone: PreTrainedModel | None = None,
        v_heads: bool = True,
        precision: Precision = "float32",
        code: ValueCode | None = None,
        observation_head: nn.Module | None = None,
        privileged_head: nn.Module | None = None,
        q_at: Literal["action", "state_and_action"] = "action",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.v_backbone = v_backbone
        self.precision = precision
        self.observation_head = observation_head
        self.privileged_head = privileged_head
        self.code = code or ScalarCode(1.0)
        self.q_at = q_at
        width, shape = hidden_width(backbone), (head_hidden_size, self.code.width)
        q_width = 2 * width if q_at == "state_and_action" else width
        self.q = nn.ModuleList(value_head(q_width, *shape) for _ in range(heads))
        self.v = nn.ModuleList(value_head(width, *shape) for _ in range(heads if v_heads else 0))

    def forward(
        self, layout: Layout, q: Sequence[Part] = (), v: Sequence[Part] = (), *, outputs: bool = False
    ) -> dict[str, Tensor]:
        """Return Q at the parts `q` and V at the parts `v` as "q_PART" and "v_PART", float32.

        Shapes: [heads, samples]; for "fresh" [heads, states, most actions]; for "next_states" [heads, samples,
        horizon]. With `outputs`, the outputs of the heads, [..., code.width], in place of the values. If the layout has
        the part "observation" or "privileged", the result has under this name the log-probability of each of its
        tokens, float32 [backbones, tokens], by each backbone that the other parts are read from.
        """
        values: dict[str, Tensor] = {}
        kinds = ((self.backbone, "q", self.q, q), (self.v_backbone or self.backbone, "v", self.v, v))
        hidden: dict[PreTrainedModel, Tensor] = {}
        for backbone, kind, heads, parts in kinds:
            if parts and backbone not in hidden:
                hidden[backbone] = features(backbone, layout, self.precision)
            for part in parts:
                at: list[str] = [part]
                if kind == "q" and self.q_at == "state_and_action":
                    at = [f"{part}_state", part]
                read = torch.cat([hidden[backbone][layout.points[name]].float() for name in at], -1)
                found = torch.stack([head(read) for head in heads])
                values[f"{kind}_{part}"] = found if outputs else self.code.value(found)
        for part, predicts in (("observation", self.observation_head), ("privileged", self.privileged_head)):
            if part in layout.predictions:
                assert predicts is not None, f"the critic was built without a head for the part {part!r}"
                row, column, token, *_ = layout.predictions[part]
                predicted = (
                    token_logprobs(predicts, states[row, column], token, self.precision) for states in hidden.values()
                )
                values[part] = torch.stack(list(predicted))
        return values


def build_critic(
    config: LearnerConfig,
    policy_path: str | Path,
    tokenizer: PreTrainedTokenizerBase,
    base: PreTrainedModel | None = None,
) -> tuple[Critic, Encoder]:
    """Return the critic that `config` describes, and the encoder that lays out its input.

    Args:
        policy_path: the policy's model, from which the backbone starts if `critic.backbone` is "policy".
        tokenizer: the policy's.
        base: if given, the policy's frozen backbone, which the adapters of such a backbone share.

    Raises:
        LearnerError: the backbone's vocabulary does not cover the policy's.
    """
    critic, lora = config.critic, adapters_of(config)
    encoder: Encoder
    if lora is not None and critic.backbone == "policy" and base is not None:
        backbone, encoder = base, _packed_encoder(tokenizer)
    else:
        dtype = DTYPES["float32" if lora is None else config.dtype]
        backbone, encoder = _backbone(config, policy_path, tokenizer, dtype)
        if config.activation_checkpointing:
            checkpoint_activations(backbone)
    module = critic_on(
        backbone,
        config,
        lambda first: _observation_head(critic, policy_path, tokenizer, first),
        vocabulary_size(policy_path, tokenizer),
    )
    return module, encoder


def adapters_of(config: LearnerConfig) -> LoraConfig | None:
    """Return the settings of the critic's adapters, None if its backbone is trained whole."""
    # A backbone from scratch has nothing to freeze.
    return config.lora if config.lora is not None and config.lora.critic and config.critic.build is None else None


def critic_on(
    backbone: PreTrainedModel,
    config: LearnerConfig,
    observation_head: Callable[[PreTrainedModel], nn.Module],
    vocabulary: int,
) -> Critic:
    """Return the critic that `config` describes, on a loaded backbone.

    Args:
        observation_head: returns the output head on the backbone of Q; called only for `critic.observation_weight`.
        vocabulary: number of token ids from which `critic.privileged_weight` predicts.
    """
    critic, lora = config.critic, adapters_of(config)
    first, second = backbone, None
    if lora is not None:
        first = with_adapter(backbone, lora)
    if critic.backbones == "apart":
        second = copy.deepcopy(backbone) if lora is None else with_adapter(backbone, lora)
    return Critic(
        first,
        critic.head_hidden_size,
        critic.heads,
        v_backbone=second,
        v_heads=critic.has_v_heads,
        precision=config.dtype,
        code=value_code(critic),
        observation_head=observation_head(first) if critic.observation_weight else None,
        privileged_head=text_head(hidden_width(first), vocabulary) if critic.privileged_weight else None,
        q_at=critic.q_at,
    )


def check_backbone(config: CriticConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check, without loading weights, that the critic's backbone exists and can read the tokens of `tokenizer`.

    Raises:
        LearnerError: naming the backbone and the reason.
    """
    if config.build is not None or config.backbone == "policy":
        return
    try:
        backbone = AutoConfig.from_pretrained(config.backbone, trust_remote_code=False)
        AutoTokenizer.from_pretrained(config.backbone, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise LearnerError(f"`learner.critic.backbone` {config.backbone!r} can't be loaded: {first}") from error
    _encoder(config, backbone, tokenizer)


def _backbone(
    settings: LearnerConfig, policy_path: str | Path, tokenizer: PreTrainedTokenizerBase, dtype: torch.dtype
) -> tuple[PreTrainedModel, Encoder]:
    """Return the model that the critic starts from, with weights of `dtype`, and its encoder."""
    config = settings.critic
    if config.build is not None:
        shape = built_shape(
            config.build,
            vocabulary_size(policy_path, tokenizer),
            pad_token_id=pad_token_id(tokenizer),
            attn_implementation=implementation(),
        )
        model = without_noise(AutoModel.from_config(without_dropout(shape), dtype=dtype))
        return model, _packed_encoder(tokenizer)
    path = str(policy_path) if config.backbone == "policy" else config.backbone
    found = without_dropout(AutoConfig.from_pretrained(path, trust_remote_code=False))
    special: dict[str, Any] = {"attn_implementation": attention_of(found)}
    if not is_causal(found):
        special = {"attn_implementation": "sdpa", "add_pooling_layer": False}
    model = without_noise(AutoModel.from_pretrained(path, config=found, dtype=dtype, **special))
    if is_causal(found):
        set_passes(model, settings.passes if config.backbone == "policy" else config.passes)
    return model, _encoder(config, found, tokenizer, vocabulary_size(policy_path, tokenizer))


def built_shape(build: BackboneConfig, vocabulary: int, **others: Any) -> LlamaConfig:
    """Return the configuration of the backbone `critic.build`; `others` are fields of transformers."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=build.hidden_size,
        num_hidden_layers=build.layers,
        num_attention_heads=build.heads,
        num_key_value_heads=build.heads,
        intermediate_size=build.intermediate_size,
        **others,
    )


def _observation_head(
    config: CriticConfig, policy_path: str | Path, tokenizer: PreTrainedTokenizerBase, backbone: PreTrainedModel
) -> nn.Module:
    """Return the output head for `critic.observation_weight`: a copy of the policy's on its backbone, else random."""
    if config.build is None and config.backbone == "policy":
        return HeadModule(load_causal_model(policy_path, "float32"))
    return text_head(hidden_width(backbone), vocabulary_size(policy_path, tokenizer))


def _packed_encoder(tokenizer: PreTrainedTokenizerBase) -> PackedEncoder:
    return PackedEncoder(pad_token_id(tokenizer), text_tokens(tokenizer))


def _encoder(
    config: CriticConfig, backbone: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, size: int = 0
) -> Encoder:
    """Return the encoder for a pretrained backbone; raise LearnerError if it cannot read the policy's tokens.

    Args:
        size: number of ids that the policy can write.
    """
    path = config.backbone
    if path == "policy":
        return _packed_encoder(tokenizer)
    own = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    if is_causal(backbone):
        require_same_vocabulary(tokenizer, own, path)
        return _packed_encoder(tokenizer)
    for name in ("observation_weight", "privileged_weight"):
        if getattr(config, name):
            raise LearnerError(
                f"`learner.critic.{name}` is {getattr(config, name):g}, and `learner.critic.backbone` {path!r} is an "
                f"encoder, whose passes predict no tokens; set {name}=0, or a causal backbone"
            )
    by_text = config.reads == "text"
    return SeparateEncoder(
        pad_token_id(own),
        translate=translate_text(tokenizer, own) if by_text else translate_vocabulary(tokenizer, own, path, size=size),
        prefix=[own.cls_token_id],
        suffix=[own.sep_token_id],
        read_first=True,
        max_tokens=config.max_tokens,
        with_states=config.q_at == "state_and_action",
    )
