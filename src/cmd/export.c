// `vlm export`: a checkpoint in the layout of nanoVLM, transformers or llama.cpp.
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/session.h"
#include "export/export.h"
#include "export/folder.h"
#include "hub/hub.h"
#include "model/checkpoint.h"
#include "ops/cpu/cpu.h"

#include <stdlib.h>
#include <string.h>

typedef struct ExportFlags {
    char *checkpoint, *out, *to, *part, *type, *lm_tokenizer, *name, *adapter;
} ExportFlags;

#define AT(field) offsetof(ExportFlags, field)
static const Field export_fields[] = {
    {"checkpoint", FIELD_STRING, AT(checkpoint), NULL, 0, 0, NULL,
     "folder with config.json and model.safetensors"},
    {"out", FIELD_STRING, AT(out), NULL, 0, 0, NULL, "folder to be made"},
    {"to", FIELD_STRING, AT(to), "hf", 0, 0, "hf|gguf|nanovlm",
     "transformers (Idefics3, as SmolVLM), llama.cpp, or nanoVLM"},
    {"part", FIELD_STRING, AT(part), "all", 0, 0, "all|decoder|vision",
     "the whole model, the language model (Llama), or the vision encoder (SigLIP)"},
    {"type", FIELD_STRING, AT(type), "f32", 0, 0, "f32|f16|bf16|q8_0", "of the matrices; q8_0 in gguf only"},
    {"name", FIELD_STRING, AT(name), "model", 0, 0, NULL,
     "of gguf files: NAME-TYPE.gguf, mmproj-NAME-TYPE.gguf"},
    {"adapter", FIELD_STRING, AT(adapter), NULL, 0, 0, NULL,
     "folder with PEFT's adapter_config.json and adapter_model.safetensors, merged into the weights"},
    {"lm_tokenizer", FIELD_STRING, AT(lm_tokenizer), NULL, 0, 0, NULL,
     "tokenizer folder instead of the checkpoint's"},
};
static const FieldTable export_table = {"Export", export_fields,
                                        sizeof export_fields / sizeof *export_fields};

static bool write_folder(const ExportSource *s, const ExportFlags *f, Error *err) {
    char *fresh = export_folder_begin(f->out, err);
    if (!fresh) return false;
    bool ok = !strcmp(f->to, "hf")     ? export_hf(s, fresh, err)
              : !strcmp(f->to, "gguf") ? export_gguf(s, fresh, f->name, err)
                                       : export_nanovlm(s, fresh, err);
    ok = export_folder_end(fresh, f->out, ok, err);
    free(fresh);
    return ok;
}

static ExportPart part_of(const char *name) {
    return !strcmp(name, "decoder") ? EXPORT_DECODER : !strcmp(name, "vision") ? EXPORT_VISION : EXPORT_ALL;
}

static bool load_params(Params *p, Backend *be, const Session *s, Error *err) {
    char *path;
    if (s->decoder_alone)
        return error_set(err, "--checkpoint: %s is a decoder alone; whole checkpoints can be exported",
                         s->path);
    if (!checkpoint_find_weights(&path, s->path, err)) return false;
    params_plan(p, be, &s->config, (const bool[GROUP_TRAINED]){false});
    const bool ok = params_allocate(p, err) && params_load(p, be, path, err);
    free(path);
    return ok;
}

static bool run(const void *flags, Error *err) {
    const ExportFlags *f = flags;
    Session s;
    Params params = {0};
    char *tokenizer = NULL;
    if (!session_open(&s, f->checkpoint, f->lm_tokenizer, err)) return false;
    bool ok = hub_resolve(&tokenizer, f->lm_tokenizer ? f->lm_tokenizer : s.config.lm_tokenizer, err) &&
              backend_cpu_create(&s.be, 0, err) && load_params(&params, s.be, &s, err) &&
              session_merge(&params, s.be, s.path, f->adapter, err);
    const ExportSource source = {.config = &s.config,
                                 .params = &params,
                                 .be = s.be,
                                 .tokenizer = s.tokenizer,
                                 .tokenizer_path = tokenizer,
                                 .chat = &s.chat,
                                 .part = part_of(f->part),
                                 .type = (GgufType)gguf_type_from_name(f->type)};
    ok = ok && write_folder(&source, f, err);
    if (ok) log_info("%s: written", f->out);
    free(tokenizer);
    params_free(&params);
    session_close(&s);
    return ok;
}

static bool check_flags(const void *flags, Error *err) {
    const ExportFlags *f = flags;
    if (!f->checkpoint)
        return error_set(err,
                         "--checkpoint: not given; name a folder with config.json and model.safetensors");
    if (!f->out) return error_set(err, "--out: not given; name the folder to be made");
    if (!strcmp(f->to, "nanovlm") && (strcmp(f->part, "all") || strcmp(f->type, "f32")))
        return error_set(err, "--to nanovlm: nanoVLM's checkpoints hold the whole model in f32; leave out "
                              "--part and --type");
    if (!*f->name || strchr(f->name, '/'))
        return error_set(err, "--name \"%s\": expected the name of a file, without a folder", f->name);
    return true;
}

int cmd_export(int argc, char **argv) {
    ExportFlags f;
    return command_run((FieldSet){&export_table, &f}, argc, argv, check_flags, run);
}
