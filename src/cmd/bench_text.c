// `vlm bench text`: how fast a tokenizer encodes and decodes the texts of a file, on one thread.
// bench/tokenizer.py runs it beside the tokenizers library.
#include "cmd/bench.h"
#include "cmd/bench_time.h"
#include "cmd/cmd.h"
#include "text/tokenizer.h"

#include <jansson.h>
#include <stdio.h>

typedef struct Flags {
    char *tokenizer, *rows;
    size_t rounds;
} Flags;

#define FLAG(name, type, ...)                                                                                \
    { #name, type, offsetof(Flags, name), __VA_ARGS__ }
static const Field fields[] = {
    FLAG(tokenizer, FIELD_STRING, NULL, 0, 0, NULL, "folder of the tokenizer"),
    FLAG(rows, FIELD_STRING, NULL, 0, 0, NULL, "file of lines, each a JSON string"),
    FLAG(rounds, FIELD_SIZE, "5", 1, 10000, NULL, "times the file is encoded; the fastest counts"),
};
static const FieldTable table = {"Tokenizer", fields, sizeof fields / sizeof *fields};

typedef struct Texts {
    CharVec bytes;
    VEC(size_t) ends; // text i is bytes [ends[i-1], ends[i])
} Texts;

static bool read_texts(Texts *texts, const char *path, Error *err) {
    FILE *file = fopen(path, "r");
    if (!file) return error_set(err, "%s: cannot open; name a file of JSON strings by --rows", path);
    json_error_t where;
    const size_t flags = JSON_DECODE_ANY | JSON_ALLOW_NUL | JSON_DISABLE_EOF_CHECK;
    for (json_t *text; (text = json_loadf(file, flags, &where));) {
        vec_extend(&texts->bytes, json_string_value(text), json_string_length(text));
        vec_push(&texts->ends, texts->bytes.count);
        json_decref(text);
    }
    const bool ended = getc(file) == EOF;
    fclose(file);
    if (!ended || texts->bytes.count == 0)
        return error_set(err, "%s: text %zu: %s, expected a JSON string", path, texts->ends.count,
                         where.text);
    return true;
}

static double encode_all(const Tokenizer *t, const Texts *texts, Int32Vec *ids) {
    const BenchTime begin = bench_now();
    vec_clear(ids);
    for (size_t i = 0, at = 0; i < texts->ends.count; at = texts->ends.items[i++])
        tokenizer_encode(t, texts->bytes.items + at, texts->ends.items[i] - at, ids);
    return bench_since(begin).cpu;
}

static double decode_all(const Tokenizer *t, const Int32Vec *ids, CharVec *bytes) {
    const BenchTime begin = bench_now();
    vec_clear(bytes);
    tokenizer_decode_bytes(t, ids->items, ids->count, false, bytes);
    return bench_since(begin).cpu;
}

// One number for all ids, that another program can work out as well.
static uint64_t hash_ids(const Int32Vec *ids) {
    uint64_t hash = 0;
    for (size_t i = 0; i < ids->count; i++) hash = hash * 1000003 + (uint64_t)ids->items[i];
    return hash;
}

static bool measure(const void *flags, Error *err) {
    const Flags *f = flags;
    Tokenizer *t = NULL;
    Texts texts = {0};
    Int32Vec ids = {0};
    CharVec bytes = {0};
    const bool ok = tokenizer_load(&t, f->tokenizer, NULL, err) && read_texts(&texts, f->rows, err);
    double encoding = 0, decoding = 0;
    for (size_t i = 0; ok && i < f->rounds; i++) {
        const double e = encode_all(t, &texts, &ids), d = decode_all(t, &ids, &bytes);
        if (i == 0 || e < encoding) encoding = e;
        if (i == 0 || d < decoding) decoding = d;
    }
    if (ok)
        printf("{\"texts\": %zu, \"bytes\": %zu, \"tokens\": %zu, \"ids_hash\": \"%016llx\", "
               "\"encode_seconds\": %.6f, \"decode_seconds\": %.6f}\n",
               texts.ends.count, texts.bytes.count, ids.count, (unsigned long long)hash_ids(&ids), encoding,
               decoding);
    tokenizer_free(t);
    vec_free(&texts.bytes);
    vec_free(&texts.ends);
    vec_free(&ids);
    vec_free(&bytes);
    return ok;
}

static bool check_flags(const void *flags, Error *err) {
    const Flags *f = flags;
    return (f->tokenizer && f->rows) || error_set(err, "--tokenizer and --rows: both must be given");
}

int bench_text(int argc, char **argv) {
    Flags f;
    return command_run((FieldSet){&table, &f}, argc, argv, check_flags, measure);
}
