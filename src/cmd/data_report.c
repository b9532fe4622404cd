// A survey in words and as JSON.
#include "cmd/data_survey.h"
#include "base/log.h"
#include "base/pyjson.h"
#include "data/dataset_source.h"
#include "format/arrow_describe.h"
#include "text/unicode.h"

#include <stdio.h>

enum { MAX_BARS = 20, BAR_WIDTH = 50 };

static const char *const rating_names[N_RATINGS] = {"relevance", "image_correspondence", "visual_dependency",
                                                    "formatting"};

static double share(uint64_t part, uint64_t whole) {
    return whole ? (double)part / (double)whole : 0;
}

// The value below which this share of the sorted values lies; 0 of none.
static size_t quantile(const SizeVec *sorted, double q) {
    if (sorted->count == 0) return 0;
    return sorted->items[(size_t)(q * (double)(sorted->count - 1))];
}

static double mean(const SizeVec *v) {
    double sum = 0;
    for (size_t i = 0; i < v->count; i++) sum += (double)v->items[i];
    return v->count ? sum / (double)v->count : 0;
}

static PictureSize size_at(const Survey *s, double q) {
    if (s->sizes.count == 0) return (PictureSize){0};
    return s->sizes.items[(size_t)(q * (double)(s->sizes.count - 1))];
}

// ---- the schema ----

// All columns of the first group, which the rows are not read with.
static bool read_schema(RecordBatch **batch, const DataSetup *setup, Error *err) {
    const char *path = dataset_path(setup->data, 0);
    const SourceKind *kind = source_kind(path);
    void *source;
    RecordBatch *read;
    if (!kind->open(&source, path, err)) return false;
    bool ok = kind->read(&read, source, dataset_group(setup->data, 0)->group, NULL, 0, err);
    if (ok) *batch = read;
    kind->close(source);
    return ok;
}

// ---- histogram ----

typedef struct Histogram {
    size_t width, count; // of a bar in tokens; bars
    size_t first;        // length at which the first begins
    bool open;           // the last bar has no end: it takes the few that are far longer than the others
    uint64_t bars[MAX_BARS + 2];
} Histogram;

// Bars of 1, 2 or 5 times a power of ten tokens, at most MAX_BARS and an open one.
static Histogram histogram_of(const SizeVec *lengths) {
    Histogram h = {.width = 1};
    if (lengths->count == 0) return h;
    const size_t low = lengths->items[0], longest = quantile(lengths, 1), most = quantile(lengths, 0.98);
    h.open = longest / 2 > most;
    const size_t high = h.open ? most : longest;
    for (size_t i = 0; high / h.width - low / h.width >= MAX_BARS; i++)
        h.width = i % 3 == 1 ? h.width / 2 * 5 : h.width * 2; // 1 2 5 10 20 50 …
    h.first = low / h.width * h.width;
    h.count = (high - h.first) / h.width + 1 + h.open;
    for (size_t i = 0; i < lengths->count; i++) {
        const size_t bar = (lengths->items[i] - h.first) / h.width;
        h.bars[bar < h.count ? bar : h.count - 1]++;
    }
    return h;
}

static void print_bar(uint64_t value, uint64_t most) {
    const size_t length = (size_t)((double)value * BAR_WIDTH / (double)most + 0.5);
    for (size_t k = 0; k < length; k++) printf("█");
    if (value && length == 0) printf("▏");
    printf("%s%llu\n", value ? " " : "", (unsigned long long)value);
}

static void print_histogram(const SizeVec *lengths) {
    const Histogram h = histogram_of(lengths);
    uint64_t most = 1;
    for (size_t i = 0; i < h.count; i++) most = h.bars[i] > most ? h.bars[i] : most;
    for (size_t i = 0; i < h.count; i++) {
        const size_t from = h.first + i * h.width;
        if (h.open && i + 1 == h.count)
            printf("  %7zu or more   ", from);
        else
            printf("  %7zu … %-7zu ", from, from + h.width - 1);
        print_bar(h.bars[i], most);
    }
}

// ---- tables ----

static void print_head(const Survey *s, const DataSetup *setup) {
    printf("%s: %zu files, %zu row groups, %zu rows", setup->config.train.train_dataset_path,
           data_setup_files(setup->data), dataset_group_count(setup->data), dataset_rows(setup->data));
    if (s->rows < dataset_rows(setup->data))
        printf("; looked at the first %llu", (unsigned long long)s->rows);
    printf("\n\ncolumns of %s\n", dataset_path(setup->data, 0));
}

static void print_schema(const RecordBatch *batch) {
    for (size_t i = 0; batch && i < record_batch_column_count(batch); i++) {
        char *type = record_batch_column_type(batch, i);
        printf("  %-28s %s\n", record_batch_column_name(batch, i), type);
        free(type);
    }
}

