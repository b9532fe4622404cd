// Tokenizers out of GGUF files: tokens, their types and merges stand in the metadata; the pre-tokenizer is
// only named there, so that the steps behind each name are a table here.
#include "base/memory.h"
#include "format/gguf.h"
#include "text/tokenizer_parts.h"
#include "text/unicode.h"

#include <jansson.h>

#define KEY(name) "tokenizer.ggml." name

// The numbers of tokenizer.ggml.token_type. Of the others, the normal tokens (1), the unused ones that fill
// up the ids (5) and bytes (6) are found by merging only.
enum { TOKEN_UNKNOWN = 2, TOKEN_CONTROL = 3, TOKEN_USER_DEFINED = 4, TOKEN_LAST = 6 };

// ---- pre-tokenizers ----

#define GPT2_PATTERN "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
// The pattern of Llama 3 and Qwen 2, which differ in how long a number may be.
#define WORD_PATTERN(numbers)                                                                                \
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" numbers                                    \
    "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define LLAMA3_PATTERN WORD_PATTERN("\\p{N}{1,3}")
#define QWEN2_PATTERN  WORD_PATTERN("\\p{N}")

// Steps as in tokenizer.json, for names as in llama.cpp (llama-vocab.cpp): single digits are cut out, then
// the matches of each pattern, then the pieces of GPT-2's pattern.
typedef struct PreName {
    const char *name;
    bool digits;
    const char *patterns[4];
    bool gpt2;
    bool ignore_merges; // a piece that is a token is taken whole
} PreName;

static const PreName pre_names[] = {
    {"smollm", true, {NULL}, true, false},
    {"starcoder", true, {NULL}, true, false},
    {"refact", true, {NULL}, true, false},
    {"codeshell", true, {NULL}, true, false},
    {"gpt-2", false, {NULL}, true, false},
    {"phi-2", false, {NULL}, true, false},
    {"mpt", false, {NULL}, true, false},
    {"olmo", false, {NULL}, true, false},
    {"llama-bpe", false, {LLAMA3_PATTERN}, false, true},
    {"llama3", false, {LLAMA3_PATTERN}, false, true},
    {"llama-v3", false, {LLAMA3_PATTERN}, false, true},
    {"dbrx", false, {LLAMA3_PATTERN}, false, false},
    {"smaug-bpe", false, {LLAMA3_PATTERN}, false, false},
    {"qwen2", false, {QWEN2_PATTERN}, false, false}, // without its NFC, as in llama.cpp
    {"stablelm2", false, {QWEN2_PATTERN}, false, false},
    {"default", // what llama.cpp does for want of a better one
     false,
     {"[\\p{P}\\$\\+<=>\\^~\\|]+", GPT2_PATTERN, "\\p{N}+", "[0-9][0-9][0-9]"},
     false,
     false},
};
#define N_PRE_NAMES  (sizeof pre_names / sizeof *pre_names)
#define MAX_PATTERNS (sizeof pre_names->patterns / sizeof *pre_names->patterns)

// The object pre_tokenizer of tokenizer.json that does the same; new reference.
static json_t *steps_of(const PreName *pre) {
    json_t *steps = json_array();
    if (pre->digits)
        json_array_append_new(steps, json_pack("{s:s, s:b}", "type", "Digits", "individual_digits", 1));
    for (size_t i = 0; i < MAX_PATTERNS && pre->patterns[i]; i++)
        json_array_append_new(steps,
                              json_pack("{s:s, s:{s:s}, s:s, s:b}", "type", "Split", "pattern", "Regex",
                                        pre->patterns[i], "behavior", "Isolated", "invert", 0));
    json_array_append_new(steps, json_pack("{s:s, s:b, s:b}", "type", "ByteLevel", "add_prefix_space", 0,
                                           "use_regex", pre->gpt2));
    return json_pack("{s:s, s:o}", "type", "Sequence", "pretokenizers", steps);
}

static const PreName *find_pre(GgufString name) {
    for (size_t i = 0; i < N_PRE_NAMES; i++)
        if (gguf_string_is(name, pre_names[i].name)) return &pre_names[i];
    return NULL;
}

static bool load_pre(Tokenizer *t, const Gguf *g, const PreName **used, Error *err) {
    GgufString name;
    if (!gguf_get_string(g, KEY("pre"), &name, err)) return false;
    const PreName *pre = find_pre(name);
    if (!pre) {
        CharVec known = {0};
        for (size_t i = 0; i < N_PRE_NAMES; i++) {
            vec_extend(&known, ", ", i ? 2u : 0u);
            vec_extend(&known, pre_names[i].name, strlen(pre_names[i].name));
        }
        error_set(
            err, "%s: field " KEY("pre") " is \"%.*s\", expected one of %.*s; give a tokenizer.json instead",
            gguf_path(g), name.size < 64 ? (int)name.size : 64, name.text, (int)known.count, known.items);
        vec_free(&known);
        return false;
    }
    *used = pre;
    json_t *steps = steps_of(pre);
    const bool ok = pretokenizer_load(&t->pretokenizer, steps, err);
    json_decref(steps);
    return ok;
}

// ---- tokens ----

static bool load_token(Tokenizer *t, GgufString token, int64_t type, size_t id, CharVec *text, Error *err) {
    vec_clear(text);
    vec_extend(text, token.text, token.size);
    vec_push(text, '\0');
    if (utf8_valid_prefix(text->items, token.size) < token.size) return error_set(err, "not UTF-8");
    const int32_t present = vocab_find(&t->vocab, text->items, token.size);
    if (present >= 0) return error_set(err, "\"%s\" is also the token of id %d", text->items, present);
    if (!vocab_add(&t->vocab, text->items, token.size, (int64_t)id, err)) return false;
    if (type < 1 || type > TOKEN_LAST)
        return error_set(err, "its token type is %lld, expected 1…%d", (long long)type, TOKEN_LAST);
    t->vocab.tokens.items[id].special = type == TOKEN_CONTROL || type == TOKEN_UNKNOWN;
    if (type >= TOKEN_UNKNOWN && type <= TOKEN_USER_DEFINED)
        added_tokens_insert(&t->added[0], text->items, token.size, (AddedToken){.id = (int32_t)id});
    return true;
}

