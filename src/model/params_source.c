#include "model/params_source.h"
#include "base/check.h"
#include "base/half.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/random.h"
#include "format/gguf_types.h"
#include "model/positions.h"

#include <stdio.h>
#include <string.h>

// Values are converted and uploaded in pieces that fit into a core's cache, by all threads, which wait for
// one another only at the end.
enum { PIECE_VALUES = 1 << 16 };

ParamSources sources_begin(Params *params, Backend *be, const SourceRules *rules) {
    return (ParamSources){.params = params, .be = be, .rules = *rules};
}

void sources_free(ParamSources *s) {
    vec_free(&s->copies);
    vec_free(&s->rows);
}

size_t sources_bytes(const ParamSources *s) {
    size_t bytes = s->positions ? s->positions->bytes : 0;
    for (size_t i = 0; i < s->copies.count; i++) bytes += s->copies.items[i].entry->bytes;
    return bytes;
}

// ---- what fits ----

static const char *shape_text(char text[128], int ndim, const size_t *shape) {
    size_t used = (size_t)snprintf(text, 128, "[");
    for (int i = 0; i < ndim && used < 128; i++)
        used += (size_t)snprintf(text + used, 128 - used, "%s%zu", i ? ", " : "", shape[i]);
    if (used < 128) snprintf(text + used, 128 - used, "]");
    return text;
}

// The shape without the ones in front: a table of positions is [1, N, C] here and [N, C] in SigLIP's files.
static int plain_shape(size_t out[WEIGHTS_MAX_DIMS], int ndim, const size_t *shape) {
    int skip = 0;
    while (skip < ndim - 1 && shape[skip] == 1) skip++;
    for (int i = skip; i < ndim; i++) out[i - skip] = shape[i];
    return ndim - skip;
}

static bool same_but_rows(int n, const size_t *a, int m, const size_t *b) {
    return n == m && n > 0 && (n == 1 || memcmp(a + 1, b + 1, (size_t)(n - 1) * sizeof *a) == 0);
}

static bool add_more_rows(ParamSources *s, const Param *p, const WeightsEntry *e, size_t stream) {
    const bool vocabulary = p == s->params->decoder.embedding || p == s->params->decoder.head;
    if (!vocabulary || !s->rules.more_rows || e->shape[0] > p->shape[0]) return false;
    vec_push(&s->rows, (SourceRows){p, e->shape[0], stream});
    vec_push(&s->copies, (SourceCopy){p, 0, e});
    return true;
}

static bool add_other_grid(ParamSources *s, const Param *p, const WeightsEntry *e, const size_t *found,
                           const size_t *expected) {
    if (p != s->params->vision.position) return false;
    const char *mode = s->rules.interpolate;
    const size_t from = positions_side(found[0]), to = positions_side(expected[0]);
    if (from && to && mode && strcmp(mode, "none")) {
        s->positions = e;
        return true;
    }
    misfit(&s->misfits,
           "tensor %.120s has positions of %zu patches, vit_img_size and vit_patch_size give %zu; give the "
           "size it "
           "was made for, or --interpolate_positions bicubic (square grids only)",
           e->name, found[0], expected[0]);
    return true;
}

void sources_add(ParamSources *s, const Param *p, const WeightsEntry *e, size_t part, size_t parts,
                 size_t stream) {
    size_t found[WEIGHTS_MAX_DIMS], expected[WEIGHTS_MAX_DIMS], whole[TENSOR_MAX_DIMS];
    memcpy(whole, p->shape, sizeof whole);
    whole[0] /= parts;
    const int n = plain_shape(found, e->ndim, e->shape), m = plain_shape(expected, p->ndim, whole);
    if (same_but_rows(n, found, m, expected)) {
        if (found[0] == expected[0]) {
            vec_push(&s->copies, (SourceCopy){p, part * (tensor_count(p->w) / parts), e});
            return;
        }
        if (add_more_rows(s, p, e, stream) || add_other_grid(s, p, e, found, expected)) return;
    }
    char a[128], b[128];
    misfit(&s->misfits, "tensor %.120s has shape %s, the configuration expects %s", e->name,
           shape_text(a, e->ndim, e->shape), shape_text(b, m, expected));
}

// ---- reading ----

typedef struct Reading {
    const ParamSources *sources;
    size_t *bad;                 // values that are not finite, a copy
    size_t failed, failed_first; // the first copy that could not be read, and from which value on
} Reading;

static size_t count_not_finite(const float *x, size_t n) {
    size_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, &x[i], sizeof bits);
        bad += (bits & 0x7f800000) == 0x7f800000;
    }
    return bad;
}

// Makes the values what the parameter keeps, where they stand: no format is wider than F32. A Q8_0 block that
// llama.cpp made comes out as it was, because its largest number is always 127 times the scale.
static void pack(float *values, Dtype dtype, size_t n) {
    float block[32];
    char *out = (char *)values;
    CHECK(dtype != DTYPE_Q8_TILES, "loaded a second time");
    if (dtype == DTYPE_BF16)
        for (size_t i = 0; i < n; i++) {
            const uint16_t half = bf16_from_f32(values[i]);
            memcpy(out + 2 * i, &half, sizeof half);
        }
    for (size_t i = 0; dtype == DTYPE_Q8_0 && i < n; i += 32, out += dtype_bytes(dtype, 32)) {
        memcpy(block, values + i, sizeof block);
        gguf_encode(out, GGUF_TYPE_Q8_0, block, 32);
    }
}

