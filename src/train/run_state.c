#include "train/run_state.h"
#include "base/file.h"
#include "base/pyjson.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

// ---- the fields ----

// COUNT_OR_NONE: 0 in files that were written before there was such a thing
typedef enum Kind { COUNT, COUNT_OR_NONE, REAL, TEXT, REALS } Kind;

typedef struct Entry {
    const char *name;
    Kind kind;
    size_t offset, size; // size: of a text's array
} Entry;

#define ENTRY(name, kind, member)                                                                            \
    { name, kind, offsetof(RunState, member), sizeof(((RunState *)0)->member) }
#define SERIES(name, i)                                                                                      \
    ENTRY("statistics_" name "_sum", REAL, statistics.series[i].sum),                                        \
        ENTRY("statistics_" name "_min", REAL, statistics.series[i].min),                                    \
        ENTRY("statistics_" name "_max", REAL, statistics.series[i].max),                                    \
        ENTRY("statistics_" name "_count", COUNT, statistics.series[i].count)

static const Entry entries[] = {
    ENTRY("run_name", TEXT, run_name),
    ENTRY("rank", COUNT, rank),
    ENTRY("world_size", COUNT, world_size),
    ENTRY("updates", COUNT, updates),
    ENTRY("optimizer_steps_mp", COUNT, steps[GROUP_MP]),
    ENTRY("optimizer_steps_vision", COUNT, steps[GROUP_VISION]),
    ENTRY("optimizer_steps_language", COUNT, steps[GROUP_LANGUAGE]),
    ENTRY("optimizer_steps_lora_vision", COUNT_OR_NONE, steps[GROUP_LORA_VISION]),
    ENTRY("optimizer_steps_lora_language", COUNT_OR_NONE, steps[GROUP_LORA_LANGUAGE]),
    ENTRY("skipped", COUNT, skipped),
    ENTRY("skipped_in_a_row", COUNT, skipped_in_a_row),
    ENTRY("losses", REALS, losses.values),
    ENTRY("losses_count", COUNT, losses.count),
    ENTRY("norms", REALS, norms.values),
    ENTRY("norms_count", COUNT, norms.count),
    ENTRY("log_size", COUNT, log_size),
    ENTRY("seconds", REAL, seconds),
    ENTRY("best_val_loss", REAL, best_val_loss),
    ENTRY("best_checkpoint", TEXT, best_checkpoint),
    ENTRY("epoch", COUNT, epoch.number),
    ENTRY("epoch_micro_batches", COUNT, epoch.micro_batches),
    ENTRY("epoch_updates", COUNT, epoch.updates),
    ENTRY("epoch_is_logged", COUNT, epoch.is_logged),
    ENTRY("epoch_loss_sum", REAL, epoch.loss_sum),
    ENTRY("epoch_tokens", REAL, epoch.tokens),
    ENTRY("epoch_seconds", REAL, epoch.seconds),
    SERIES("tokens_per_second", STATISTIC_TOKENS_PER_SECOND),
    SERIES("data_load_time", STATISTIC_DATA_LOAD_TIME),
    SERIES("fw_bw_time", STATISTIC_FW_BW_TIME),
    SERIES("post_process_time", STATISTIC_POST_PROCESS_TIME),
    SERIES("images_per_sample", STATISTIC_IMAGES_PER_SAMPLE),
};
enum { N_ENTRIES = sizeof entries / sizeof *entries };
_Static_assert(sizeof(size_t) == sizeof(uint64_t), "counts of both types are read and written alike");

// ---- JSON ----

static json_t *value_of(const RunState *s, const Entry *e) {
    const char *at = (const char *)s + e->offset;
    if (e->kind == TEXT) return json_string(at);
    if (e->kind == COUNT || e->kind == COUNT_OR_NONE)
        return json_integer((json_int_t) * (const uint64_t *)at);
    if (e->kind == REALS) {
        json_t *list = json_array();
        for (size_t i = 0; i < e->size / sizeof(double); i++)
            json_array_append_new(list, json_real(((const double *)at)[i]));
        return list;
    }
    const double number = *(const double *)at; // JSON knows no infinity: the best loss before there is one
    return isfinite(number) ? json_real(number) : json_null();
}

char *run_state_text(const RunState *s) {
    json_t *object = json_object();
    json_object_set_new(object, "format_version", json_integer(RUN_STATE_VERSION));
    for (int i = 0; i < N_ENTRIES; i++)
        json_object_set_new(object, entries[i].name, value_of(s, &entries[i]));
    char *text = pyjson_dump(object, 4);
    json_decref(object);
    return text;
}

static bool take_value(RunState *s, const Entry *e, const json_t *value) {
    char *at = (char *)s + e->offset;
    switch (e->kind) {
    case TEXT:
        if (!json_is_string(value) || json_string_length(value) >= e->size) return false;
        strcpy(at, json_string_value(value));
        return true;
    case REALS:
        if (json_array_size(value) != e->size / sizeof(double)) return false;
        for (size_t i = 0; i < e->size / sizeof(double); i++) {
            if (!json_is_real(json_array_get(value, i))) return false;
            ((double *)at)[i] = json_real_value(json_array_get(value, i));
        }
        return true;
    case COUNT_OR_NONE:
        if (!value) return true;
        __attribute__((fallthrough));
    case COUNT:
        if (!json_is_integer(value) || json_integer_value(value) < 0) return false;
        *(uint64_t *)at = (uint64_t)json_integer_value(value);
        return true;
    case REAL:
        if (!json_is_real(value) && !json_is_null(value)) return false;
        *(double *)at = json_is_null(value) ? INFINITY : json_real_value(value);
        return true;
    }
    return false;
}

static bool take_object(RunState *s, const json_t *object, const char *path, Error *err) {
    const json_t *version = json_object_get(object, "format_version");
    if (json_integer_value(version) != RUN_STATE_VERSION)
        return error_set(err, "%s: format_version is %lld, this program reads %d", path,
                         (long long)json_integer_value(version), RUN_STATE_VERSION);
    for (int i = 0; i < N_ENTRIES; i++) {
        const json_t *value = json_object_get(object, entries[i].name);
        if (take_value(s, &entries[i], value)) continue;
        char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
        error_set(err, "%s: %s is %s, which no trainer writes there; use --resume_weights_only", path,
                  entries[i].name, text ? text : "missing");
        free(text);
        return false;
    }
    return true;
}

bool run_state_read(RunState *s, const char *path, Error *err) {
    char *text;
    size_t size;
    json_error_t where;
    *s = (RunState){0};
    if (!file_read(&text, &size, path, err)) return false;
    json_t *object = json_loadb(text, size, 0, &where);
    const bool ok = json_is_object(object)
                        ? take_object(s, object, path, err)
                        : error_set(err, "%s: no JSON object: %s in line %d", path, where.text, where.line);
    json_decref(object);
    free(text);
    return ok;
}
