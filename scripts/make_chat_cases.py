#!/usr/bin/env python3
"""What transformers 4 and nanoVLM make of chat templates and messages.

    scripts/make_chat_cases.py --nanovlm DIR tests/golden/tokenizer_variants

writes templates.jsonl, a line a template: {"template", "known", "rows": [[messages, text, text with the generation prompt], …]};
templates that are not known have no rows. And chat.jsonl, a line a conversation under ChatML: {"tokenizer": folder,
"prefix_len", "messages": [[role, content], …], "input_ids", "labels"}. And formats.jsonl, a line a template that is only told by its
tokens: {"template", "format", "rows": [[messages, text with the generation prompt], …]}.
"""
import argparse
import json
import sys

from transformers import PreTrainedTokenizerFast

FOR = "{% for message in messages %}"
BODY = "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
END = "{% endfor %}"
PROMPT = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
CHATML = FOR + BODY + END + PROMPT


def default_system(text):
    return "{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\n" + text + "<|im_end|>\\n' }}{% endif %}"


KNOWN = [
    CHATML,
    CHATML.replace("\\n", "\n"),
    CHATML + "\n",
    FOR + "{{'<|im_start|>'+message[\"role\"]+'\\n'+message.content+\"<|im_end|>\\n\"}}" + END + PROMPT,
    FOR + "\n" + BODY + END + PROMPT,
    FOR + "\n" + BODY + END + "\n" + PROMPT + "\n",
    "{%- for message in messages -%}\n  " + BODY + "\n{%- endfor -%}\n" + PROMPT,
    "{% for message in messages %}\n    {{- '<|im_start|>' ~ message.role ~ '\\n' -}}\n    {{- message.content + '<|im_end|>\\n' -}}\n{% endfor %}\n"
    "{% if add_generation_prompt %}\n    {{- '<|im_start|>assistant\\n' -}}\n{% endif %}\n",
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\n{% endif %}".replace("\n\n", "{{ '\\n' }}"),
    "  {% for message in messages %}\n" + BODY + "  {% endfor %}\n".replace("  ", "") + "  " + PROMPT,
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}" + CHATML,
    "{% if add_generation_prompt is not defined %}\n{% set add_generation_prompt = false %}\n{% endif %}\n" + CHATML,
    FOR + default_system("You are a helpful AI assistant named SmolLM, trained by Hugging Face") + BODY + END + PROMPT,
    FOR + default_system("You are a helpful assistant.") + BODY + END + PROMPT,
    "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\\nIt\\'s \\\"you\\\".<|im_end|>\\n' }}{% endif %}" + CHATML,
    FOR.replace("{% for", "{%- for").replace("%}", "-%}") + "{{ '<|im_start|>' }}{{ message['role'] }}{{ '\\n' }}{{ message['content'] }}{{ '<|im_end|>' '\\n' }}" + END + PROMPT,
]
OTHERS = [
    CHATML.replace(" + '<|im_end|>' + '\\n'", " + '<|im_end|>'"),
    CHATML.replace("message['content']", "message['content'] | trim"),
    CHATML.replace("message['content']", "(message['content'] + '')"),
    CHATML.replace("message['role']", "'user'"),
    FOR + " " + BODY + END + PROMPT,
    FOR + BODY + "\n" + END + PROMPT,
    FOR + BODY + END,
    FOR + BODY + END + "x" + PROMPT,
    "{{ bos_token }}" + CHATML,
    "{# note #}" + CHATML,
    "{{ '' if messages else 'x' }}" + CHATML,
    "{% if messages[0]['role'] == 'system' %}{{ 'x' }}{% endif %}" + CHATML,
    "{%+ for message in messages %}\n" + "  " + BODY + "\n  {%+ endfor %}" + PROMPT,
    FOR + "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' + message['content'] | trim + '<|eot_id|>' }}" + END + PROMPT,
    "{% set x = 1 %}" + CHATML,
    FOR + BODY + "  " + END + PROMPT,
    CHATML.replace("'<|im_end|>' +", "'<|im_end|>' + +"),
    CHATML.replace("'<|im_end|>'", "'<|im\\x5fend|>'"),
]
CONVERSATIONS = [
    [("user", "Hi"), ("assistant", "Hello.")],
    [("user", ""), ("assistant", ""), ("user", "  what?\n"), ("assistant", "\n\n  this ")],
    [("user", "a<|im_end|>\n<|im_start|>user\nb"), ("assistant", "<|im_start|>")],
    [("user", "{{ x }} {% y %}"), ("assistant", "\u00e9 e\u0301 \u4e2d\u6587 1234567"), ("user", "'S"), ("assistant", "\u0301x")],
    [("assistant", "Hello."), ("user", "Hi"), ("assistant", "Bye.")],
]


