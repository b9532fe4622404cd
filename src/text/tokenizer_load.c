#include "base/file.h"
#include "base/memory.h"
#include "format/gguf.h"
#include "text/tokenizer_parts.h"

#include <inttypes.h>
#include <jansson.h>

static bool is_empty(const json_t *value) {
    return !value || json_is_null(value) || json_is_false(value) ||
           (json_is_string(value) && json_string_length(value) == 0) ||
           (json_is_number(value) && json_number_value(value) == 0);
}

// The name of what stands in a field, for messages: its type, or its text.
static const char *describe(const json_t *value) {
    const char *type = json_string_value(json_is_object(value) ? json_object_get(value, "type") : value);
    return type ? type : json_is_object(value) ? "an object" : "a value";
}

// Fields that would change the ids in a way this tokenizer does not know: refused rather than passed over.
static bool check_unsupported(const json_t *root, Error *err) {
    static const char *const model_fields[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    const json_t *model = json_object_get(root, "model");
    if (!json_is_object(model)) return error_set(err, "field model: expected an object");
    const json_t *type = json_object_get(model, "type");
    if (type && strcmp(describe(type), "BPE") != 0)
        return error_set(err, "field model.type is %s, expected BPE", describe(type));
    for (size_t i = 0; i < sizeof model_fields / sizeof *model_fields; i++)
        if (!is_empty(json_object_get(model, model_fields[i])))
            return error_set(err, "field model.%s is not null: it is not supported", model_fields[i]);
    const char *decoder = describe(json_object_get(root, "decoder"));
    if (strcmp(decoder, "ByteLevel") != 0)
        return error_set(err, "field decoder is %s, expected one of type ByteLevel", decoder);
    return true;
}

static bool load_vocab(Tokenizer *t, const json_t *model, Error *err) {
    const json_t *vocab = json_object_get(model, "vocab");
    if (!json_is_object(vocab)) return error_set(err, "field model.vocab: expected an object of token: id");
    const char *text;
    json_t *id;
    json_object_foreach((json_t *)vocab, text, id) {
        if (!json_is_integer(id))
            return error_set(err, "field model.vocab: the id of \"%s\" is no integer", text);
        if (!vocab_add(&t->vocab, text, strlen(text), json_integer_value(id), err))
            return error_prefix(err, "field model.vocab");
    }
    return true;
}

// The halves of a merge: written as "left right", or as a pair ["left", "right"].
static bool split_merge(const json_t *merge, const char *halves[2], size_t sizes[2]) {
    if (json_array_size(merge) == 2) {
        for (size_t i = 0; i < 2; i++) {
            const json_t *half = json_array_get(merge, i);
            halves[i] = json_string_value(half);
            sizes[i] = json_string_length(half);
        }
        return halves[0] && halves[1];
    }
    const char *text = json_string_value(merge), *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' ')) return false;
    halves[0] = text, sizes[0] = (size_t)(space - text);
    halves[1] = space + 1, sizes[1] = strlen(space + 1);
    return true;
}

static bool load_merge(Tokenizer *t, const json_t *merge, size_t rank, CharVec *joined, Error *err) {
    const char *halves[2];
    size_t sizes[2];
    int32_t ids[2];
    if (!split_merge(merge, halves, sizes))
        return error_set(err, "expected \"left right\" or [\"left\", \"right\"]");
    vec_clear(joined);
    for (size_t i = 0; i < 2; i++) {
        ids[i] = vocab_find(&t->vocab, halves[i], sizes[i]);
        if (ids[i] < 0) return error_set(err, "\"%.*s\" is not in model.vocab", (int)sizes[i], halves[i]);
        vec_extend(joined, halves[i], sizes[i]);
    }
    const int32_t id = vocab_find(&t->vocab, joined->items, joined->count);
    if (id < 0) return error_set(err, "\"%.*s\" is not in model.vocab", (int)joined->count, joined->items);
    bpe_add_merge(&t->bpe, ids[0], ids[1], (uint32_t)rank, id);
    return true;
}

