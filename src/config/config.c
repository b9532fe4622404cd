#include "config/config.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pyjson.h"
#include "config/flags.h"

#include <stdlib.h>
#include <string.h>

void config_sets(Config *c, FieldSet sets[3]) {
    sets[0] = (FieldSet){&vlm_config_table, &c->vlm};
    sets[1] = (FieldSet){&train_config_table, &c->train};
    sets[2] = (FieldSet){&train_options_table, &c->options};
}

void config_init(Config *c) {
    FieldSet sets[3];
    config_sets(c, sets);
    for (int i = 0; i < 3; i++) fields_set_defaults(sets[i]);
}

void config_free(Config *c) {
    FieldSet sets[3];
    config_sets(c, sets);
    for (int i = 0; i < 3; i++) fields_free(sets[i]);
}

// ---- files ----

static const char *const section_names[3] = {"VLMConfig", "TrainConfig", "TrainOptions"};

json_t *config_to_json(const Config *c) {
    FieldSet sets[3];
    config_sets((Config *)c, sets);
    json_t *object = json_object();
    for (int i = 0; i < 3; i++) json_object_set_new(object, section_names[i], fields_to_json(sets[i]));
    return object;
}

// The object a file holds; NULL with an error.
static json_t *read_json(const char *path, Error *err) {
    char *bytes;
    size_t size;
    if (!file_read(&bytes, &size, path, err)) return NULL;
    json_error_t where;
    json_t *object = json_loadb(bytes, size, 0, &where);
    free(bytes);
    if (!object)
        error_set(err, "%s: not valid JSON: line %d, column %d: %s", path, where.line, where.column,
                  where.text);
    return object;
}

static bool read_sections(FieldSet sets[3], const json_t *object, const char *path, Error *err) {
    const char *key;
    json_t *section;
    json_object_foreach((json_t *)object, key, section) {
        int i = 0;
        while (i < 3 && strcmp(section_names[i], key)) i++;
        if (i == 3)
            return error_set(
                err, "%s: unknown section \"%.100s\"; there are VLMConfig, TrainConfig and TrainOptions",
                path, key);
        if (!fields_from_json(sets[i], section, path, err)) return false;
    }
    return true;
}

bool config_load(Config *c, const char *given, Error *err) {
    char *path = file_is_folder(given) ? path_join(given, "config.json") : mem_strdup(given);
    json_t *object = read_json(path, err);
    FieldSet sets[3];
    config_sets(c, sets);
    bool sections = false;
    for (int i = 0; i < 3; i++) sections = sections || json_object_get(object, section_names[i]);
    bool ok = object && (sections ? read_sections(sets, object, path, err)
                                  : fields_from_json(sets[0], object, path, err));
    json_decref(object);
    free(path);
    return ok;
}

bool vlm_config_load(VLMConfig *c, const char *path, Error *err) {
    json_t *object = read_json(path, err);
    if (!object) return false;
    FieldSet set = {&vlm_config_table, c};
    fields_free(set);
    fields_set_defaults(set);
    bool ok = fields_from_json(set, object, path, err);
    json_decref(object);
    return ok;
}

bool vlm_config_save(const VLMConfig *c, const char *path, Error *err) {
    json_t *object = fields_to_json((FieldSet){&vlm_config_table, (VLMConfig *)c});
    char *text = pyjson_dump(object, 4);
    bool ok = file_write_text(path, text, strlen(text), err);
    free(text);
    json_decref(object);
    return ok;
}

// ---- command line ----

typedef struct Source {
    char *preset, *config;
} Source;

static const Field source_fields[] = {
    {"preset", FIELD_STRING, offsetof(Source, preset), NULL, 0, 0, "tiny|small|nanovlm-222m|nanovlm-460m",
     "start from these settings instead of the defaults"},
    {"config", FIELD_STRING, offsetof(Source, config), NULL, 0, 0, NULL,
     "then take a JSON file: nanoVLM's config.json or its folder, or what `vlm config --all true` prints"},
};
static const FieldTable source_table = {"Where settings come from (flags win over both)", source_fields, 2};

// Applies the flags that belong to the source, or those that do not.
static bool apply_flags(const FlagVec *flags, const Source *source, bool of_source, Error *err) {
    for (size_t i = 0; i < flags->count; i++) {
        const Flag *flag = &flags->items[i];
        if ((flag->set.base == source) == of_source && !flag_apply(flag, err)) return false;
    }
    return true;
}

bool config_parse(Config *c, FieldSet extra, int argc, char **argv, Error *err) {
    Source source = {0};
    FieldSet sets[5] = {extra, {&source_table, &source}};
    config_sets(c, sets + 2);
    FlagVec flags = {0};
    bool ok = flags_read(&flags, sets, 5, argc, argv, NULL, err) && apply_flags(&flags, &source, true, err);
    if (ok && source.preset) ok = config_apply_preset(c, source.preset, err);
    if (ok && source.config) ok = config_load(c, source.config, err);
    ok = ok && apply_flags(&flags, &source, false, err);
    fields_free(sets[1]);
    vec_free(&flags);
    return ok;
}

// ---- derived values ----

size_t vlm_config_head_dim(const VLMConfig *c) {
    return c->lm_hidden_dim / c->lm_n_heads;
}

size_t vlm_config_patches(const VLMConfig *c) {
    size_t grid = c->vit_img_size / c->vit_patch_size;
    return grid * grid;
}

bool train_options_documents(const TrainOptions *o) {
    return strcmp(o->attention, "document") == 0;
}

static const char *after_last_slash(const char *name) {
    const char *slash = strrchr(name, '/');
    return slash ? slash + 1 : name;
}

static void number_text(char text[32], Number n) {
    if (n.is_int)
        snprintf(text, 32, "%.0f", n.value);
    else
        py_repr_double(text, n.value);
}

char *run_name(const Config *c, size_t world_size, const char *date) {
    const TrainConfig *t = &c->train;
    char vision[32], language[32], projector[32];
    number_text(vision, t->lr_vision_backbone);
    number_text(language, t->lr_language_backbone);
    number_text(projector, t->lr_mp);
    return mem_printf("nanoVLM_%s_%zu_mp%zu_%s_%zuxGPU_bs%zu_%zu_lr_vision_%s-language_%s-%s_%s",
                      after_last_slash(c->vlm.vit_model_type), c->vlm.max_img_size,
                      c->vlm.mp_pixel_shuffle_factor, after_last_slash(c->vlm.lm_model_type), world_size,
                      t->batch_size * world_size * t->gradient_accumulation_steps, t->max_training_steps,
                      vision, language, projector, date);
}
