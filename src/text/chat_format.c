#include "text/chat_format.h"

#include <string.h>

const ChatFormat chat_ml = {"ChatML",       "<|im_start|>", "<|im_start|>", "\n",
                            "<|im_end|>\n", "<|im_end|>",   false};
static const ChatFormat llama_3 = {"Llama 3",
                                   "<|start_header_id|>",
                                   "<|start_header_id|>",
                                   "<|end_header_id|>\n\n",
                                   "<|eot_id|>",
                                   "<|eot_id|>",
                                   true};
static const ChatFormat phi_4 = {"Phi 4",      "<|im_sep|>", "<|im_start|>", "<|im_sep|>",
                                 "<|im_end|>", "<|im_end|>", false};

const ChatFormat *chat_format_find(const char *template_text) {
    static const ChatFormat *const formats[] = {&phi_4, &chat_ml, &llama_3}; // Phi's have both marks
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strstr(template_text, formats[i]->mark)) return formats[i];
    return NULL;
}

const char *chat_format_list(void) {
    return "ChatML (with <|im_start|>), Llama 3 (<|start_header_id|>), Phi 4 (<|im_sep|>)";
}
