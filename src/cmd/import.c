// `vlm import`: a SmolVLM or Idefics3 folder of transformers as a nanoVLM checkpoint.
#include "base/log.h"
#include "cmd/cmd.h"
#include "export/export.h"
#include "export/folder.h"
#include "export/import.h"
#include "hub/hub.h"
#include "ops/cpu/cpu.h"

#include <stdlib.h>

typedef struct ImportFlags {
    char *model, *out;
} ImportFlags;

#define AT(field) offsetof(ImportFlags, field)
static const Field import_fields[] = {
    {"model", FIELD_STRING, AT(model), NULL, 0, 0, NULL,
     "SmolVLM, SmolVLM2 (its pictures) or Idefics3: a folder, or a hub name in the local cache"},
    {"out", FIELD_STRING, AT(out), NULL, 0, 0, NULL, "folder of the checkpoint to be made"},
};
static const FieldTable import_table = {"Import", import_fields,
                                        sizeof import_fields / sizeof *import_fields};

static bool save(const VLMConfig *config, const Params *params, Backend *be, const char *out, Error *err) {
    const ExportSource source = {.config = config, .params = params, .be = be};
    char *fresh = export_folder_begin(out, err);
    if (!fresh) return false;
    bool ok = export_nanovlm(&source, fresh, err);
    ok = export_folder_end(fresh, out, ok, err);
    free(fresh);
    return ok;
}

static bool convert(const ImportSource *s, const VLMConfig *config, const char *out, Error *err) {
    Backend *be = NULL;
    Params params = {0};
    bool ok = backend_cpu_create(&be, 0, err) && import_check(s, be, config, err);
    if (ok) params_plan(&params, be, config, (const bool[GROUP_TRAINED]){false});
    ok = ok && params_allocate(&params, err) && import_load(s, &params, be, config, err) &&
         save(config, &params, be, out, err);
    params_free(&params);
    backend_destroy(be);
    return ok;
}

static bool run(const void *flags, Error *err) {
    const ImportFlags *f = flags;
    VLMConfig config;
    const FieldSet set = {&vlm_config_table, &config};
    ImportSource s = {0};
    Tokenizer *tokenizer = NULL;
    char *path = NULL;
    fields_set_defaults(set);
    const bool ok = hub_resolve(&path, f->model, err) && import_open(&s, path, err) &&
                    tokenizer_load(&tokenizer, path, NULL, err) &&
                    import_configure(&s, &config, tokenizer, err) && convert(&s, &config, f->out, err);
    if (ok) log_info("%s: written", f->out);
    tokenizer_free(tokenizer);
    import_close(&s);
    fields_free(set);
    free(path);
    return ok;
}

static bool check_flags(const void *flags, Error *err) {
    const ImportFlags *f = flags;
    if (!f->model) return error_set(err, "--model: not given; name a SmolVLM or Idefics3 folder");
    return f->out || error_set(err, "--out: not given; name the folder to be made");
}

int cmd_import(int argc, char **argv) {
    ImportFlags f;
    return command_run((FieldSet){&import_table, &f}, argc, argv, check_flags, run);
}
