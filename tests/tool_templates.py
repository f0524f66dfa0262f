"""Chat templates with tools, in the forms of several model families, and tiny tokenizers for them.

Each is reduced to what differs between the families: where the tools stand, how a call and its result are written, and
which roles may follow each other.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from actor_cases import byte_tokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import envs
from archer.config.sections import TinyModelConfig
from archer.driver.model import make_tokenizer

HERMES = """\
{%- if tools %}<|im_start|>system
{% if messages[0].role == 'system' %}{{ messages[0].content }}

{% endif %}<tools>{% for tool in tools %}
{{ tool | tojson }}{% endfor %}
</tools><|im_end|>
{% elif messages[0].role == 'system' %}<|im_start|>system
{{ messages[0].content }}<|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' or (message.role == 'assistant' and not message.tool_calls) -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% elif message.role == 'assistant' %}<|im_start|>assistant
{% if message.content %}{{ message.content }}
{% endif %}{% for call in message.tool_calls %}<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>{% endfor %}<|im_end|>
{% elif message.role == 'tool' %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% endif %}{% endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

LLAMA = """\
{{- bos_token }}
{%- set date = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content | trim %}{% set messages = messages[1:] %}
{%- else %}{% set system = "" %}{% endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools %}{{ "Environment: ipython\\n" }}{% endif %}
{{- "Today Date: " + date + "\\n\\n" + system + "<|eot_id|>" }}
{%- if tools %}
{%- if messages | length == 0 %}{{ raise_exception("Cannot put tools in the first user message!") }}{% endif %}
{{- "<|start_header_id|>user<|end_header_id|>\\n\\nRespond with a JSON for a function call.\\n\\n" }}
{%- for tool in tools %}{{ tool | tojson + "\\n\\n" }}{% endfor %}
{{- messages[0].content | trim + "<|eot_id|>" }}{% set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
{%- if 'tool_calls' in message %}
{%- if message.tool_calls | length != 1 %}{{ raise_exception("Only single tool-calls at once!") }}{% endif %}
{%- set call = message.tool_calls[0].function %}
{{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{{- '{"name": "' + call.name + '", "parameters": ' }}{{ call.arguments | tojson }}{{ "}<|eot_id|>" }}
{%- elif message.role in ('tool', 'ipython') %}
{{- "<|start_header_id|>ipython<|end_header_id|>\\n\\n" }}{{ {"output": message.content} | tojson }}{{ "<|eot_id|>" }}
{%- else %}
{{- "<|start_header_id|>" + message.role + "<|end_header_id|>\\n\\n" + message.content | trim + "<|eot_id|>" }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}{% endif %}"""

MISTRAL = """\
{{- bos_token }}
{%- if messages[0].role == 'system' %}{% set system = messages[0].content %}{% set messages = messages[1:] %}{% endif %}
{%- set ns = namespace(users=0, user=false) %}
{%- for message in messages if message.role == 'user' %}{% set ns.users = ns.users + 1 %}{% endfor %}
{%- set seen = namespace(users=0) %}
{%- for message in messages %}
{%- if message.role == 'user' %}
{%- if ns.user %}{{ raise_exception("After the optional system message, roles must alternate") }}{% endif %}
{%- set ns.user = true %}{% set seen.users = seen.users + 1 %}
{%- if tools and seen.users == ns.users %}
{{- "[AVAILABLE_TOOLS]" }}{{ tools | tojson }}{{ "[/AVAILABLE_TOOLS]" }}
{%- endif %}
{{- "[INST]" }}{% if system is defined and loop.last %}{{ system + "\\n\\n" }}{% endif %}
{{- message.content + "[/INST]" }}
{%- elif message.tool_calls %}
{%- set ns.user = false %}
{{- "[TOOL_CALLS][" }}
{%- for call in message.tool_calls %}
{%- if call.id | length != 9 %}{{ raise_exception("Tool call IDs should have length 9!") }}{% endif %}
{{- '{"name": "' + call.function.name + '", "arguments": ' }}{{ call.function.arguments | tojson }}
{{- ', "id": "' + call.id + '"}' }}{% if not loop.last %}{{ ", " }}{% endif %}
{%- endfor %}{{ "]" + eos_token }}
{%- elif message.role == 'assistant' %}
{%- set ns.user = false %}{{ " " + message.content | trim + eos_token }}
{%- elif message.role == 'tool' %}
{%- if message.tool_call_id | length != 9 %}{{ raise_exception("Tool call IDs should have length 9!") }}{% endif %}
{{- '[TOOL_RESULTS]{"content": ' }}{{ message.content | tojson }}
{{- ', "call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
{%- endif %}{% endfor %}"""

XML = HERMES.replace(
    """{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}""",
    """<function={{ call.function.name }}>
{% for name, value in call.function.arguments | items %}<parameter={{ name }}>
{{ value if value is string else value | tojson }}
</parameter>
{% endfor %}</function>""",
)
"""The form of Qwen3-Coder."""

DEEPSEEK = """\
{{- bos_token }}{% for message in messages if message.role == 'system' %}{{ message.content }}{% endfor %}
{%- for tool in tools or [] %}{{ tool | tojson }}{% endfor %}
{%- set ns = namespace(user=false) %}
{%- for message in messages %}
{%- if message.role == 'user' %}{% set ns.user = true %}{{ "<|User|>" + message.content }}
{%- elif message.role == 'assistant' %}
{%- if ns.user %}{{ "<|Assistant|></think>" }}{% endif %}{% set ns.user = false %}{{ message.content }}
{%- if message.tool_calls %}{{ "<｜tool▁calls▁begin｜>" }}
{%- for call in message.tool_calls %}
{{- "<｜tool▁call▁begin｜>" + call.function.name + "<｜tool▁sep｜>" + call.function.arguments + "<｜tool▁call▁end｜>" }}
{%- endfor %}{{ "<｜tool▁calls▁end｜>" }}{% endif %}{{ eos_token }}
{%- elif message.role == 'tool' %}{{ "<｜tool▁output▁begin｜>" + message.content + "<｜tool▁output▁end｜>" }}
{%- endif %}{% endfor %}
{%- if add_generation_prompt and ns.user %}{{ "<|Assistant|></think>" }}{% endif %}"""
"""The form of DeepSeek V3.1, whose arguments are JSON text and whose results need no generation prompt."""

GLM = """\
[gMASK]<sop>
{%- if tools %}<|system|>
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}{% endif %}
{%- for message in messages %}
{%- if message.role == 'user' %}{{ "<|user|>\\n" + message.content }}
{%- elif message.role == 'assistant' %}{{ "<|assistant|>\\n<think></think>" }}
{%- if message.content %}{{ "\\n" + message.content.split("</think>")[-1].strip() }}{% endif %}
{%- for call in message.tool_calls or [] %}{{ "\\n<tool_call>" + call.function.name }}
{%- for name, value in call.function.arguments.items() %}
{{- "\\n<arg_key>" + name + "</arg_key>\\n<arg_value>" }}
{{- value if value is string else value | tojson }}{{ "</arg_value>" }}
{%- endfor %}{{ "\\n</tool_call>" }}{% endfor %}
{%- elif message.role == 'tool' %}{{ "<|observation|>\\n<tool_response>\\n" + message.content + "\\n</tool_response>" }}
{%- elif message.role == 'system' %}{{ "<|system|>\\n" + message.content }}
{%- endif %}{% endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""
"""The form of GLM 4.5: the token that begins the next message ends an action, and each answer begins with a thought."""

SPECIALS = {
    HERMES: "",
    XML: "",
    LLAMA: "<|start_header_id|> <|end_header_id|> <|eot_id|> <|python_tag|> <|eom_id|>",
    GLM: "[gMASK] <sop> <|system|> <|user|> <|assistant|> <|observation|>",
    MISTRAL: "[INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_CALLS] [TOOL_RESULTS] [/TOOL_RESULTS]",
    DEEPSEEK: "<|User|> <|Assistant|> <｜tool▁calls▁begin｜> <｜tool▁calls▁end｜> <｜tool▁call▁begin｜> "
    "<｜tool▁call▁end｜> <｜tool▁sep｜> <｜tool▁output▁begin｜> <｜tool▁output▁end｜>",
}
FORMS = {
    "hermes": HERMES,
    "llama3_json": LLAMA,
    "mistral": MISTRAL,
    "qwen3_coder": XML,
    "deepseek_v31": DEEPSEEK,
    "glm45": GLM,
}
"""Templates by the name of vLLM's parser of their calls."""


def tool_tokenizer(template: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer of bytes and of the special tokens that a template writes."""
    tokenizer = byte_tokenizer(chat_template=template)
    tokenizer.add_tokens(SPECIALS[template].split(), special_tokens=True)
    # In the vocabulary, but not special.
    marks = {HERMES: "<tool_call> </tool_call>", XML: "<tool_call> </tool_call>"}
    marks[GLM] = "<tool_call> </tool_call> <arg_key> </arg_key> <arg_value> </arg_value> <think> </think>"
    tokenizer.add_tokens(marks.get(template, "").split())
    return tokenizer


def save_tool_model(folder: Path, template: str, env_id: str, *, window: int = 2048, **kwargs: Any) -> Path:
    """Save a random Llama and a tokenizer with `template`, trained on scripted episodes of an environment."""
    demos = list(envs.demonstrate(env_id, episodes=32, skill=0.7, seed=0, **kwargs))
    texts = [json.dumps(tool) for tool in envs.spec(env_id).tools]
    texts += [str(text) for demo in demos for text in (*demo.observations, *demo.actions)]
    tokenizer = make_tokenizer(texts, TinyModelConfig(vocab_size=900, max_positions=window))
    tokenizer.add_tokens(["<|im_start|>", "<|im_end|>", *SPECIALS[template].split()], special_tokens=True)
    tokenizer.chat_template = template
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=window,
            tie_word_embeddings=False,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
