// `vlm bench pack`: fill and speed of packing for a file of sample lengths.
#include "base/file.h"
#include "base/pyjson.h"
#include "base/vec.h"
#include "cmd/bench.h"
#include "cmd/bench_time.h"
#include "cmd/cmd.h"
#include "cmd/pack_meter.h"

#include <ctype.h>
#include <stdio.h>

typedef struct Flags {
    char *lengths, *packing;
    size_t seq_length, max_images, batch_size;
    Number seconds;
    bool json;
} Flags;

#define FLAG(name, type, ...)                                                                                \
    { #name, type, offsetof(Flags, name), __VA_ARGS__ }
static const Field fields[] = {
    FLAG(lengths, FIELD_STRING, NULL, 0, 0, NULL,
         "file of lines {\"length\": n, \"images\": k}, or one JSON list of [n, k]; n without the pad token"),
    FLAG(seq_length, FIELD_SIZE, "4096", 1, 1048576, NULL, "tokens of a sequence"),
    FLAG(max_images, FIELD_SIZE, "18", 0, 1e9, NULL, "pictures of a sequence, at most"),
    FLAG(packing, FIELD_STRING, "best", 0, 0, "best|nanovlm", "how samples are put together"),
    FLAG(batch_size, FIELD_SIZE, "2", 1, 4096, NULL,
         "sequences of a batch; nanovlm looks at four batches' worth of samples at a time"),
    FLAG(seconds, FIELD_NUMBER, "1", 0, 3600, NULL, "repeat for so long; the fastest round counts"),
    FLAG(json, FIELD_BOOL, "false", 0, 0, NULL, "print one JSON object"),
};
static const FieldTable table = {"Packing", fields, sizeof fields / sizeof *fields};

typedef struct Size {
    size_t length, images;
} Size;
typedef VEC(Size) SizeVec;

// ---- reading ----

static bool read_count(size_t *count, const json_t *value) {
    const json_int_t most = 1000000000;
    if (!json_is_integer(value) || json_integer_value(value) < 0 || json_integer_value(value) > most)
        return false;
    *count = (size_t)json_integer_value(value);
    return true;
}

// {"length": n, "images": k} or [n, k]; without k there are no pictures.
static bool read_size(Size *size, const json_t *value) {
    const bool pair = json_is_array(value) && json_array_size(value) == 2;
    if (!pair && !json_is_object(value)) return false;
    const json_t *length = pair ? json_array_get(value, 0) : json_object_get(value, "length"),
                 *images = pair ? json_array_get(value, 1) : json_object_get(value, "images");
    *size = (Size){0};
    return read_count(&size->length, length) && (!images || read_count(&size->images, images));
}

static bool read_list(SizeVec *sizes, const char *text, size_t n, const char *path, Error *err) {
    json_error_t where;
    json_t *list = json_loadb(text, n, 0, &where), *value;
    if (!list) return error_set(err, "%s: line %d: %s", path, where.line, where.text);
    size_t i;
    bool ok = true;
    json_array_foreach(list, i, value) {
        Size size;
        ok = read_size(&size, value);
        if (!ok) break;
        vec_push(sizes, size);
    }
    json_decref(list);
    return ok || error_set(err, "%s: entry %zu: expected [length, images]", path, i);
}

static bool read_lines(SizeVec *sizes, const char *text, size_t n, const char *path, Error *err) {
    size_t number = 1;
    for (size_t at = 0, end; at < n; at = end + 1, number++) {
        const char *newline = memchr(text + at, '\n', n - at);
        end = newline ? (size_t)(newline - text) : n;
        size_t blank = at;
        while (blank < end && isspace((unsigned char)text[blank])) blank++;
        if (blank == end) continue;
        Size size;
        json_t *value = json_loadb(text + at, end - at, 0, NULL);
        bool ok = value && read_size(&size, value);
        json_decref(value);
        if (!ok)
            return error_set(err, "%s: line %zu is \"%.*s\", expected {\"length\": n, \"images\": k}", path,
                             number, (int)(end - at < 80 ? end - at : 80), text + at);
        vec_push(sizes, size);
    }
    return true;
}

static bool read_sizes(SizeVec *sizes, const char *path, Error *err) {
    char *text;
    size_t n, first = 0;
    if (!file_read(&text, &n, path, err)) return false;
    while (first < n && isspace((unsigned char)text[first])) first++;
    const bool list = first < n && text[first] == '[';
    bool ok = list ? read_list(sizes, text, n, path, err) : read_lines(sizes, text, n, path, err);
    free(text);
    if (ok && sizes->count == 0) return error_set(err, "%s holds no sample", path);
    return ok;
}

// ---- measuring ----

static BenchTime pack_all(PackMeter *m, const SizeVec *sizes, const Flags *f) {
    PackLimits limits = {f->seq_length, f->max_images, PACK_NO_LIMIT};
    BenchTime begin = bench_now();
    pack_meter_init(m, f->packing, limits, f->batch_size);
    for (size_t i = 0; i < sizes->count; i++)
        pack_meter_add(m, sizes->items[i].length, sizes->items[i].images, 0, 0);
    pack_meter_finish(m);
    return bench_since(begin);
}

static void print_result(const PackMeter *m, double seconds, const Flags *f) {
    const double rate = bench_rate((double)m->samples, seconds);
    if (f->json) {
        pyjson_print(stdout,
                     json_pack("{s:s, s:I, s:f, s:I, s:I, s:I, s:I, s:f}", "packing", f->packing,
                               "seq_length", (json_int_t)f->seq_length, "fill", pack_meter_fill(m), "packs",
                               (json_int_t)m->packs, "samples", (json_int_t)m->samples, "skipped",
                               (json_int_t)m->skipped, "tokens", (json_int_t)m->tokens, "samples_per_second",
                               rate),
                     -1);
        return;
    }
    printf("%s: %.2f%% of the positions of %llu sequences of %zu hold a token\n", f->packing,
           100 * pack_meter_fill(m), (unsigned long long)m->packs, f->seq_length);
    printf("%llu samples packed, %llu skipped (no sequence can hold them)\n", (unsigned long long)m->samples,
           (unsigned long long)m->skipped);
    printf("%.3g samples a second of processor time\n", rate);
}

static bool measure(const void *flags, Error *err) {
    const Flags *f = flags;
    SizeVec sizes = {0};
    PackMeter m = {0};
    bool ok = read_sizes(&sizes, f->lengths, err);
    if (ok) {
        const BenchTime begin = bench_now();
        double fastest = pack_all(&m, &sizes, f).cpu;
        while (bench_since(begin).wall < f->seconds.value) {
            pack_meter_free(&m);
            double seconds = pack_all(&m, &sizes, f).cpu;
            if (seconds < fastest) fastest = seconds;
        }
        print_result(&m, fastest, f);
        pack_meter_free(&m);
    }
    vec_free(&sizes);
    return ok;
}

static bool check_flags(const void *flags, Error *err) {
    const Flags *f = flags;
    if (f->lengths) return true;
    return error_set(err, "--lengths: not given; name a file of lines {\"length\": n, \"images\": k}");
}

int bench_pack(int argc, char **argv) {
    Flags f;
    return command_run((FieldSet){&table, &f}, argc, argv, check_flags, measure);
}
