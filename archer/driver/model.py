"""The policy's model: check an existing one, or build a tokenizer and a small model from scratch."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from archer.config.loading import looks_like_folder
from archer.config.sections import ModelConfig, TinyModelConfig
from archer.errors import ConfigError
from buffer.quick_imports import quick_imports
from learner.critic_config import CriticConfig
from learner.errors import LearnerError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"
ROPE_THETA = 1000.0


def build_tiny_model(texts: Iterable[str], directory: Path, config: TinyModelConfig, *, seed: int) -> Path:
    """Train a tokenizer on `texts`, initialise a model, and save both to `directory`. Equal inputs give equal bytes.

    The folder is renamed into place when it is complete. Raises ConfigError if `texts` is empty.
    """
    with quick_imports():
        import torch
        from transformers import AutoModelForCausalLM, GenerationConfig
        from transformers.utils.logging import disable_progress_bar

        from learner.passes.precision import accelerator

    tokenizer = make_tokenizer(texts, config)
    special = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}
    shape = tiny_shape(config, len(tokenizer), special)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(shape, dtype=torch.float32)
    # The default of `generate` samples from the 50 most likely tokens only, which is not the policy's distribution.
    model.generation_config = GenerationConfig(do_sample=True, temperature=1.0, top_k=0, top_p=1.0, **special)
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # left by a kill
    disable_progress_bar()  # transformers draws a bar for each file
    # transformers saves through accelerate, which imports DeepSpeed, which warns on a CPU if the variable is unset.
    os.environ.setdefault("DS_ACCELERATOR", accelerator())
    model.save_pretrained(unfinished)
    tokenizer.save_pretrained(unfinished)
    unfinished.rename(directory)
    return directory


def tiny_shape(config: TinyModelConfig, vocab_size: int, special: dict[str, int]) -> PreTrainedConfig:
    """Return the configuration of the model.

    A Qwen3 has initial weights of standard deviation 1 / sqrt(hidden_size) and rotary frequencies for hundreds of
    tokens; the defaults of transformers, which the Llama has, suit far larger models.
    """
    from transformers import LlamaConfig, Qwen3Config

    sizes: dict[str, Any] = {
        "vocab_size": vocab_size,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.heads,
        "intermediate_size": config.intermediate_size,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tie_embeddings,
        **special,
    }
    if config.architecture == "llama":
        return LlamaConfig(**sizes)
    return Qwen3Config(
        head_dim=config.hidden_size // config.heads,
        initializer_range=config.hidden_size**-0.5,
        rope_parameters={"rope_type": "default", "rope_theta": ROPE_THETA},
        **sizes,
    )


def make_tokenizer(texts: Iterable[str], config: TinyModelConfig) -> PreTrainedTokenizerBase:
    """Train a byte-level BPE tokenizer on `texts`. Raises ConfigError if `texts` is empty.

    It encodes every string, and frequent words, with the space before them, become one token. The newline, which ends
    an action, is always a token of its own because it is split off first.
    """
    from transformers import PreTrainedTokenizerFast

    lines = list(texts)
    if not any(line.strip() for line in lines):
        raise ConfigError("there is no text to train the tokenizer on; set demonstrations.episodes above 0")
    tokenizer = Tokenizer(models.BPE())
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    newlines = pre_tokenizers.Split(Regex(r"\n"), behavior="isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([newlines, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=2,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer=trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=config.max_positions,
        # Without this it returns token_type_ids, which GPT-2 would embed.
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )


def start_path(config: ModelConfig, built: Path) -> str:
    """Return the folder or hub name of the initial model; `built` is the folder of a model that the run builds."""
    if config.path is None:
        return str(built)
    return str(Path(config.path).expanduser()) if looks_like_folder(config.path) else config.path


def resolve_model(config: ModelConfig) -> tuple[str, int | None]:
    """Check the folder, configuration and tokenizer of the existing model `config.path`. Raises ConfigError.

    Returns the folder or hub name, and the window in tokens if the model's configuration has one.
    """
    with quick_imports():  # late: imports torch
        from transformers import AutoConfig, AutoTokenizer

        from learner.models.vocabulary import pad_token_id, require_embedding

    assert config.path is not None, "a model to build has no path; build it first"
    path = start_path(config, built=Path())
    if looks_like_folder(config.path) and not (Path(path) / "config.json").is_file():
        raise ConfigError(
            f"`model.path` is {config.path!r}, and that folder has no Hugging Face model (no config.json)"
        )
    try:
        # False, and not the default, which asks a question on the terminal.
        architecture = AutoConfig.from_pretrained(path, trust_remote_code=False)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        if "trust_remote_code" in str(error):
            raise ConfigError(
                f"`model.path` {config.path!r} needs Python code of its own (`auto_map` in its configuration), which "
                "transformers runs only with trust_remote_code=True and ArCHer never does; use a model whose "
                "architecture transformers has"
            ) from None
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"`model.path` {config.path!r} cannot be loaded: {first}") from error
    try:
        pad_token_id(tokenizer)
        require_embedding(architecture, tokenizer)
    except LearnerError as error:
        raise ConfigError(f"`model.path` {config.path!r} cannot be trained: {error}") from error
    return path, getattr(architecture.get_text_config(), "max_position_embeddings", None)


def check_critic(config: CriticConfig, model: str) -> None:
    """Raise ConfigError if the critic cannot read the tokens of the policy `model`: at the start, not after cloning."""
    if config.build is not None or config.backbone == "policy":
        return
    from transformers import AutoTokenizer

    from learner.models.critic import check_backbone  # late: imports torch, as transformers does

    try:
        check_backbone(config, AutoTokenizer.from_pretrained(model, trust_remote_code=False))
    except LearnerError as error:
        raise ConfigError(str(error)) from error