static bool read_piece(float *values, const SourceCopy *copy, size_t first, Error *err) {
    const size_t left = copy->entry->count - first;
    return weights_read_f32(values, copy->entry, first, left < PIECE_VALUES ? left : PIECE_VALUES, err);
}

static void upload_piece(const Reading *r, size_t c, size_t first, float *values) {
    const SourceCopy *copy = &r->sources->copies.items[c];
    const Tensor w = copy->param->w, flat = tensor_reshape(w, SHAPE(tensor_count(w)));
    const size_t left = copy->entry->count - first, n = left < PIECE_VALUES ? left : PIECE_VALUES;
    const size_t bad = count_not_finite(values, n);
    if (bad) {
#pragma omp atomic
        r->bad[c] += bad;
    }
    pack(values, w.dtype, n);
    tensor_upload(r->sources->be, STREAM_COMPUTE, tensor_slice(flat, copy->first + first, n), values);
    backend_sync(r->sources->be);
}

// In a parallel region, by all its threads.
static void read_copy(Reading *r, size_t c, float *values) {
    const SourceCopy *copy = &r->sources->copies.items[c];
#pragma omp for schedule(dynamic) nowait
    for (size_t first = 0; first < copy->entry->count; first += PIECE_VALUES) {
        if (read_piece(values, copy, first, NULL)) {
            upload_piece(r, c, first, values);
            continue;
        }
#pragma omp critical
        if (c < r->failed) r->failed = c, r->failed_first = first;
    }
}

static bool read_all(Reading *r, Error *err) {
    const size_t count = r->sources->copies.count;
    r->failed = count;
#pragma omp parallel
    {
        float *values = mem_alloc(PIECE_VALUES * sizeof *values);
        for (size_t c = 0; c < count; c++) read_copy(r, c, values);
        free(values);
    }
    if (r->failed == count) return true;
    float *values = mem_alloc(PIECE_VALUES * sizeof *values); // again, for its message
    const bool ok = read_piece(values, &r->sources->copies.items[r->failed], r->failed_first, err);
    CHECK(!ok, "what could not be read can be");
    free(values);
    return false;
}

static bool report_not_finite(const Reading *r, Error *err) {
    const size_t n = r->sources->copies.count;
    size_t first = n, tensors = 0;
    for (size_t c = n; c-- > 0;)
        if (r->bad[c]) first = c, tensors++;
    if (tensors == 0) return true;
    const WeightsEntry *e = r->sources->copies.items[first].entry;
    return error_set(
        err,
        "%s: tensor %s: %zu of %zu values are NaN or infinite (%zu tensors have such values); these "
        "weights cannot be used",
        weights_entry_path(e), e->name, r->bad[first], e->count, tensors);
}

static bool read_copies(const ParamSources *s, Error *err) {
    Reading r = {.sources = s, .bad = mem_zeroed(s->copies.count + 1, sizeof *r.bad)};
    const bool ok = read_all(&r, err) && report_not_finite(&r, err);
    free(r.bad);
    return ok;
}

static void draw_rows(const ParamSources *s, const SourceRows *rows) {
    Tensor fresh = tensor_slice(rows->param->w, rows->first, rows->param->shape[0] - rows->first);
    const size_t n = tensor_count(fresh);
    float *x = mem_alloc(n * sizeof *x + 1);
    Random random = random_stream(s->rules.seed, RANDOM_INIT, rows->stream);
    random_normals(x, n, 0.02, &random, 0);
    pack(x, fresh.dtype, n);
    tensor_upload(s->be, STREAM_COMPUTE, fresh, x);
    backend_sync(s->be);
    free(x);
}

static bool interpolate_positions(const ParamSources *s, Error *err) {
    const WeightsEntry *e = s->positions;
    const Param *p = s->params->vision.position;
    const size_t C = p->shape[2];
    float *in = mem_alloc(e->count * sizeof *in), *out = mem_alloc(tensor_bytes(p->w));
    bool ok = weights_read_f32(in, e, 0, e->count, err);
    if (ok && count_not_finite(in, e->count))
        ok = error_set(err, "%s: tensor %s holds NaN or infinite values", weights_entry_path(e), e->name);
    if (ok) {
        const size_t from = positions_side(e->count / C), to = positions_side(p->shape[1]);
        positions_interpolate(out, to, in, from, C, !strcmp(s->rules.interpolate, "bicubic"));
        log_info("%s: a grid of %zu x %zu made %zu x %zu, %s", p->name, from, from, to, to,
                 s->rules.interpolate);
        tensor_upload(s->be, STREAM_COMPUTE, p->w, out);
        backend_sync(s->be);
    }
    free(in);
    free(out);
    return ok;
}

bool sources_load(const ParamSources *s, Error *err) {
    if (!read_copies(s, err)) return false;
    for (size_t i = 0; i < s->rows.count; i++) {
        const SourceRows *rows = &s->rows.items[i];
        draw_rows(s, rows);
        log_info("%s: %zu rows from the file, %zu new ones drawn", rows->param->name, rows->first,
                 rows->param->shape[0] - rows->first);
    }
    if (s->positions && !interpolate_positions(s, err)) return false;
    for (size_t i = 0; i < s->copies.count; i++)
        param_arrange(&s->params->items[s->copies.items[i].param - s->params->items], s->be);
    for (size_t i = 0; i < s->params->count; i++) param_refresh(&s->params->items[i], s->be);
    return true;
}
