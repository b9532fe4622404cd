// How chats are written for decoders alone, where a template need not be understood to the letter: its format
// is told by the tokens in it.
#pragma once
#include <stdbool.h>

typedef struct ChatFormat {
    const char *name;
    const char *mark;                              // what templates of this format contain
    const char *before_role, *before_text, *after; // of a message
    const char *stop;                              // the token that ends an answer
    bool trims;                                    // white space around a text goes
} ChatFormat;

extern const ChatFormat chat_ml; // the one that models are trained with

// The format whose mark stands in the text; NULL when there is none.
const ChatFormat *chat_format_find(const char *template_text);
// All of them with their marks, for messages: "ChatML (with <|im_start|>), …".
const char *chat_format_list(void);
