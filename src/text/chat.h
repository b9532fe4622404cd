// From messages to tokens: ChatML, the loss mask, the image string (nanoVLM: data/datasets.py,
// data/processors.py).
#pragma once
#include "text/chat_format.h"
#include "text/tokenizer.h"

typedef struct ChatMessage {
    const char *role; // "user" or "assistant"
    const char *content;
    size_t size; // bytes of content
} ChatMessage;

#define CHAT_MAX_SYSTEM 1024
typedef struct ChatTemplate {
    const Tokenizer *tokenizer; // borrowed
    const ChatFormat *format;
    bool by_mark; // the template was not understood, only what format it is in
    // The token in front of a conversation, and of a text without a template; -1: none.
    int32_t first_id, first_plain_id;
    // Tokens masked in every assistant message: those of "<|im_start|>assistant\n" alone, counted as nanoVLM
    // does, with what the tokenizer puts around a text (Llama 3: one token in front).
    size_t prefix_len;
    char system[CHAT_MAX_SYSTEM]; // put before the first message; mostly empty
    size_t system_size, system_tokens;
    bool cuts_messages; // no token reaches over the border of two messages
} ChatTemplate;

// Recognises the template text (VLMConfig.lm_chat_template); where it is NULL or empty, the tokenizer's own.
// Known is ChatML, alone or with a default system message (src/text/chat_template.h); another one is an
// error.
bool chat_template_init(ChatTemplate *c, const Tokenizer *tokenizer, const char *template_text, Error *err);
// For a model that only answers, from the tokenizer's own template: where that is not understood, the format
// whose mark it contains (text/chat_format.h), which leaves out default system messages, dates and tools. An
// error when there is none, or the tokenizer lacks its tokens.
bool chat_template_init_alone(ChatTemplate *c, const Tokenizer *tokenizer, Error *err);
// Appends the ids of all messages to ids and the labels to labels: shifted left by one, IGNORE_INDEX where
// not trained, the last one IGNORE_INDEX.
void chat_encode_training(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids,
                          Int32Vec *labels);
// Appends the ids of the messages followed by the header of an answer, "<|im_start|>assistant\n". A first
// message of the role "system" takes the place of the template's own.
void chat_encode_prompt(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids);

// Appends what follows an answer that has not been closed: "<|im_end|>\n", the message and the header of the
// next answer.
void chat_encode_turn(const ChatTemplate *c, const ChatMessage *message, Int32Vec *ids);

// Whether the tokenizer keeps the image token whole: several in a row give as many ids of it. An error else.
bool chat_check_image_token(const Tokenizer *t, Error *err);

// How a picture was split: its grid of tiles; a grid of more than one tile has a global tile in front of it.
typedef struct ImageGrid {
    size_t rows, cols;
} ImageGrid;
// nanoVLM's get_image_string, appended to out; mp_image_token_length image tokens a tile. A grid beyond the
// row/column tokens that exist is an error.
bool chat_image_string(CharVec *out, const Tokenizer *t, const ImageGrid *grids, size_t n,
                       size_t mp_image_token_length, Error *err);
