"""The policy's model: check one that exists, or make a tokenizer and a small Llama from scratch.

Both end in a Hugging Face folder (or name) that every room loads by itself.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from archer.config.loading import looks_like_folder
from archer.config.sections import ModelConfig, TinyModelConfig
from archer.errors import ConfigError
from learner.config import CriticConfig
from learner.errors import LearnerError

PAD, BOS, EOS = "<pad>", "<bos>", "<eos>"


@dataclass(frozen=True)
class PolicyModel:
    """A model that was found fit: folder or name, id of the token that pads, window in tokens where it names one."""

    path: str
    pad_token_id: int
    window: int | None


def build_tiny_model(texts: Iterable[str], directory: Path, config: TinyModelConfig, *, seed: int) -> Path:
    """Train a tokenizer on `texts`, initialise a Llama, and save both to `directory`; the same input, the same bytes.

    The folder is written under another name and renamed, so that it is whole where it exists. Raises ConfigError
    where `texts` is empty.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(texts, config)
    llama = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=config.tie_embeddings,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(llama).to(torch.float32)
    # Neutral: without this file `generate` samples from the 50 likeliest tokens only, and so would not be the policy.
    model.generation_config = GenerationConfig(
        do_sample=True,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)  # what a kill left
    with _quietly():
        model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
    unfinished.rename(directory)
    return directory


def make_tokenizer(texts: Iterable[str], config: TinyModelConfig) -> Any:
    """A tokenizer trained on `texts`, as transformers takes it. Raises ConfigError where `texts` is empty."""
    return _wrap(train_tokenizer(texts, config.vocab_size), config.max_positions)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Byte-level BPE: every string can be written, and frequent words, with the space before them, become one token.

    The newline is split off before anything else, so that it is always one token of its own: it ends an action.
    """
    lines = list(texts)
    if not any(line.strip() for line in lines):
        raise ConfigError("there is no text to train the tokenizer on; set demonstrations.episodes above 0")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=2,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(lines, trainer=trainer)
    return tokenizer


def start_path(config: ModelConfig, built: Path) -> str:
    """Folder or hub name of the model that a run begins with; `built` is where the run makes one if it does."""
    if config.path is None:
        return str(built)
    return str(Path(config.path).expanduser()) if looks_like_folder(config.path) else config.path


def resolve_model(config: ModelConfig) -> PolicyModel:
    """Check a model that exists (`config.path`) and answer what the run must know of it. Raises ConfigError."""
    from transformers import AutoConfig, AutoTokenizer

    from learner.models.vocabulary import pad_token_id  # late: brings torch, as transformers does

    assert config.path is not None, "a model to build has no path; build it first"
    path = start_path(config, built=Path())
    if looks_like_folder(config.path) and not (Path(path) / "config.json").is_file():
        raise ConfigError(
            f"`model.path` is {config.path!r}, and that folder holds no Hugging Face model (no config.json)"
        )
    try:
        architecture = AutoConfig.from_pretrained(path)
        tokenizer = AutoTokenizer.from_pretrained(path)
    except (OSError, ValueError) as error:
        first = str(error).strip().splitlines()[0]
        raise ConfigError(f"`model.path` {config.path!r} can't be loaded: {first}") from error
    try:
        pad = pad_token_id(tokenizer)
    except LearnerError as error:
        raise ConfigError(f"`model.path` {config.path!r} can't be trained: {error}") from error
    return PolicyModel(path, pad, getattr(architecture, "max_position_embeddings", None))


def check_critic(config: CriticConfig, model: str) -> None:
    """Raises ConfigError where the critic can't read the tokens of the policy `model`: now, not after cloning."""
    if config.build is not None or config.backbone == "policy":
        return
    from transformers import AutoTokenizer

    from learner.models.critic import check_backbone  # late: brings torch, as transformers does

    try:
        check_backbone(config, AutoTokenizer.from_pretrained(model))
    except LearnerError as error:
        raise ConfigError(str(error)) from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Silence what libraries print while a model is saved: a progress bar for each file, and a notice of DeepSpeed.

    transformers saves through accelerate, which imports DeepSpeed, which reports that it found no GPU.
    """
    from transformers.utils.logging import disable_progress_bar, enable_progress_bar, is_progress_bar_enabled

    def is_kept(record: logging.LogRecord) -> bool:
        return not record.getMessage().startswith("Setting accelerator to CPU")

    deepspeed, shown = logging.getLogger("DeepSpeed"), is_progress_bar_enabled()
    deepspeed.addFilter(is_kept)
    disable_progress_bar()
    try:
        yield
    finally:
        deepspeed.removeFilter(is_kept)
        if shown:
            enable_progress_bar()


def _wrap(tokenizer: Tokenizer, max_positions: int) -> Any:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=max_positions,
        # Else it emits token_type_ids, which GPT-2 would silently embed.
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
    )
