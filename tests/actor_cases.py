"""Small models, tokenizers, environments and engines for the tests of `actors` and of the broadcast."""

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from actors.config import EngineConfig, SamplingConfig
from actors.engine.engine import VllmEngine
from actors.engine.launch import EXTENSION
from buffer.rollout_records import FreshActions
from buffer.telemetry.collectors import BusyClock
from envs import EnvSpec

T = TypeVar("T")
SPECIAL = ["<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>"]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] | trim }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_tokenizer(*, merges: tuple[tuple[str, str], ...] = (), **kwargs: Any) -> PreTrainedTokenizerFast:
    """Return a tokenizer with one token per byte and one per merge."""
    vocabulary = {piece: i for i, piece in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    for one, other in merges:
        vocabulary[one + other] = len(vocabulary)
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=list(merges)))
    tokenizer.add_special_tokens(SPECIAL)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        model_input_names=["input_ids", "attention_mask"],
        clean_up_tokenization_spaces=False,
        **kwargs,
    )


def save_model(folder: Path, architecture: str = "llama", *, tied: bool = False) -> Path:
    """Save a random causal model of two layers and its tokenizer; the weights are large, so log-probabilities differ.

    The model's sampling defaults are far from the policy's, as in many published models; the engine must ignore them.
    """
    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    shared = {
        "vocab_size": 272,
        "tie_word_embeddings": tied,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "initializer_range": 0.15,
    }
    if architecture == "gpt2":
        model: Any = GPT2LMHeadModel(GPT2Config(n_embd=64, n_layer=2, n_head=2, n_positions=256, **shared))
    else:
        model = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=64,
                intermediate_size=128,
                num_hidden_layers=2,
                num_attention_heads=2,
                num_key_value_heads=1,
                max_position_embeddings=256,
                **shared,
            )
        )
    model.generation_config = GenerationConfig(do_sample=True, temperature=0.2, top_k=3, top_p=0.5)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def load_model(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def change(model: torch.nn.Module, seed: int) -> None:
    """Add noise to every weight, as an optimizer step would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.05)


def reference_logprobs(model: Any, tokens: list[int] | np.ndarray, temperature: float) -> np.ndarray:
    """Return log p(tokens[i + 1] | tokens[: i + 1]), computed by Hugging Face."""
    ids = torch.tensor(np.asarray(tokens, np.int64))[None]
    with torch.no_grad():
        logprobs = (model(ids).logits.float() / temperature).log_softmax(-1)
    return logprobs[0, :-1].gather(-1, ids[0, 1:, None])[:, 0].numpy()


class Completion(NamedTuple):
    """One action."""

    token_ids: list[int]
    logprobs: list[float]
    versions: list[int]


def completions(actions: FreshActions) -> list[Completion]:
    """Return the actions one by one."""
    parts = [actions.action(k) for k in range(len(actions.offsets) - 1)]
    return [Completion(part.tokens.tolist(), part.logprobs.tolist(), part.versions.tolist()) for part in parts]


def fresh_actions(actions: list[list[int]], version: int = 0) -> FreshActions:
    """Return `actions` of one state, each token with log-probability -0.5."""
    tokens = np.array([token for action in actions for token in action], np.int32)
    return FreshActions(
        tokens=tokens,
        offsets=np.cumsum([0, *map(len, actions)]),
        logprobs=np.full(len(tokens), -0.5, np.float32),
        versions=np.full(len(tokens), version, np.int32),
        counts=np.array([len(actions)], np.int32),
    )


class Served:
    """An engine on an event loop that runs in a thread."""

    def __init__(
        self, folder: Path, *, extension: str = EXTENSION, version: int = 0, stop_text: str | None = None
    ) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.engine = self.run(
            VllmEngine.start(
                str(folder),
                EngineConfig(kv_cache_gib=0.1, max_num_seqs=64),
                stop_token_ids=[2],
                seed=1,
                version=version,
                extension=extension,
                stop_text=stop_text,
            )
        )

    def run(self, call: Coroutine[Any, Any, T], timeout_s: float = 280.0) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(timeout_s)

    def generate(self, *args: Any, **kwargs: Any) -> list[Completion]:
        return completions(self.run(self.engine.generate(*args, **kwargs)))

    def rpc(self, method: str, *args: Any) -> list[Any]:
        """Call a method of the extension in the engine's processes, and return their results."""
        return self.run(self.engine._llm.collective_rpc(method, args=args))

    def submit(self, call: Coroutine[Any, Any, T]) -> Any:
        return asyncio.run_coroutine_threadsafe(call, self._loop)

    def close(self) -> None:
        async def shutdown() -> None:
            self.engine.shutdown()
            # vLLM's finalizer shuts down again when the interpreter exits, and logs after pytest's last line.
            self.engine._llm.shutdown = lambda: None
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)

        self.run(shutdown())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10.0)
        self._loop.close()


class ScriptedEngine:
    """An engine that needs no model: returns the given texts in turn, one token per byte."""

    def __init__(self, actions: list[str], window: int = 1000, version: int = 3) -> None:
        self.actions = actions
        self.window = window
        self.version = version
        self.died = asyncio.Event()
        self.busy = BusyClock()
        self.prompts: list[list[int]] = []
        self.tokenizer = byte_tokenizer()

    async def generate(
        self, prompt: list[int], n: int, sampling: SamplingConfig, *, greedy: bool = False
    ) -> FreshActions:
        self.prompts.append(list(prompt))
        text = self.actions[(len(self.prompts) - 1) % len(self.actions)]
        ids = self.tokenizer.encode(text, add_special_tokens=False)[: sampling.max_tokens]
        return fresh_actions([ids] * n, self.version)


class Hanging:
    """An environment in a child process; the action "hang" never returns."""

    spec = EnvSpec(id="hanging", description="Hangs.", max_turns=9, reward_range=(-9.0, 0.0), isolation="process")

    def reset(self, *, seed: int, options: Any = None) -> tuple[str, dict[str, Any]]:
        return "Say something.", {"task_id": f"task-{seed}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if action == "hang":
            threading.Event().wait()
        return f"You said {action}.", -1.0, False, False, {"invalid_action": False, "success": False}

    def close(self) -> None:
        pass


class Fragile:
    """An environment that raises from seed `from_seed` on: in reset if `in_reset`, else in step."""

    spec = EnvSpec(id="fragile", description="Breaks.", max_turns=3, reward_range=(-3.0, 0.0))

    def __init__(self, from_seed: int = 0, in_reset: bool = False) -> None:
        self._from_seed = from_seed
        self._in_reset = in_reset

    def reset(self, *, seed: int, options: Any = None) -> tuple[str, dict[str, Any]]:
        self._seed = seed
        if self._in_reset and seed >= self._from_seed:
            raise ValueError(f"no task for seed {seed}")
        return "Say something.", {"task_id": f"task-{seed}"}

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        if self._seed >= self._from_seed:
            raise KeyError(f"lost my state at {action!r}")
        return f"You said {action}.", -1.0, False, False, {"invalid_action": action == "bad", "success": False}

    def close(self) -> None:
        pass