static bool load_bpe(Tokenizer *t, const json_t *model, Error *err) {
    const json_t *merges = json_object_get(model, "merges"), *unknown = json_object_get(model, "unk_token");
    if (!json_is_array(merges)) return error_set(err, "field model.merges: expected an array");
    bpe_init(&t->bpe, &t->vocab, json_array_size(merges));
    CharVec joined = {0};
    bool ok = true;
    for (size_t i = 0; i < json_array_size(merges) && ok; i++)
        ok = load_merge(t, json_array_get(merges, i), i, &joined, err) ||
             error_prefix(err, "field model.merges[%zu]", i);
    vec_free(&joined);
    if (!ok) return false;
    if (!is_empty(unknown)) {
        const char *text = json_string_value(unknown);
        t->bpe.unknown_id = text ? tokenizer_token_id(t, text) : -1;
        if (t->bpe.unknown_id < 0)
            return error_set(err, "field model.unk_token: expected a token of model.vocab");
    }
    t->bpe.fuse_unknown = json_is_true(json_object_get(model, "fuse_unk"));
    t->bpe.ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
    if (json_is_true(json_object_get(model, "byte_fallback"))) bpe_use_byte_fallback(&t->bpe);
    bpe_find_whole(&t->bpe);
    return true;
}

// Gives the token its id, an own one or the one it has, and has it found in raw text.
static bool add_token(Tokenizer *t, const char *text, size_t size, int64_t id, const json_t *json,
                      Error *err) {
    const int32_t present = vocab_find(&t->vocab, text, size);
    if (present < 0 && !vocab_add(&t->vocab, text, size, id, err)) return false;
    if (present >= 0 && present != id)
        return error_set(err, "\"%s\" has the id %" PRId64 ", but %" PRId32 " in model.vocab", text, id,
                         present);
    AddedToken token = {.id = (int32_t)id};
    token.strip_left = json_is_true(json_object_get(json, "lstrip"));
    token.strip_right = json_is_true(json_object_get(json, "rstrip"));
    token.single_word = json_is_true(json_object_get(json, "single_word"));
    const bool normalized = json_is_true(json_object_get(json, "normalized"));
    t->vocab.tokens.items[id].special |= !json || json_is_true(json_object_get(json, "special"));
    CharVec normal = {0};
    if (normalized && normalizer_run(&t->normalizer, text, size, &normal))
        added_tokens_insert(&t->added[1], normal.items, normal.count, token);
    else
        added_tokens_insert(&t->added[normalized], text, size, token);
    vec_free(&normal);
    return true;
}

static bool load_added_token(Tokenizer *t, const json_t *json, Error *err) {
    const json_t *content = json_object_get(json, "content"), *id = json_object_get(json, "id");
    if (!json_is_string(content)) return error_set(err, "content: expected a string");
    if (!json_is_integer(id)) return error_set(err, "id: expected an integer");
    return add_token(t, json_string_value(content), json_string_length(content), json_integer_value(id), json,
                     err);
}

static bool load_added_tokens(Tokenizer *t, const json_t *root, Error *err) {
    const json_t *added = json_object_get(root, "added_tokens");
    if (!is_empty(added) && !json_is_array(added))
        return error_set(err, "field added_tokens: expected an array");
    for (size_t i = 0; i < json_array_size(added); i++)
        if (!load_added_token(t, json_array_get(added, i), err))
            return error_prefix(err, "field added_tokens[%zu]", i);
    return true;
}

// A special token of a post-processor's template, which stands in front of the text or behind it.
static bool add_around(Tokenizer *t, const json_t *ids, bool in_front, Error *err) {
    t->n_tokens_around += json_array_size(ids);
    if (!in_front || t->first_id >= 0 || json_array_size(ids) == 0) return true;
    const json_int_t id = json_integer_value(json_array_get(ids, 0));
    if (!json_is_integer(json_array_get(ids, 0)) || id < 0 || (size_t)id >= tokenizer_vocab_size(t))
        return error_set(err, "a special token's id is none of the %zu tokens", tokenizer_vocab_size(t));
    t->first_id = (int32_t)id;
    return true;
}

