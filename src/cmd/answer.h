// One answer while it comes: its tokens and text, printed as whole characters, and what it cost.
#pragma once
#include "cmd/generate_flags.h"

typedef struct Answer {
    Int32Vec ids;       // without the token that ended it
    CharVec text;       // bytes; cut at a --stop text
    const char *finish; // "stop" (end of turn), "stop_text", "length" or "interrupted"
    size_t prompt_tokens, printed;
    double prefill_seconds, decode_seconds, vision_seconds; // vision is a part of prefill
    VEC(float) logits; // [ids, V] that each token was chosen by; only with --logits_out
    // while it comes
    const Session *session;
    const GenerateFlags *flags;
    const Generation *generation;
    bool echo; // print to stdout
} Answer;

// Answers the prompt: in a cache that begins anew, or behind what is there. limit: most new tokens.
bool answer_run(Answer *a, Generation *g, const Prompt *prompt, bool follows, size_t limit,
                uint64_t seed_offset, Error *err);
void answer_init(Answer *a, const Session *s, const GenerateFlags *f, bool echo);
void answer_free(Answer *a);
json_t *answer_json(const Answer *a); // new reference
// The fields that every kind of answer has; invalid UTF-8 becomes U+FFFD, as in what is printed.
json_t *answer_fields(const Int32Vec *ids, const CharVec *text, size_t prompt_tokens, const char *finish);
// What is printed behind an answer's text: the end of its line, or with --json the object instead, whose
// reference is given up (NULL without); with --verbose speeds and memory.
void answer_end(const Answer *a, const Generation *g, json_t *object);
bool answer_write_logits(const Answer *a, const char *path, Error *err);

// Appends a token's bytes to text and looks for the stop texts: true when one is there, and text is cut
// before it.
bool answer_append(CharVec *text, const Tokenizer *t, int32_t id, const StringList *stops);
// How much of text may be shown: whole characters, and nothing that may become a stop text.
size_t answer_settled(const CharVec *text, const StringList *stops);
// Set by whoever wants the answer in work to end.
void answer_interrupt(bool stop);
