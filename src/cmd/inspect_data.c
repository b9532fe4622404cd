// Rows and tokenizers for `vlm inspect`.
#include "cmd/inspect.h"
#include "format/arrow_describe.h"
#include "text/chat.h"
#include "text/tokenizer_parts.h"

#include <stdlib.h>
#include <string.h>

// ---- rows ----

static json_t *schema_json(const RecordBatch *batch) {
    json_t *list = json_array();
    for (size_t i = 0; i < record_batch_column_count(batch); i++) {
        char *type = record_batch_column_type(batch, i);
        json_array_append_new(
            list, json_pack("{s:s, s:s}", "name", record_batch_column_name(batch, i), "type", type));
        free(type);
    }
    return list;
}

static void put_group(json_t *groups, size_t rows, size_t bytes) {
    json_array_append_new(groups,
                          json_pack("{s:I, s:I}", "rows", (json_int_t)rows, "bytes", (json_int_t)bytes));
}

static bool parquet(json_t *about, json_t *groups, const char *path, Error *err) {
    ParquetReader *r;
    RecordBatch *batch;
    if (!parquet_open(&r, path, err)) return false;
    const bool ok = parquet_schema(&batch, r, NULL, 0, err);
    for (size_t i = 0; ok && i < parquet_row_groups(r); i++)
        put_group(groups, parquet_rows(r, i), parquet_bytes(r, i));
    if (ok) {
        json_object_set_new(about, "columns", schema_json(batch));
        record_batch_free(batch);
    }
    parquet_close(r);
    return ok;
}

static bool arrow(json_t *about, json_t *groups, const char *path, Error *err) {
    ArrowReader *r;
    RecordBatch *batch;
    if (!arrow_open(&r, path, err)) return false;
    const bool ok = arrow_schema(&batch, r, NULL, 0, err);
    for (size_t i = 0; ok && i < arrow_batches(r); i++)
        put_group(groups, arrow_rows(r, i), arrow_bytes(r, i));
    if (ok) {
        json_object_set_new(about, "columns", schema_json(batch));
        record_batch_free(batch);
    }
    arrow_close(r);
    return ok;
}

bool inspect_rows(json_t *about, const char *path, Error *err) {
    const bool is_arrow = strcmp(strrchr(path, '.'), ".arrow") == 0;
    json_t *groups = json_array(), *group;
    const bool ok = is_arrow ? arrow(about, groups, path, err) : parquet(about, groups, path, err);
    json_int_t rows = 0;
    size_t i;
    json_array_foreach(groups, i, group) rows += json_integer_value(json_object_get(group, "rows"));
    json_object_set_new(about, "kind", json_string(is_arrow ? "Arrow IPC" : "Parquet"));
    json_object_set_new(about, "rows", json_integer(rows));
    json_object_set_new(about, "row_groups", groups);
    return ok;
}

// ---- tokenizers ----

static const char *const step_names[] = {[PRETOKENIZER_DIGITS] = "Digits",
                                         [PRETOKENIZER_SPLIT] = "Split",
                                         [PRETOKENIZER_SPACE] = "prefix space",
                                         [PRETOKENIZER_GPT2] = "GPT-2 words",
                                         [PRETOKENIZER_LLAMA3] = "Llama 3 words"};

static json_t *special_tokens(const Tokenizer *t) {
    json_t *list = json_array();
    for (size_t id = 0; id < t->vocab.tokens.count; id++) {
        const VocabToken *token = vocab_token(&t->vocab, (int64_t)id);
        if (!token || !token->special) continue;
        json_t *text = json_stringn(t->vocab.texts.items + token->offset, token->size);
        json_array_append_new(list, json_pack("{s:I, s:o}", "id", (json_int_t)id, "text",
                                              text ? text : json_string("(no UTF-8)")));
    }
    return list;
}

static json_t *template_json(const Tokenizer *t) {
    ChatTemplate chat;
    if (!tokenizer_chat_template(t)) return json_string("none");
    if (!chat_template_init_alone(&chat, t, NULL)) return json_string("not recognised");
    return json_sprintf("%s%s", chat.format->name, chat.by_mark ? ", by its tokens" : "");
}

bool inspect_tokenizer(json_t *about, const char *path, Error *err) {
    Tokenizer *t;
    if (!tokenizer_load(&t, path, NULL, err)) return false;
    json_t *o = json_object(), *steps = json_array();
    for (size_t i = 0; i < t->pretokenizer.count; i++)
        json_array_append_new(steps, json_string(step_names[t->pretokenizer.steps[i].kind]));
    json_object_set_new(o, "type", json_string("byte-level BPE"));
    json_object_set_new(o, "vocabulary", json_integer((json_int_t)tokenizer_vocab_size(t)));
    json_object_set_new(o, "added_tokens",
                        json_integer((json_int_t)(t->added[0].tokens.count + t->added[1].tokens.count)));
    json_object_set_new(o, "eos_id", json_integer(t->eos_id));
    json_object_set_new(o, "normalizer", json_string(t->normalizer.nfc ? "NFC" : "none"));
    json_object_set_new(o, "pre_tokenizer", steps);
    json_object_set_new(o, "chat_template", template_json(t));
    json_object_set_new(o, "special_tokens", special_tokens(t));
    json_object_set_new(about, "kind", json_string("tokenizer"));
    json_object_set_new(about, "tokenizer", o);
    tokenizer_free(t);
    return true;
}