static bool load_tokens(Tokenizer *t, const Gguf *g, Error *err) {
    GgufString *tokens = NULL;
    int64_t *types = NULL;
    size_t n, n_types;
    CharVec text = {0};
    bool ok = gguf_get_strings(g, KEY("tokens"), &tokens, &n, err) &&
              gguf_get_i64s(g, KEY("token_type"), &types, &n_types, err);
    if (ok && n != n_types)
        ok = error_set(err, "%s: field " KEY("token_type") " has %zu entries, " KEY("tokens") " has %zu",
                       gguf_path(g), n_types, n);
    for (size_t i = 0; ok && i < n; i++)
        ok = load_token(t, tokens[i], types[i], i, &text, err) ||
             error_prefix(err, "%s: field " KEY("tokens") "[%zu]", gguf_path(g), i);
    vec_free(&text);
    free(tokens);
    free(types);
    return ok;
}

// A merge is written as "left right"; the tokens of both and what becomes of them are in the vocabulary.
static bool load_merge(Tokenizer *t, GgufString merge, size_t rank, CharVec *joined, Error *err) {
    const char *space = memchr(merge.text, ' ', merge.size), *end = merge.text + merge.size;
    if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
        return error_set(err, "expected \"left right\"");
    const GgufString halves[2] = {{merge.text, (size_t)(space - merge.text)},
                                  {space + 1, (size_t)(end - space - 1)}};
    vec_clear(joined);
    vec_extend(joined, halves[0].text, halves[0].size);
    vec_extend(joined, halves[1].text, halves[1].size);
    const int32_t left = vocab_find(&t->vocab, halves[0].text, halves[0].size);
    const int32_t right = vocab_find(&t->vocab, halves[1].text, halves[1].size);
    const int32_t whole = vocab_find(&t->vocab, joined->items, joined->count);
    if (left < 0 || right < 0 || whole < 0)
        return error_set(err, "\"%.*s\", expected two tokens that together are one, too",
                         merge.size < 64 ? (int)merge.size : 64, merge.text);
    bpe_add_merge(&t->bpe, left, right, (uint32_t)rank, whole);
    return true;
}

static bool load_merges(Tokenizer *t, const Gguf *g, bool ignore_merges, Error *err) {
    GgufString *merges;
    size_t n;
    if (!gguf_get_strings(g, KEY("merges"), &merges, &n, err)) return false;
    bpe_init(&t->bpe, &t->vocab, n);
    t->bpe.ignore_merges = ignore_merges;
    CharVec joined = {0};
    bool ok = true;
    for (size_t i = 0; ok && i < n; i++)
        ok = load_merge(t, merges[i], i, &joined, err) ||
             error_prefix(err, "%s: field " KEY("merges") "[%zu]", gguf_path(g), i);
    if (ok) bpe_find_whole(&t->bpe);
    vec_free(&joined);
    free(merges);
    return ok;
}

static bool get_token(int32_t *id, const Tokenizer *t, const Gguf *g, const char *key, Error *err) {
    uint64_t value;
    if (!gguf_get_u64(g, key, &value, err)) return false;
    if (value >= tokenizer_vocab_size(t))
        return error_set(err, "%s: field %s is %llu, expected one of the %zu tokens", gguf_path(g), key,
                         (unsigned long long)value, tokenizer_vocab_size(t));
    *id = (int32_t)value;
    return true;
}

// All are optional; what llama.cpp would put around a text counts as what a post-processor does.
static bool load_extras(Tokenizer *t, const Gguf *g, const PreName *pre, Error *err) {
    static const char *const keys[] = {KEY("add_bos_token"), KEY("add_eos_token")};
    GgufString template;
    const GgufValue *v = gguf_find_value(g, "tokenizer.chat_template");
    bool add[2] = {pre->ignore_merges, false}; // Llama 3's has one in front
    if (v && gguf_value_string(v, &template)) t->chat_template = mem_strndup(template.text, template.size);
    for (size_t i = 0; i < 2; i++) {
        v = gguf_find_value(g, keys[i]);
        if (v) gguf_value_bool(v, &add[i]);
        t->n_tokens_around += add[i];
    }
    if (!add[0] || !gguf_find_value(g, KEY("bos_token_id"))) return true;
    return get_token(&t->first_id, t, g, KEY("bos_token_id"), err);
}

bool tokenizer_load_gguf(Tokenizer *t, const char *path, Error *err) {
    Gguf *g;
    GgufString model;
    const PreName *pre = NULL;
    if (!gguf_open(&g, path, err)) return false;
    bool ok = gguf_get_string(g, KEY("model"), &model, err);
    if (ok && !gguf_string_is(model, "gpt2"))
        ok = error_set(err,
                       "%s: field " KEY("model") " is \"%.*s\", expected \"gpt2\": only byte-level BPE is "
                                                 "supported",
                       path, model.size < 64 ? (int)model.size : 64, model.text);
    ok = ok && load_pre(t, g, &pre, err) && load_tokens(t, g, err) &&
         load_merges(t, g, pre->ignore_merges, err) &&
         get_token(&t->eos_id, t, g, KEY("eos_token_id"), err) && load_extras(t, g, pre, err);
    gguf_close(g);
    return ok;
}
