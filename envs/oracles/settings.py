"""What can be set of an oracle: the mapping `oracle=` of an environment, by its `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.errors import EnvArgumentError, nearest


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TableSettings(_Settings):
    """The environment's own table of facts."""

    kind: Literal["table"] = Field("table", description="Answers from the table.")


class _Model(_Settings):
    model: str = Field(min_length=1, description="Name or folder of the model.")
    max_tokens: int = Field(48, ge=1, description="Most tokens of an answer.")
    record: str | None = Field(
        None, min_length=1, description="JSONL file in which answers are kept; those it holds already are given again."
    )
    replay: bool = Field(False, description="Give recorded answers only; a question without one is an error.")

    @model_validator(mode="after")
    def _replay_needs_a_record(self) -> Self:
        if self.replay and self.record is None:
            raise ValueError("replay gives recorded answers, and `record` names no file of them")
        return self


class Seq2SeqSettings(_Model):
    """A Hugging Face encoder-decoder model such as T5, on this machine."""

    kind: Literal["seq2seq"] = Field("seq2seq", description="A Hugging Face sequence-to-sequence model.")
    template: str = Field(
        "{instructions} Question: {question} Answer:",
        description="What the model reads; {instructions}, {secret} and {question} are filled in.",
    )
    device: str = Field("cpu", description="Where it runs, as torch names it.")

    @model_validator(mode="after")
    def _template_can_be_filled(self) -> Self:
        try:
            self.template.format(instructions="", secret="", question="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"template {self.template!r} can't be filled in: {error!r}") from None
        if "{question}" not in self.template:
            raise ValueError(f"template {self.template!r} holds no {{question}}")
        return self


class EndpointSettings(_Model):
    """An HTTP endpoint with OpenAI's chat completions (OpenAI, vLLM, llama.cpp, ...)."""

    kind: Literal["openai"] = Field("openai", description="An OpenAI-compatible endpoint.")
    base_url: str | None = Field(None, description="Its address, such as http://127.0.0.1:8000/v1; null for OpenAI's.")
    api_key_env: str | None = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the key; null where none is needed."
    )
    timeout_s: float = Field(30.0, gt=0, description="Longest wait for one try, in seconds.")
    retries: int = Field(4, ge=0, le=20, description="Tries after the first, with growing pauses between.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature.")


OracleSettings = TableSettings | Seq2SeqSettings | EndpointSettings
KINDS: dict[str, type[OracleSettings]] = {
    "table": TableSettings,
    "seq2seq": Seq2SeqSettings,
    "openai": EndpointSettings,
}


def read_settings(env_id: str, oracle: Mapping[str, Any] | None) -> OracleSettings:
    """The settings that a mapping gives; the table's for None. Raises EnvArgumentError, a sentence per mistake."""
    if oracle is None:
        return TableSettings()
    if not isinstance(oracle, Mapping) or "kind" not in oracle:
        raise EnvArgumentError(f"{env_id}: oracle is {oracle!r}: give a mapping with a kind: {', '.join(KINDS)}")
    kind = KINDS.get(oracle["kind"]) if isinstance(oracle["kind"], str) else None
    if kind is None:
        raise EnvArgumentError(
            f"{env_id}: oracle kind {oracle['kind']!r} is unknown: {nearest(str(oracle['kind']), KINDS)}"
        )
    for name in oracle:
        if name not in kind.model_fields:
            raise EnvArgumentError(
                f"{env_id}: an oracle of kind {oracle['kind']} has no {name!r}: {nearest(str(name), kind.model_fields)}"
            )
    try:
        return kind.model_validate(dict(oracle))
    except ValidationError as error:
        said = [f"{'.'.join(map(str, item['loc'])) or 'it'}: {item['msg']}" for item in error.errors(include_url=False)]
        raise EnvArgumentError(f"{env_id}: oracle: {'; '.join(said)}") from None
