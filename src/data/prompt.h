// One question about pictures as the model sees it (nanoVLM, generate.py): the tiles of the pictures, and the
// tokens of a user message with the image string in front, up to "<|im_start|>assistant\n".
#pragma once
#include "data/picture.h"

typedef struct Prompt {
    Int32Vec ids;
    size_t n_tiles;
    float *tiles; // [n_tiles, 3, P, P]; NULL without pictures
} Prompt;

// How the text of a prompt goes in; zeroed: as one user message that begins a conversation.
typedef struct PromptForm {
    const char *system; // a message in front (NULL: the template's own); of no meaning with the others
    bool follows;       // behind an answer that has not been closed: the next turn of a chat
    bool plain;         // no template: pictures and text alone
} PromptForm;
bool prompt_build_form(Prompt *p, const VLMConfig *config, const ChatTemplate *chat, const Picture *pictures,
                       size_t n, const char *text, const PromptForm *form, Error *err);
// pictures: n of them, borrowed (0 is fine). Free with prompt_free.
bool prompt_build(Prompt *p, const VLMConfig *config, const ChatTemplate *chat, const Picture *pictures,
                  size_t n, const char *text, Error *err);
void prompt_free(Prompt *p);
