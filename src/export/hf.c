#include "base/file.h"
#include "base/log.h"
#include "base/pyjson.h"
#include "config/config.h"
#include "export/hf_config.h"
#include "export/tensors.h"

#include <math.h>

// ---- what transformers cannot express ----

static bool check_frequencies(const float *factors, size_t n, Error *err) {
    for (size_t i = 1; factors && i < n; i++)
        if (fabsf(factors[i] / factors[0] - 1) > 1e-5f)
            return error_set(err,
                             "decoder.rotary_embd.inv_freq is neither that of lm_re_base nor that divided "
                             "by one number: config.json of transformers cannot hold it; export --to "
                             "gguf, or --to nanovlm");
    return true;
}

static bool check(const ExportSource *s, const float *factors, Error *err) {
    if (s->type == GGUF_TYPE_Q8_0)
        return error_set(err, "--type q8_0: transformers' folders hold f32, f16 or bf16; use --to gguf");
    if (s->part != EXPORT_VISION && s->config->lm_attn_scaling.value != 1)
        return error_set(err,
                         "lm_attn_scaling is %g: Llama in transformers has no such factor; only 1 can be "
                         "exported",
                         s->config->lm_attn_scaling.value);
    return s->part == EXPORT_VISION ||
           check_frequencies(factors, tensor_count(s->params->decoder.inv_freq->w), err);
}

static void warn(const ExportSource *s) {
    if (s->part != EXPORT_ALL) return;
    log_warning("transformers' processor writes pictures otherwise than nanoVLM: the global tile comes last, "
                "rows of tiles end in a line break, pictures are not numbered. A picture of one tile is the "
                "same (docs/export.md tells how to get all of them the same)");
    if (!s->config->resize_to_max_side_len && s->config->max_img_size > s->config->vit_img_size)
        log_warning("resize_to_max_side_len is false: transformers' processor enlarges small pictures to "
                    "max_img_size %zu all the same",
                    s->config->max_img_size);
}

// ---- writing ----

static bool write_text(const char *folder, const char *name, const char *text, Error *err) {
    char *path = path_join(folder, name);
    const bool ok = file_write_text(path, text, strlen(text), err);
    free(path);
    return ok;
}

static bool write_json(const char *folder, const char *name, json_t *owned, Error *err) {
    if (!owned) return false;
    char *text = pyjson_dump(owned, 2);
    const bool ok = write_text(folder, name, text, err);
    free(text);
    json_decref(owned);
    return ok;
}

static bool write_tokenizer(const ExportSource *s, const char *folder, Error *err) {
    char *template = export_hf_chat_template(s);
    const bool ok = write_json(folder, "tokenizer.json", export_hf_tokenizer(s, err), err) &&
                    write_json(folder, "tokenizer_config.json", export_hf_tokenizer_config(s, err), err) &&
                    write_text(folder, "chat_template.jinja", template, err) &&
                    write_json(folder, "generation_config.json", export_hf_generation_config(s), err);
    free(template);
    return ok;
}

static bool write_weights(const ExportSource *s, const char *folder, Error *err) {
    ExportTensors t;
    export_list_hf(&t, s);
    char *path = path_join(folder, "model.safetensors");
    const bool ok = export_write_safetensors(&t, path, err);
    free(path);
    export_tensors_free(&t);
    return ok;
}

bool export_hf(const ExportSource *s, const char *folder, Error *err) {
    float *factors = export_frequency_factors(s);
    bool ok = check(s, factors, err);
    if (ok) warn(s);
    ok = ok && (s->part == EXPORT_VISION || write_tokenizer(s, folder, err)) &&
         write_json(folder, "config.json", export_hf_config(s, factors), err);
    if (ok && s->part != EXPORT_DECODER)
        ok = write_json(folder, "preprocessor_config.json", export_hf_image_processor(s), err);
    if (ok && s->part == EXPORT_ALL)
        ok = write_json(folder, "processor_config.json", export_hf_processor(s), err);
    ok = ok && write_weights(s, folder, err);
    free(factors);
    return ok;
}

bool export_nanovlm(const ExportSource *s, const char *folder, Error *err) {
    char *config = path_join(folder, "config.json"), *weights = path_join(folder, "model.safetensors");
    const bool ok = vlm_config_save(s->config, config, err) && params_save(s->params, s->be, weights, err);
    free(config);
    free(weights);
    return ok;
}