static void print_pictures(const Survey *s) {
    const PictureSize low = size_at(s, 0), middle = size_at(s, 0.5), high = size_at(s, 1);
    printf("\npictures: %llu in %llu rows", (unsigned long long)s->pictures,
           (unsigned long long)s->image_rows);
    for (size_t i = 0; i < SURVEY_FORMATS && s->formats[i].name; i++)
        printf("%s %llu %s", i ? "," : ":", (unsigned long long)s->formats[i].pictures, s->formats[i].name);
    printf("\n");
    if (s->pictures == 0) return;
    printf("  %-22s %12s %12s %12s\n", "", "least", "median", "most");
    printf("  %-22s %5zu x %-4zu %5zu x %-4zu %5zu x %-4zu\n", "pixels", low.width, low.height, middle.width,
           middle.height, high.width, high.height);
    printf("  %-22s %12zu %12zu %12zu\n", "encoded bytes", quantile(&s->bytes, 0), quantile(&s->bytes, 0.5),
           quantile(&s->bytes, 1));
    printf("  %-22s %12zu %12zu %12zu\n", "tiles of a row", quantile(&s->tiles, 0), quantile(&s->tiles, 0.5),
           quantile(&s->tiles, 1));
}

static void print_rows(const Survey *s) {
    printf("\nrows\n");
    for (size_t i = 0; i < N_DROPS; i++) {
        const Drop *drop = &s->drops[i];
        if (drop->rows == 0 && i != SAMPLE_KEPT) continue;
        printf("  %-28s %10llu %6.2f%%", drop_names[i] ? drop_names[i] : "kept",
               (unsigned long long)drop->rows, 100 * share(drop->rows, s->rows));
        if (i != SAMPLE_KEPT) printf("   e.g. row %zu: %s", drop->example, drop->reason.text);
        printf("\n");
    }
    if (s->cut_rows) printf("  %llu rows are cut at their end to fit\n", (unsigned long long)s->cut_rows);
    if (s->token_rows)
        printf("  image tokens are removed from the text of %llu rows\n", (unsigned long long)s->token_rows);
    printf("turns: %llu, %llu dropped by their ratings", (unsigned long long)s->turns,
           (unsigned long long)(s->turns - s->turns_kept));
    for (size_t i = 0, n = 0; i < N_RATINGS; i++)
        if (s->turns_low[i])
            printf("%s%s %llu", n++ ? ", " : " (", rating_names[i], (unsigned long long)s->turns_low[i]);
    printf("%s\n", s->turns > s->turns_kept ? ")" : "");
}

static void print_tokens(const Survey *s) {
    printf("\ntokens of a sample: %zu to %zu, median %zu, mean %.1f, 9 of 10 at most %zu\n",
           quantile(&s->lengths, 0), quantile(&s->lengths, 1), quantile(&s->lengths, 0.5), mean(&s->lengths),
           quantile(&s->lengths, 0.9));
    print_histogram(&s->lengths);
    printf("%llu tokens in the kept rows, %.1f%% of them are trained on\n", (unsigned long long)s->tokens,
           100 * share(s->trained, s->tokens));
}

static void print_tables(const Survey *s, const DataSetup *setup, const RecordBatch *schema) {
    const Config *c = &setup->config;
    print_head(s, setup);
    print_schema(schema);
    print_pictures(s);
    print_rows(s);
    print_tokens(s);
    printf("\npacking (%s): %llu sequences of %zu tokens, %.2f%% full, %.1f samples each\n",
           c->options.packing, (unsigned long long)s->meter.packs, c->vlm.lm_max_length,
           100 * pack_meter_fill(&s->meter), share(s->meter.samples, s->meter.packs));
    printf("speed of this look (reading, decoding, tokens; %zu threads): %.0f rows/s, %.0f pictures/s, %.0f "
           "tokens/s\n",
           s->threads, bench_rate((double)s->rows, s->time.wall),
           bench_rate((double)s->pictures, s->time.wall), bench_rate((double)s->tokens, s->time.wall));
}

// ---- JSON ----

// A string from outside; what is no UTF-8 in it becomes U+FFFD.
static json_t *text_json(const char *text) {
    CharVec valid = {0};
    utf8_append_lossy(&valid, text, strlen(text));
    json_t *value = json_stringn(valid.count ? valid.items : "", valid.count);
    vec_free(&valid);
    return value;
}

static json_t *count_json(uint64_t n) {
    return json_integer((json_int_t)n);
}

static json_t *schema_json(const RecordBatch *batch) {
    json_t *list = json_array();
    for (size_t i = 0; batch && i < record_batch_column_count(batch); i++) {
        char *type = record_batch_column_type(batch, i);
        json_array_append_new(list,
                              json_pack("{s:o, s:o}", "name", text_json(record_batch_column_name(batch, i)),
                                        "type", text_json(type)));
        free(type);
    }
    return list;
}