// Looks up the tokens that a post-processor puts around a single text. nanoVLM's calls leave them out but for
// one, which only counts them (chat.h, prefix_len).
static bool load_around(Tokenizer *t, const json_t *json, Error *err) {
    const char *type = json_string_value(json_object_get(json, "type"));
    if (!type || strcmp(type, "ByteLevel") == 0) return true;
    if (strcmp(type, "Sequence") == 0) {
        const json_t *list = json_object_get(json, "processors");
        for (size_t i = 0; i < json_array_size(list); i++) {
            const json_t *inner = json_array_get(list, i);
            if (strcmp(describe(inner), "Sequence") == 0)
                return error_set(err, "a Sequence inside a Sequence is not supported");
            if (!load_around(t, inner, err)) return false;
        }
        return true;
    }
    if (strcmp(type, "TemplateProcessing") != 0)
        return error_set(
            err, "type \"%s\" is not supported, expected ByteLevel, TemplateProcessing or a Sequence", type);
    const json_t *single = json_object_get(json, "single"), *tokens = json_object_get(json, "special_tokens");
    bool in_front = true;
    for (size_t i = 0; i < json_array_size(single); i++) {
        const json_t *special = json_object_get(json_array_get(single, i), "SpecialToken");
        const char *name = json_string_value(json_object_get(special, "id"));
        in_front = in_front && special;
        if (name && !add_around(t, json_object_get(json_object_get(tokens, name), "ids"), in_front, err))
            return false;
    }
    return true;
}

static bool load_parts(Tokenizer *t, const json_t *root, Error *err) {
    const json_t *model = json_object_get(root, "model"),
                 *pretokenizer = json_object_get(root, "pre_tokenizer");
    if (!check_unsupported(root, err)) return false;
    if (!json_is_object(pretokenizer)) return error_set(err, "field pre_tokenizer: expected an object");
    return normalizer_load(&t->normalizer, json_object_get(root, "normalizer"), err) &&
           pretokenizer_load(&t->pretokenizer, pretokenizer, err) && load_vocab(t, model, err) &&
           load_bpe(t, model, err) && load_added_tokens(t, root, err) &&
           (load_around(t, json_object_get(root, "post_processor"), err) ||
            error_prefix(err, "field post_processor"));
}

static bool add_extra_tokens(Tokenizer *t, const TokenMap *extra, Error *err) {
    for (size_t i = 0; extra && i < extra->count; i++) {
        const char *name = extra->items[i].name, *text = extra->items[i].token;
        const int32_t present = tokenizer_token_id(t, text);
        const int64_t id = present >= 0 ? present : (int64_t)tokenizer_vocab_size(t);
        if (!add_token(t, text, strlen(text), id, NULL, err))
            return error_prefix(err, "extra token %s", name);
        vec_push(&t->extra, (ExtraToken){mem_strdup(name), mem_strdup(text), (int32_t)id});
    }
    return true;
}

static char *folder_of(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? mem_strndup(path, (size_t)(slash - path)) : mem_strdup(".");
}

bool tokenizer_load(Tokenizer **t, const char *path, const TokenMap *extra_tokens, Error *err) {
    const bool in_folder = file_is_folder(path);
    char *folder = in_folder ? mem_strdup(path) : folder_of(path);
    char *file = in_folder ? path_join(path, "tokenizer.json") : mem_strdup(path);
    json_t *root = NULL;
    *t = mem_zeroed(1, sizeof **t);
    (*t)->first_id = -1;
    const bool gguf = gguf_is_file(file);
    bool ok = gguf ? tokenizer_load_gguf(*t, file, err)
                   : tokenizer_read_json(&root, file, err) &&
                         (load_parts(*t, root, err) || error_prefix(err, "%s", file));
    ok = ok && (add_extra_tokens(*t, extra_tokens, err) || error_prefix(err, "%s", file)) &&
         (gguf || tokenizer_load_config(*t, folder, err));
    json_decref(root);
    free(folder);
    free(file);
    if (ok) return true;
    tokenizer_free(*t);
    *t = NULL;
    return false;
}
