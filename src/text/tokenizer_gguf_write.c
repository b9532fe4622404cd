#include "text/tokenizer_gguf_write.h"
#include "base/memory.h"
#include "text/tokenizer_parts.h"

#include <stdio.h>

#define KEY(name) "tokenizer.ggml." name

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 };

// ---- the pre-tokenizer's name ----

// Steps of tokenizer.json, for names as in llama.cpp; a name is right when all steps are those of the row.
static const struct {
    const char *name;
    size_t count, max_numbers;
    PreTokenizerKind kinds[2];
    bool ignore_merges, nfc;
} pre_names[] = {
    {"smollm", 2, 0, {PRETOKENIZER_DIGITS, PRETOKENIZER_GPT2}, false, false},
    {"gpt-2", 1, 0, {PRETOKENIZER_GPT2}, false, false},
    {"llama-bpe", 1, 3, {PRETOKENIZER_LLAMA3}, true, false},
    {"dbrx", 1, 3, {PRETOKENIZER_LLAMA3}, false, false},
    {"qwen2", 1, 1, {PRETOKENIZER_LLAMA3}, false, false},
    {"qwen2", 1, 1, {PRETOKENIZER_LLAMA3}, false, true},
};

static bool is_step(const PreTokenizerStep *step, PreTokenizerKind kind, size_t max_numbers) {
    if (step->kind != kind) return false;
    if (kind == PRETOKENIZER_DIGITS) return step->single;
    return kind != PRETOKENIZER_LLAMA3 || step->max_numbers == max_numbers;
}

static const char *pre_name(const Tokenizer *t) {
    for (size_t i = 0; i < sizeof pre_names / sizeof *pre_names; i++) {
        bool same = t->pretokenizer.count == pre_names[i].count && t->normalizer.nfc == pre_names[i].nfc &&
                    t->bpe.ignore_merges == pre_names[i].ignore_merges;
        for (size_t j = 0; same && j < pre_names[i].count; j++)
            same = is_step(&t->pretokenizer.steps[j], pre_names[i].kinds[j], pre_names[i].max_numbers);
        if (same) return pre_names[i].name;
    }
    return NULL;
}

// ---- tokens ----

static bool is_added(const Tokenizer *t, int32_t id) {
    for (int list = 0; list < 2; list++)
        for (size_t i = 0; i < t->added[list].tokens.count; i++)
            if (t->added[list].tokens.items[i].id == id) return true;
    return false;
}

static void put_tokens(const Tokenizer *t, GgufMetadata *m, size_t rows, const GgufToken *changes, size_t n) {
    GgufString *texts = mem_zeroed(rows, sizeof *texts);
    int32_t *types = mem_zeroed(rows, sizeof *types);
    CharVec unused = {0};
    vec_reserve(&unused, rows * 16); // texts borrow from it: it must not move
    for (size_t i = 0; i < rows; i++) {
        const VocabToken *token = vocab_token(&t->vocab, (int64_t)i);
        if (token) {
            texts[i] = (GgufString){t->vocab.texts.items + token->offset, token->size};
            types[i] = !is_added(t, (int32_t)i) ? TYPE_NORMAL
                       : token->special         ? TYPE_CONTROL
                                                : TYPE_USER_DEFINED;
        } else {
            char text[16];
            const size_t size = (size_t)snprintf(text, sizeof text, "[PAD%zu]", i);
            texts[i] = (GgufString){unused.items + unused.count, size};
            vec_extend(&unused, text, size);
            types[i] = TYPE_UNUSED;
        }
    }
    for (size_t i = 0; i < n; i++) {
        texts[changes[i].id] = (GgufString){changes[i].text, strlen(changes[i].text)};
        types[changes[i].id] = changes[i].control ? TYPE_CONTROL : TYPE_NORMAL;
    }
    gguf_put_strings(m, KEY("tokens"), texts, rows);
    gguf_put_i32s(m, KEY("token_type"), types, rows);
    vec_free(&unused);
    free(texts);
    free(types);
}

// ---- merges ----

static int compare_merges(const void *a, const void *b) {
    const uint32_t x = ((const BpeMerge *)a)->rank, y = ((const BpeMerge *)b)->rank;
    return x < y ? -1 : x > y;
}

static void append_token(CharVec *text, const Vocab *v, int32_t id) {
    const VocabToken *token = vocab_token(v, id);
    vec_extend(text, v->texts.items + token->offset, token->size);
}

static void put_merges(const Tokenizer *t, GgufMetadata *m) {
    VEC(BpeMerge) merges = {0};
    for (size_t i = 0; i < t->bpe.n_slots; i++)
        if (t->bpe.slots[i].pair != BPE_NO_PAIR) vec_push(&merges, t->bpe.slots[i]);
    if (merges.count) qsort(merges.items, merges.count, sizeof *merges.items, compare_merges);
    GgufString *texts = mem_zeroed(merges.count + 1, sizeof *texts);
    CharVec joined = {0};
    for (size_t i = 0; i < merges.count; i++) {
        const size_t begin = joined.count;
        append_token(&joined, &t->vocab, (int32_t)(merges.items[i].pair >> 32));
        vec_push(&joined, ' ');
        append_token(&joined, &t->vocab, (int32_t)(uint32_t)merges.items[i].pair);
        texts[i].size = joined.count - begin;
    }
    for (size_t i = 0, at = 0; i < merges.count; at += texts[i++].size) texts[i].text = joined.items + at;
    gguf_put_strings(m, KEY("merges"), texts, merges.count);
    free(texts);
    vec_free(&joined);
    vec_free(&merges);
}

bool tokenizer_put_gguf(const Tokenizer *t, GgufMetadata *m, size_t rows, const GgufToken *changes,
                        size_t n_changes, const char *chat_template, Error *err) {
    const char *pre = pre_name(t);
    if (!pre)
        return error_set(err,
                         "the tokenizer's pre_tokenizer is none that llama.cpp has a name for (known here "
                         "are those of SmolLM2, GPT-2, Llama 3 and Qwen 2): it cannot be exported to gguf");
    gguf_put_string(m, KEY("model"), "gpt2");
    gguf_put_string(m, KEY("pre"), pre);
    put_tokens(t, m, rows, changes, n_changes);
    put_merges(t, m);
    gguf_put_u32(m, KEY("eos_token_id"), (uint32_t)t->eos_id);
    gguf_put_u32(m, KEY("padding_token_id"), (uint32_t)t->eos_id);
    gguf_put_bool(m, KEY("add_bos_token"), false);
    gguf_put_bool(m, KEY("add_eos_token"), false);
    gguf_put_bool(m, KEY("add_space_prefix"), false);
    gguf_put_string(m, "tokenizer.chat_template", chat_template);
    return true;
}
