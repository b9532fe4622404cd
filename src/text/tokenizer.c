#include "text/tokenizer_parts.h"
#include "text/unicode.h"

void tokenizer_free(Tokenizer *t) {
    if (!t) return;
    for (size_t i = 0; i < t->extra.count; i++) {
        free(t->extra.items[i].name);
        free(t->extra.items[i].text);
    }
    vec_free(&t->extra);
    free(t->chat_template);
    added_tokens_free(&t->added[0]);
    added_tokens_free(&t->added[1]);
    pretokenizer_free(&t->pretokenizer);
    bpe_free(&t->bpe);
    vocab_free(&t->vocab);
    free(t);
}

size_t tokenizer_vocab_size(const Tokenizer *t) {
    return t->vocab.tokens.count;
}
int32_t tokenizer_token_id(const Tokenizer *t, const char *token) {
    return vocab_find(&t->vocab, token, strlen(token));
}
int32_t tokenizer_eos_id(const Tokenizer *t) {
    return t->eos_id;
}

const char *tokenizer_chat_template(const Tokenizer *t) {
    return t->chat_template;
}
size_t tokenizer_tokens_around(const Tokenizer *t) {
    return t->n_tokens_around;
}
int32_t tokenizer_first_id(const Tokenizer *t) {
    return t->first_id;
}
bool tokenizer_cuts_before(const Tokenizer *t, const char *token, char before) {
    return added_tokens_cut_before(&t->added[0], token, before);
}

static const ExtraToken *find_extra(const Tokenizer *t, const char *name) {
    for (size_t i = 0; i < t->extra.count; i++)
        if (strcmp(t->extra.items[i].name, name) == 0) return &t->extra.items[i];
    return NULL;
}

int32_t tokenizer_extra_id(const Tokenizer *t, const char *name) {
    const ExtraToken *extra = find_extra(t, name);
    return extra ? extra->id : -1;
}

const char *tokenizer_extra_text(const Tokenizer *t, const char *name) {
    const ExtraToken *extra = find_extra(t, name);
    return extra ? extra->text : NULL;
}

typedef struct Encoding {
    const Tokenizer *tokenizer;
    BpeScratch scratch;
    CharVec normal; // normalised text
    Int32Vec *ids;
} Encoding;

static void encode_piece(void *context, const char *piece, size_t size) {
    Encoding *e = context;
    bpe_encode(&e->tokenizer->bpe, piece, size, &e->scratch, e->ids);
}

// Cuts out the added tokens of this pass and those behind it, and encodes what is between them. A token may
// begin in the white space that the one before it has swallowed; as in the library, both are then given out.
static void encode_valid(Encoding *e, size_t pass, const char *text, size_t size);

static void encode_between(Encoding *e, size_t pass, const char *text, size_t size) {
    const size_t start = e->normal.count;
    if (pass == 0 && normalizer_run(&e->tokenizer->normalizer, text, size, &e->normal)) {
        text = e->normal.items + start;
        size = e->normal.count - start;
    }
    encode_valid(e, pass + 1, text, size);
    e->normal.count = start;
}

static void encode_valid(Encoding *e, size_t pass, const char *text, size_t size) {
    if (pass == 2) {
        pretokenizer_run(&e->tokenizer->pretokenizer, text, size, encode_piece, e);
        return;
    }
    size_t at = 0;
    AddedMatch match = {0};
    while (added_tokens_next(&e->tokenizer->added[pass], text, size, &match)) {
        if (match.begin > at) encode_between(e, pass, text + at, match.begin - at);
        vec_push(e->ids, match.id);
        at = match.end;
    }
    if (at < size) encode_between(e, pass, text + at, size - at);
}

void tokenizer_encode(const Tokenizer *t, const char *text, size_t size, Int32Vec *ids) {
    Encoding e = {.tokenizer = t, .ids = ids};
    while (size > 0) {
        const size_t valid = utf8_valid_prefix(text, size);
        encode_valid(&e, 0, text, valid);
        text += valid, size -= valid;
        if (size == 0) break;
        bpe_encode(&t->bpe, text, 1, &e.scratch, ids);
        text++, size--;
    }
    bpe_scratch_free(&e.scratch);
    vec_free(&e.normal);
}

// A token's characters stand for bytes; one with a character outside the alphabet stands for itself.
static void append_token_bytes(CharVec *out, const char *text, size_t size) {
    const size_t start = out->count;
    for (size_t at = 0; at < size;) {
        const Utf8Char c = utf8_decode(text + at, size - at);
        const int byte = alphabet_to_byte(c.code_point);
        if (byte < 0) {
            out->count = start;
            vec_extend(out, text, size);
            return;
        }
        vec_push(out, (char)byte);
        at += c.size;
    }
}

void tokenizer_decode_bytes(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                            CharVec *out) {
    for (size_t i = 0; i < n; i++) {
        const VocabToken *token = vocab_token(&t->vocab, ids[i]);
        if (!token || (skip_special && token->special)) continue;
        append_token_bytes(out, t->vocab.texts.items + token->offset, token->size);
    }
}

static void replace_all(CharVec *text, const char *from, const char *to) {
    const size_t n_from = strlen(from), n_to = strlen(to);
    size_t kept = 0;
    for (size_t at = 0; at < text->count;) {
        const bool found = text->count - at >= n_from && memcmp(text->items + at, from, n_from) == 0;
        if (found) {
            memcpy(text->items + kept, to, n_to); // never longer than what it replaces
            kept += n_to, at += n_from;
        } else {
            text->items[kept++] = text->items[at++];
        }
    }
    text->count = kept;
}

// transformers' clean_up_tokenization: one replacement after the other.
static void clean_up_spaces(CharVec *text) {
    static const char *const pairs[][2] = {{" .", "."},     {" ?", "?"},     {" !", "!"},   {" ,", ","},
                                           {" ' ", "'"},    {" n't", "n't"}, {" 'm", "'m"}, {" 's", "'s"},
                                           {" 've", "'ve"}, {" 're", "'re"}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) replace_all(text, pairs[i][0], pairs[i][1]);
}

char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special) {
    CharVec bytes = {0}, text = {0};
    tokenizer_decode_bytes(t, ids, n, skip_special, &bytes);
    utf8_append_lossy(&text, bytes.items, bytes.count);
    if (t->clean_up_spaces) clean_up_spaces(&text);
    vec_push(&text, '\0');
    vec_free(&bytes);
    return text.items;
}