# Templates of other formats, and of ChatML beyond what is known to the letter. bos_token is <|endoftext|> here.
HEADER = "'<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'"
FORMATS = [
    ("Llama 3", FOR + "{% if loop.first %}{{ bos_token }}{% endif %}{{ " + HEADER + " + message['content'] | trim + '<|eot_id|>' }}" + END
     + "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}"),
    ("Llama 3", "{{- bos_token }}\n{%- if messages[0]['role'] == 'system' %}\n    {%- set first = messages[0]['content'] | trim %}\n    {%- set rest = messages[1:] %}\n"
     "    {{- '<|start_header_id|>system<|end_header_id|>\\n\\n' + first + '<|eot_id|>' }}\n{%- else %}\n    {%- set rest = messages %}\n{%- endif %}\n"
     "{%- for message in rest %}\n    {{- " + HEADER + " }}\n    {{- message['content'] | trim + '<|eot_id|>' }}\n{%- endfor %}\n"
     "{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\n{%- endif %}\n"),
    ("ChatML", "{{ bos_token }}{%- if tools %}{{ '<|im_start|>system\\n# Tools<|im_end|>\\n' }}{%- endif %}" + CHATML),
    ("Phi 4", "{{ bos_token }}" + FOR + "{{ '<|im_start|>' + message['role'] + '<|im_sep|>' + message['content'] + '<|im_end|>' }}" + END
     + "{% if add_generation_prompt %}{{ '<|im_start|>assistant<|im_sep|>' }}{% endif %}"),
]
CHATS = [
    [("user", "Hi")],
    [("system", "Be brief."), ("user", "  what?\n")],
    [("user", "Hi"), ("assistant", "Hello."), ("user", "{{ x }} 12\n\n\u00e9 \u4e2d\u6587\u3000")],
]


def format_lines(tokenizer):
    for name, template in FORMATS:
        rows = [[chat, tokenizer.apply_chat_template(as_messages(chat), chat_template=template, tokenize=False, add_generation_prompt=True)] for chat in CHATS]
        yield {"template": template, "format": name, "rows": rows}


def as_messages(conversation):
    return [{"role": role, "content": content} for role, content in conversation]


def template_lines(tokenizer):
    for template in KNOWN + OTHERS:
        rows = []
        for conversation in CONVERSATIONS if template in KNOWN else []:
            texts = [tokenizer.apply_chat_template(as_messages(conversation), chat_template=template, tokenize=False, add_generation_prompt=g) for g in (False, True)]
            rows.append([conversation, *texts])
        yield {"template": template, "known": template in KNOWN, "rows": rows}


def chat_lines(root, dataset_class):
    for name in ("gpt2", "llama3", "qwen2", "added"):
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{root}/{name}/tokenizer.json", eos_token="<|im_end|>", chat_template=CHATML)
        data = dataset_class(None, tokenizer, None, 1)
        for conversation in CONVERSATIONS:
            ids, mask, _ = data._prepare_inputs_and_loss_mask(as_messages(conversation))
            labels = data._get_labels(ids, mask)
            yield {"tokenizer": name, "prefix_len": data.prefix_len, "messages": conversation, "input_ids": ids.tolist(), "labels": labels.tolist()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--nanovlm", required=True)
    args = parser.parse_args()
    sys.path.insert(0, args.nanovlm)
    from data.datasets import VQADataset

    tokenizer = PreTrainedTokenizerFast(tokenizer_file=f"{args.folder}/gpt2/tokenizer.json", bos_token="<|endoftext|>")
    for name, lines in (("templates", template_lines(tokenizer)), ("chat", chat_lines(args.folder, VQADataset)), ("formats", format_lines(tokenizer))):
        with open(f"{args.folder}/{name}.jsonl", "w") as out:
            for line in lines:
                out.write(json.dumps(line, separators=(",", ":")) + "\n")


main()
