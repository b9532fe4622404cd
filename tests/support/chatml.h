// nanoVLM's default chat template, as tests pass it.
#pragma once

#define CHATML                                                                                               \
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "         \
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% "      \
    "endif %}"
