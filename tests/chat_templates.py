"""Chat templates in the well-known formats, and conversations to write with them.

The formats are those that the models were trained with; the Jinja is written for these tests, each
in another manner (loops, macros, namespaces, filters, white space between blocks).
"""

from __future__ import annotations

from typing import Any

TOKENS = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}

TEMPLATES: dict[str, str] = {
    "chatml": """\
{%- for message in messages %}
    {{- '<|im_start|>' ~ message.role ~ '\n' ~ message.content ~ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}""",
    "llama-2": """\
{% set first = namespace(text='') %}
{% for message in messages %}
    {%- if message['role'] == 'system' and loop.first %}
        {%- set first.text = '<<SYS>>\n' + message['content'] + '\n<</SYS>>\n\n' %}
        {%- continue %}
    {%- endif %}
    {%- if message['role'] == 'user' %}
        {{- bos_token + '[INST] ' + (first.text + message['content']).strip() + ' [/INST]' }}
        {%- set first.text = '' %}
    {%- elif message['role'] == 'assistant' %}
        {{- ' ' + message['content'] | trim + ' ' + eos_token }}
    {%- else %}
        {{- raise_exception('only user, assistant and one system message first') }}
    {%- endif %}
{%- endfor %}""",
    "llama-3": """\
{{ bos_token }}
{%- macro block(role, text) -%}
<|start_header_id|>{{ role }}<|end_header_id|>

{{ text | trim }}<|eot_id|>
{%- endmacro %}
{%- for message in messages %}{{ block(message['role'], message['content']) }}{% endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}""",
    "mistral": """\
{{ bos_token }}{% for message in messages %}
{% if (message.role == 'user') != (loop.index0 is divisibleby 2) %}
{{ raise_exception('user and assistant must take turns, user first') }}
{% endif %}
{% if message.role == 'user' %}
{{- '[INST] ' ~ message.content ~ ' [/INST]' -}}
{% else %}
{{- message.content ~ eos_token -}}
{% endif %}
{% endfor %}""",
    "gemma": """\
{{ bos_token }}
{%- if messages[0].role == 'system' %}
    {{- raise_exception('System role not supported') }}
{%- endif %}
{%- for message in messages %}
    {%- set role = {'assistant': 'model'}.get(message.role, message.role) %}
    {{- '<start_of_turn>%s\n%s<end_of_turn>\n' | format(role, message.content.strip()) }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}""",
    "zephyr": """\
{% for message in messages %}
{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token }}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
""",
    "phi-3": """\
{% for message in messages %}
{%- if message['content'] -%}
<|{{ message['role'] }}|>
{{ message['content'] }}<|end|>
{% endif -%}
{% endfor %}
{%- if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}""",
    "tools": """\
{%- if tools %}
    {{- 'TOOLS\n' }}
    {%- for tool in tools %}{{ tool | tojson }}{{ '\n' }}{% endfor %}
{%- endif %}
{%- for document in documents or [] %}
    {{- '[%d] %s: %s\n' % (loop.index, document.title, document.text) }}
{%- endfor %}
{{- 'Today is ' + strftime_now('%Y') | length | string + ' digits long.\n' }}
{%- for message in messages %}
    {%- if message.role == 'note' %}{% break %}{% endif %}
    {{- message.role | upper + ': ' }}
    {%- if message.content is string %}
        {{- message.content }}
    {%- elif message.content is sequence %}
        {%- for part in message.content %}
            {{- part.text if part.type == 'text' else '<' ~ part.type ~ '>' }}
        {%- endfor %}
    {%- endif %}
    {%- generation %}
    {%- for call in message.tool_calls or [] %}
        {{- '\nCALL ' + call.function.name + call.function.arguments | tojson(indent=2) }}
    {%- endfor %}
    {%- endgeneration %}
    {{- eos_token + '\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ 'ASSISTANT: ' }}
    {%- if not enable_thinking | default(true) %}{{ '<think></think>' }}{% endif %}
{%- endif %}""",
}

_HELLO = {"role": "user", "content": "Hello!"}
_SYSTEM = {"role": "system", "content": "You are brief."}
_ANSWER = {"role": "assistant", "content": "Hi, how can I help?"}
_MORE = {"role": "user", "content": "  Spaces  and\nlines \t"}
_TOOL: dict[str, Any] = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"properties": {"ort": {"type": "string"}}}},
}
_CALL = {
    "role": "assistant",
    "content": None,
    "tool_calls": [{"function": {"name": "weather", "arguments": {"ort": "Köln <é>"}}}],
}

# Name, messages, and options of the rendering.
CONVERSATIONS: list[tuple[str, list[dict[str, Any]], dict[str, Any]]] = [
    ("one", [_HELLO], {}),
    ("system", [_SYSTEM, _HELLO, _ANSWER, _MORE], {}),
    ("turns", [_HELLO, _ANSWER, _MORE, {"role": "assistant", "content": " ja "}, _HELLO], {}),
    ("scripts", [{"role": "user", "content": "日本語 <b>&'\" 😀 العربية {{ 7 * 7 }}"}], {}),
    ("no prompt", [_HELLO, _ANSWER], {"add_generation_prompt": False}),
    ("continued", [_HELLO, {"role": "assistant", "content": "Well, I"}],
     {"continue_final_message": True}),
    ("continued after a space", [_HELLO, {"role": "assistant", "content": "Well, "}],
     {"continue_final_message": True}),
    ("wrong order", [_ANSWER, _ANSWER], {}),
    ("empty", [{"role": "user", "content": ""}], {}),
    ("tools", [_HELLO, _CALL, {"role": "tool", "content": "18°"}], {"tools": [_TOOL]}),
    ("documents", [_HELLO], {"documents": [{"title": "a", "text": "b"}]}),
    ("parts", [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what?"}]}],
     {}),
    ("no thinking", [_HELLO], {"variables": {"enable_thinking": False}}),
]  # fmt: skip
