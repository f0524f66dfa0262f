"""An oracle that runs a Hugging Face sequence-to-sequence model, such as the T5 models of LMRL-Gym."""

from __future__ import annotations

import hashlib
import threading
from typing import Any

from envs.oracles.base import Enquiry, OracleError
from envs.oracles.settings import Seq2SeqSettings


class Seq2SeqOracle:
    """Loads the model at the first question and answers by greedy decoding."""

    blocks = True

    def __init__(self, settings: Seq2SeqSettings) -> None:
        digest = hashlib.sha256(f"{settings.template}\0{settings.max_tokens}".encode()).hexdigest()[:8]
        self.name = f"seq2seq:{settings.model}:{digest}"
        self.settings = settings
        self._loaded: tuple[Any, Any] | None = None
        # One call at a time, because parallel calls would compete for the same cores.
        self._lock = threading.Lock()

    def answer(self, enquiry: Enquiry) -> str:
        prompt = self.settings.template.format(
            instructions=enquiry.instructions,
            secret=enquiry.secret,
            # Tokenizers refuse lone surrogates.
            question=enquiry.question.encode(errors="replace").decode(),
        )
        with self._lock:
            tokenizer, model = self._loaded = self._loaded or self._load()
            read = tokenizer(prompt, return_tensors="pt", truncation=True).to(model.device)
            written = model.generate(**read, max_new_tokens=self.settings.max_tokens, do_sample=False, num_beams=1)
        return str(tokenizer.decode(written[0], skip_special_tokens=True)).strip()

    def _load(self) -> tuple[Any, Any]:
        import torch  # imported here, because other oracles need neither package
        from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

        name = self.settings.model
        try:
            tokenizer = AutoTokenizer.from_pretrained(name)
            model = AutoModelForSeq2SeqLM.from_pretrained(name, dtype=torch.float32)
        except (OSError, ValueError) as error:
            first = str(error).strip().splitlines()[0]
            raise OracleError(f"the oracle's model {name!r} cannot be loaded: {first}") from error
        return tokenizer, model.to(self.settings.device).eval()
