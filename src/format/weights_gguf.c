// GGUF as a kind of weights: Llama decoders under Hugging Face's names and in its order of rows; tensors that
// have no such name, and files of other architectures, as they are.
#include "base/memory.h"
#include "format/gguf_llama.h"
#include "format/weights_kind.h"

#include <string.h>

typedef struct Source {
    const GgufTensor *tensor;
    size_t head_dim; // of rotated rows; 0: the rows stand as they are
    char name[GGUF_LLAMA_MAX_NAME];
} Source;

typedef struct File {
    Gguf *gguf;
    Source *sources; // one a tensor
} File;

static bool is_llama(const Gguf *g) {
    GgufString architecture;
    const GgufValue *v = gguf_find_value(g, "general.architecture");
    return v && gguf_value_string(v, &architecture) && gguf_string_is(architecture, "llama");
}

// llama.cpp's own kind of shards.
static bool check_whole(const Gguf *g, Error *err) {
    uint64_t parts = 1;
    if (gguf_find_value(g, "split.count") && !gguf_get_u64(g, "split.count", &parts, err)) return false;
    return parts <= 1 || error_set(err,
                                   "%s: field split.count is %llu, expected a whole model; put the parts "
                                   "together with llama-gguf-split --merge",
                                   gguf_path(g), (unsigned long long)parts);
}

static bool name_sources(File *f, Error *err) {
    size_t head_dim;
    if (!gguf_llama_head_dim(f->gguf, &head_dim, err)) return false;
    for (size_t i = 0; i < gguf_tensor_count(f->gguf); i++) {
        Source *s = &f->sources[i];
        bool rotated;
        if (!gguf_llama_name_to_hf(s->name, s->tensor->name, &rotated) || !rotated) continue;
        if (s->tensor->ndim != 2 || s->tensor->n_rows % head_dim)
            return error_set(err, "%s: tensor %s: %zu rows, expected a multiple of %zu, the width of a head",
                             gguf_path(f->gguf), s->tensor->name, s->tensor->n_rows, head_dim);
        s->head_dim = head_dim;
    }
    return true;
}

static void close_file(void *file) {
    File *f = file;
    gguf_close(f->gguf);
    free(f->sources);
    free(f);
}

static bool open_file(void **file, const char *path, Error *err) {
    File *f = mem_zeroed(1, sizeof *f);
    bool ok = gguf_open(&f->gguf, path, err) && check_whole(f->gguf, err);
    if (ok) {
        const size_t n = gguf_tensor_count(f->gguf);
        f->sources = mem_zeroed(n + 1, sizeof *f->sources);
        for (size_t i = 0; i < n; i++) f->sources[i].tensor = gguf_tensor(f->gguf, i);
        ok = !is_llama(f->gguf) || name_sources(f, err);
    }
    if (!ok) close_file(f);
    *file = ok ? f : NULL;
    return ok;
}

static size_t count(const void *file) {
    return gguf_tensor_count(((const File *)file)->gguf);
}

static void describe(WeightsEntry *e, const void *file, size_t i) {
    const Source *s = &((const File *)file)->sources[i];
    e->name = s->name[0] ? s->name : s->tensor->name;
    e->type = gguf_type_name(s->tensor->type);
    e->ndim = s->tensor->ndim;
    memcpy(e->shape, s->tensor->shape, sizeof s->tensor->shape);
    e->count = s->tensor->count;
    e->bytes = s->tensor->bytes;
    e->source = s;
}

static bool read_f32(float *out, const WeightsEntry *e, size_t first, size_t n, Error *err) {
    const Source *s = e->source;
    const size_t width = s->tensor->row_values;
    bool ok = true;
    for (size_t taken; ok && n > 0; first += taken, out += taken, n -= taken) {
        size_t from = first;
        taken = n;
        if (s->head_dim) { // row by row
            const size_t column = first % width;
            from = gguf_llama_row_from_hf(first / width, s->head_dim) * width + column;
            taken = n < width - column ? n : width - column;
        }
        ok = gguf_read_f32(out, s->tensor, from, taken, err);
    }
    return ok || error_prefix(err, "%s", e->file->path);
}

static json_t *config(const void *file, Error *err) {
    return gguf_llama_config(((const File *)file)->gguf, err);
}

const WeightsKind weights_gguf = {
    .name = "GGUF",
    .suffix = ".gguf",
    .magic = "GGUF",
    .open = open_file,
    .close = close_file,
    .count = count,
    .describe = describe,
    .read_f32 = read_f32,
    .config = config,
};
