"""Small chat templates in the manner of published ones, for the tokenizer of `actor_cases.byte_tokenizer`."""

_END = "<|im_end|>\n"
_PROMPT = "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}"

QWEN3 = (
    """{%- for message in messages %}
{%- if message.role == 'assistant' %}
    {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
    {{- '<|im_start|>assistant\n' + content + '<|im_end|>\n' }}
{%- else %}
    {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endif %}
{%- endfor %}
"""
    + _PROMPT
)
"""Drops the thoughts of earlier turns."""

R1 = QWEN3.replace("'<|im_start|>assistant\n' }}", "'<|im_start|>assistant\n<think>\n' }}")
"""Opens a thought in the generation prompt too."""

LLAMA3 = """{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system_message = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = '' %}
{%- endif %}
{{- '<|im_start|>system\nToday Date: ' + strftime_now('%d %b %Y %H:%M:%S.%f') + '\n\n' }}
{%- if tools %}
    {%- for tool in tools %}{{- tool | tojson + '\n' }}{%- endfor %}
{%- endif %}
{{- system_message + '<|im_end|>\n' }}
{%- for message in messages %}
    {{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""
"""Writes the time, and strips contents."""

MISTRAL = """{{- bos_token }}
{%- if messages[0].role == 'system' %}
    {%- set system_message = messages[0].content %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('After the optional system message, conversation roles must alternate user/assistant') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {%- if loop.last and system_message is defined %}
            {{- '<|im_start|>' + system_message + '\n\n' + message.content + '<|im_start|>' }}
        {%- else %}
            {{- '<|im_start|>' + message.content + '<|im_start|>' }}
        {%- endif %}
    {%- elif message.role == 'assistant' %}
        {{- message.content + eos_token }}
    {%- else %}
        {{- raise_exception('Only user and assistant roles are supported') }}
    {%- endif %}
{%- endfor %}
"""
"""Alternates strictly, and writes the system message before the last user message."""

GEMMA = """{{- bos_token }}
{%- if messages[0].role == 'system' %}{{- raise_exception('System role not supported') }}{%- endif %}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 % 2 == 0) %}
        {{- raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
    {%- endif %}
    {{- '<|im_start|>' + message.role + '\n' + message.content | trim + '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\n' }}{%- endif %}
"""
"""Has no system role, and alternates strictly."""

DEFAULT_SYSTEM = (
    """{%- for message in messages %}
{%- if loop.first and message.role != 'system' %}{{- '<|im_start|>system\nYou are helpful.<|im_end|>\n' }}{%- endif %}
{{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}
{%- endfor %}
"""
    + _PROMPT
)
"""Inserts a system prompt of its own."""
