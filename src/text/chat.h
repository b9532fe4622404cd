// From messages to tokens: ChatML, the loss mask, the image string (nanoVLM: data/datasets.py,
// data/processors.py).
#pragma once
#include "text/tokenizer.h"

typedef struct ChatMessage {
    const char *role; // "user" or "assistant"
    const char *content;
    size_t size; // bytes of content
} ChatMessage;

typedef struct ChatTemplate {
    const Tokenizer *tokenizer; // borrowed
    size_t prefix_len; // tokens of "<|im_start|>assistant\n" alone: masked in every assistant message
} ChatTemplate;

// Recognises the ChatML template text (the default of VLMConfig.lm_chat_template, or NULL); another one is an
// error.
bool chat_template_init(ChatTemplate *c, const Tokenizer *tokenizer, const char *template_text, Error *err);
// Appends the ids of all messages to ids and the labels to labels: shifted left by one, IGNORE_INDEX where
// not trained, the last one IGNORE_INDEX.
void chat_encode_training(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids,
                          Int32Vec *labels);
// Appends the ids of the messages followed by "<|im_start|>assistant\n".
void chat_encode_prompt(const ChatTemplate *c, const ChatMessage *messages, size_t n, Int32Vec *ids);

// How a picture was split: its grid of tiles; a grid of more than one tile has a global tile in front of it.
typedef struct ImageGrid {
    size_t rows, cols;
} ImageGrid;
// nanoVLM's get_image_string, appended to out; mp_image_token_length image tokens a tile. A grid beyond the
// row/column tokens that exist is an error.
bool chat_image_string(CharVec *out, const Tokenizer *t, const ImageGrid *grids, size_t n,
                       size_t mp_image_token_length, Error *err);