static json_t *spread_json(const SizeVec *v) {
    return json_pack("{s:o, s:o, s:f, s:o, s:o}", "min", count_json(quantile(v, 0)), "median",
                     count_json(quantile(v, 0.5)), "mean", mean(v), "p90", count_json(quantile(v, 0.9)),
                     "max", count_json(quantile(v, 1)));
}

static json_t *picture_size_json(PictureSize size) {
    return json_pack("[o, o]", count_json(size.width), count_json(size.height));
}

static json_t *pictures_json(const Survey *s) {
    json_t *formats = json_object();
    for (size_t i = 0; i < SURVEY_FORMATS && s->formats[i].name; i++)
        json_object_set_new(formats, s->formats[i].name, count_json(s->formats[i].pictures));
    json_t *pixels = json_pack("{s:o, s:o, s:o}", "min", picture_size_json(size_at(s, 0)), "median",
                               picture_size_json(size_at(s, 0.5)), "max", picture_size_json(size_at(s, 1)));
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "count", count_json(s->pictures), "rows",
                     count_json(s->image_rows), "formats", formats, "width_height", pixels, "bytes",
                     spread_json(&s->bytes), "tiles_of_a_row", spread_json(&s->tiles));
}

static json_t *drops_json(const Survey *s) {
    json_t *list = json_array();
    for (size_t i = 0; i < N_DROPS; i++) {
        if (i == SAMPLE_KEPT || s->drops[i].rows == 0) continue;
        json_array_append_new(list, json_pack("{s:s, s:o, s:o, s:o}", "kind", drop_names[i], "rows",
                                              count_json(s->drops[i].rows), "example",
                                              count_json(s->drops[i].example), "reason",
                                              text_json(s->drops[i].reason.text)));
    }
    return list;
}

static json_t *turns_json(const Survey *s) {
    json_t *turns = json_pack("{s:o, s:o}", "count", count_json(s->turns), "kept", count_json(s->turns_kept));
    for (size_t i = 0; i < N_RATINGS; i++)
        json_object_set_new(turns, rating_names[i], count_json(s->turns_low[i]));
    return turns;
}

static json_t *tokens_json(const Survey *s) {
    const Histogram h = histogram_of(&s->lengths);
    json_t *bars = json_array(), *tokens = spread_json(&s->lengths);
    for (size_t i = 0; i < h.count; i++)
        json_array_append_new(bars, json_pack("{s:o, s:o, s:o}", "from", count_json(h.first + i * h.width),
                                              "to", count_json(h.first + (i + 1) * h.width - 1), "samples",
                                              count_json(h.bars[i])));
    json_object_set_new(tokens, "total", count_json(s->tokens));
    json_object_set_new(tokens, "trained", count_json(s->trained));
    json_object_set_new(tokens, "histogram", bars);
    return tokens;
}

static json_t *survey_json(const Survey *s, const DataSetup *setup, const RecordBatch *schema) {
    const Config *c = &setup->config;
    const double wall = s->time.wall;
    json_t *object = json_object();
    const struct {
        const char *key;
        json_t *value;
    } parts[] = {
        {"path", text_json(c->train.train_dataset_path)},
        {"files", count_json(data_setup_files(setup->data))},
        {"row_groups", count_json(dataset_group_count(setup->data))},
        {"rows", count_json(dataset_rows(setup->data))},
        {"rows_seen", count_json(s->rows)},
        {"columns", schema_json(schema)},
        {"pictures", pictures_json(s)},
        {"rows_kept", count_json(s->drops[SAMPLE_KEPT].rows)},
        {"rows_dropped", drops_json(s)},
        {"rows_with_image_tokens", count_json(s->token_rows)},
        {"rows_truncated", count_json(s->cut_rows)},
        {"turns", turns_json(s)},
        {"tokens", tokens_json(s)},
        {"packing", json_pack("{s:s, s:o, s:o, s:f}", "strategy", c->options.packing, "seq_length",
                              count_json(c->vlm.lm_max_length), "packs", count_json(s->meter.packs), "fill",
                              pack_meter_fill(&s->meter))},
        {"per_second",
         json_pack("{s:f, s:f, s:f}", "rows", bench_rate((double)s->rows, wall), "images",
                   bench_rate((double)s->pictures, wall), "tokens", bench_rate((double)s->tokens, wall))},
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        json_object_set_new(object, parts[i].key, parts[i].value);
    return object;
}

void survey_print(const Survey *s, const DataSetup *setup, bool json) {
    RecordBatch *schema = NULL;
    Error err;
    if (!read_schema(&schema, setup, &err)) log_warning("its columns cannot be listed: %s", err.text);
    if (json)
        pyjson_print(stdout, survey_json(s, setup, schema), -1);
    else
        print_tables(s, setup, schema);
    record_batch_free(schema);
}
