// `vlm inspect PATH [--flags]`: what is in a file or folder of weights, rows or tokens, without running
// anything.
#include "cmd/inspect.h"
#include "base/file.h"
#include "base/log.h"
#include "cmd/cmd.h"
#include "config/fields.h"
#include "format/gguf.h"
#include "hub/hub.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define AT(field) offsetof(InspectFlags, field)
static const Field inspect_fields[] = {
    {"json", FIELD_BOOL, AT(json), "false", 0, 0, NULL, "print one JSON object instead of tables"},
    {"stats", FIELD_BOOL, AT(stats), "false", 0, 0, NULL,
     "smallest, greatest, mean, standard deviation, NaN and infinities of each tensor"},
    {"tensor", FIELD_STRING, AT(tensor), NULL, 0, 0, NULL, "show only this tensor, with its first values"},
};
static const FieldTable inspect_table = {"Inspection", inspect_fields,
                                         sizeof inspect_fields / sizeof *inspect_fields};

static bool ends_with(const char *text, const char *end) {
    const size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool holds(const char *folder, const char *name) {
    char *path = path_join(folder, name);
    const bool there = file_exists(path);
    free(path);
    return there;
}

static bool holds_weights(const char *folder) {
    return holds(folder, "model.safetensors") || holds(folder, "model.safetensors.index.json");
}

// nanoVLM's config.json names its fields vit_…; those of transformers have a model_type.
static bool is_checkpoint(const char *folder) {
    char *path = path_join(folder, "config.json");
    json_t *config = json_load_file(path, 0, NULL);
    const bool yes = json_object_get(config, "vit_hidden_dim") != NULL;
    json_decref(config);
    free(path);
    return yes && holds_weights(folder);
}

// A folder may be a model and a tokenizer at once.
static bool inspect_folder(json_t *about, const char *path, const InspectFlags *f, Error *err) {
    if (is_checkpoint(path)) return inspect_checkpoint(about, path, f, err);
    const bool tokenizer = holds(path, "tokenizer.json");
    if (tokenizer && !inspect_tokenizer(about, path, err)) return false;
    return (tokenizer && !holds_weights(path)) || inspect_weights(about, path, f, err);
}

static bool inspect_path(json_t *about, const char *path, const InspectFlags *f, Error *err) {
    json_object_set_new(about, "path", json_string(path));
    if (file_is_folder(path)) return inspect_folder(about, path, f, err);
    if (gguf_is_file(path)) return inspect_gguf(about, path, f, err);
    if (ends_with(path, ".parquet") || ends_with(path, ".arrow")) return inspect_rows(about, path, err);
    if (ends_with(path, ".json")) return inspect_tokenizer(about, path, err);
    return inspect_weights(about, path, f, err);
}

static bool inspect(const char *name, const InspectFlags *f, Error *err) {
    char *path;
    json_t *about = json_object();
    const bool ok = hub_resolve(&path, name, err) && inspect_path(about, path, f, err);
    if (ok && f->json) {
        json_dumpf(about, stdout, JSON_INDENT(1));
        putchar('\n');
    } else if (ok) {
        inspect_print(about);
    }
    json_decref(about);
    free(path);
    return ok;
}

int cmd_inspect(int argc, char **argv) {
    InspectFlags f;
    FieldSet set = {&inspect_table, &f};
    StringList paths = {0};
    Error err;
    fields_set_defaults(set);
    int status = EXIT_USAGE;
    if (!flags_parse(&set, 1, argc, argv, &paths, &err)) {
    } else if (paths.count != 1) {
        error_set(&err, "vlm inspect takes one file, folder or Hub name, then flags; %zu were given",
                  paths.count);
    } else {
        status = inspect(paths.items[0], &f, &err) && output_flush(&err) ? EXIT_DONE : EXIT_FAILED;
    }
    if (status != EXIT_DONE) log_error("%s", err.text);
    string_list_free(&paths);
    fields_free(set);
    return status;
}
