"""Settings of oracles: the mapping that an environment takes as `oracle=`, selected by its `kind`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from envs.errors import EnvArgumentError, nearest


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TableSettings(_Settings):
    """The environment's own table of facts."""

    kind: Literal["table"] = Field("table", description="Answers from the table.")


class _Model(_Settings):
    model: str = Field(min_length=1, description="Name or folder of the model.")
    max_tokens: int = Field(48, ge=1, description="Greatest number of tokens of an answer.")
    record: str | None = Field(
        None, min_length=1, description="JSONL file that stores answers; an answer that it holds is returned again."
    )
    replay: bool = Field(False, description="Return recorded answers only; a question without one is an error.")

    @model_validator(mode="after")
    def _replay_needs_a_record(self) -> Self:
        if self.replay and self.record is None:
            raise ValueError("replay needs the file of recorded answers: set `record`")
        return self


class Seq2SeqSettings(_Model):
    """A Hugging Face encoder-decoder model, such as T5, on this machine."""

    kind: Literal["seq2seq"] = Field("seq2seq", description="A Hugging Face sequence-to-sequence model.")
    template: str = Field(
        "{instructions} Question: {question} Answer:",
        description="Prompt of the model, with {instructions}, {secret} and {question}.",
    )
    device: str = Field("cpu", description="Torch device of the model.")

    @model_validator(mode="after")
    def _template_can_be_filled(self) -> Self:
        try:
            self.template.format(instructions="", secret="", question="")
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"template {self.template!r} cannot be formatted: {error!r}") from None
        if "{question}" not in self.template:
            raise ValueError(f"template {self.template!r} does not contain {{question}}")
        return self


class EndpointSettings(_Model):
    """An HTTP endpoint with OpenAI's chat completions API (OpenAI, vLLM, llama.cpp, ...)."""

    kind: Literal["openai"] = Field("openai", description="An OpenAI-compatible endpoint.")
    base_url: str | None = Field(
        None, description="Address of the endpoint, such as http://127.0.0.1:8000/v1; null for OpenAI's."
    )
    api_key_env: str | None = Field(
        "OPENAI_API_KEY", description="Environment variable that holds the API key; null if none is needed."
    )
    timeout_s: float = Field(30.0, gt=0, description="Longest wait for one attempt, in seconds.")
    retries: int = Field(4, ge=0, le=20, description="Attempts after the first, with growing pauses.")
    temperature: float = Field(0.0, ge=0, description="Sampling temperature.")


OracleSettings = TableSettings | Seq2SeqSettings | EndpointSettings
KINDS: dict[str, type[OracleSettings]] = {
    "table": TableSettings,
    "seq2seq": Seq2SeqSettings,
    "openai": EndpointSettings,
}


def read_settings(env_id: str, oracle: Mapping[str, Any] | None) -> OracleSettings:
    """Return the settings in a mapping; those of the table for None. Raises EnvArgumentError that lists the
    mistakes.
    """
    if oracle is None:
        return TableSettings()
    if not isinstance(oracle, Mapping) or "kind" not in oracle:
        raise EnvArgumentError(f"{env_id}: oracle is {oracle!r}: give a mapping with a kind, one of {', '.join(KINDS)}")
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
        faults = [
            f"{'.'.join(map(str, item['loc'])) or 'oracle'}: {item['msg']}" for item in error.errors(include_url=False)
        ]
        raise EnvArgumentError(f"{env_id}: oracle: {'; '.join(faults)}") from None
