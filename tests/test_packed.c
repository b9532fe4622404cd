// LINK: model ops_cpu
// Weights kept as BF16 and Q8_0: products and embeddings equal those of the same values in F32, for few rows
// and many, at each level of instructions; a GGUF file's Q8_0 blocks are taken over bit by bit.
#include "base/half.h"
#include "base/random.h"
#include "format/gguf.h"
#include "model/backbone.h"
#include "model/generate.h"
#include "model/vlm.h"
#include "ops/cpu/cpu.h"
#include "support/golden.h"
#include "support/guard_backend.h"
#include "support/op_case.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(list) (sizeof(list) / sizeof *(list))

static float *draw(size_t n, uint64_t stream) {
    float *x = malloc(n * sizeof *x + 1);
    Random r = random_stream(4, RANDOM_TEST, stream);
    for (size_t i = 0; i < n; i++) x[i] = (float)(2 * random_uniform(&r) - 1);
    return x;
}

// The values packed, and made what the packed ones stand for.
static void *pack(float *values, Dtype dtype, size_t n) {
    void *packed = malloc(dtype_bytes(dtype, n) + 1);
    if (dtype == DTYPE_Q8_0) {
        gguf_encode(packed, GGUF_TYPE_Q8_0, values, n);
        gguf_decode(values, GGUF_TYPE_Q8_0, packed, n);
    }
    for (size_t i = 0; dtype == DTYPE_BF16 && i < n; i++) {
        ((uint16_t *)packed)[i] = bf16_from_f32(values[i]);
        values[i] = f32_from_bf16(((uint16_t *)packed)[i]);
    }
    return packed;
}

// What operators take: blocks in the backend's order.
static Tensor weight(Backend *be, void *data, Dtype dtype, size_t O, size_t C) {
    const Tensor w = tensor_at(data, dtype, SHAPE(O, C));
    return dtype == DTYPE_Q8_0 ? arrange_weights(be, w) : w;
}

static const Dtype dtypes[] = {DTYPE_F32, DTYPE_BF16, DTYPE_Q8_0};

// What rounding may do to Σ x w, whose terms have the sizes given: that of sums; with Q8_0 that of x to 16
// bits of each block, or 24; with products of BF16 that of x to 8 bits.
static double allowed(const Backend *be, size_t M, Dtype dtype, const float *x, const float *w, size_t C,
                      double size) {
    const double units = be->bf16 ? 2 * 127 * 65536.0 : 2 * 32767.0;
    double rounded = dtype == DTYPE_BF16 && M > 8 && be->bf16 ? size * 0x1p-8 : 0;
    for (size_t k = 0; dtype == DTYPE_Q8_0 && k < C; k += 32) {
        double largest = 0, sum = 0;
        for (size_t i = k; i < k + 32; i++) {
            largest = fmax(largest, fabs(x[i]));
            sum += fabs(w[i]);
        }
        rounded += largest * sum / units;
    }
    return (4 + sqrt((double)C)) * FLT_EPSILON * size + rounded;
}

// y's rows lie apart, guarded by NaN.
static void check_linear(Backend *be, Dtype dtype, size_t M, size_t C, size_t O, bool bias) {
    enum { GAP = 3 };
    float *x = draw(M * C, 1), *values = draw(O * C, 2), *b = draw(O, 3),
          *y = malloc(M * (O + GAP) * sizeof *y);
    void *w = dtype == DTYPE_F32 ? NULL : pack(values, dtype, O * C);
    for (size_t i = 0; i < M * (O + GAP); i++) y[i] = NAN;
    Tensor out = tensor_at(y, DTYPE_F32, SHAPE(M, O + GAP));
    out = tensor_columns(out, 0, O);
    linear_forward(be, out, tensor_at(x, DTYPE_F32, SHAPE(M, C)), weight(be, w ? w : values, dtype, O, C),
                   bias ? tensor_at(b, DTYPE_F32, SHAPE(O)) : TENSOR_NONE);
    for (size_t m = 0; m < M; m++) {
        for (size_t o = 0; o < O; o++) {
            double expected = bias ? b[o] : 0, size = fabs(expected);
            for (size_t k = 0; k < C; k++) {
                const double term = (double)x[m * C + k] * values[o * C + k];
                expected += term;
                size += fabs(term);
            }
            const double limit = allowed(be, M, dtype, x + m * C, values + o * C, C, size);
            expect_within(dtype_name(dtype), fabs(y[m * (O + GAP) + o] - expected) / limit, 1,
                          "%zu x %zu x %zu at %zu, %zu", M, C, O, m, o);
        }
        for (size_t i = O; i < O + GAP; i++) assert_true(isnan(y[m * (O + GAP) + i]));
    }
    free(x), free(values), free(b), free(y), free(w);
}

static Backend *backend(size_t threads) {
    Backend *be;
    Error err;
    if (!backend_cpu_create(&be, threads, &err)) fail_msg("%s", err.text);
    return be;
}

static void products(void **state) {
    (void)state;
    static const size_t sizes[][3] = {{1, 32, 1},   {1, 64, 5},   {1, 160, 33},  {3, 96, 130},
                                      {8, 1056, 7}, {9, 32, 129}, {20, 1088, 3}, {33, 192, 257},
                                      {64, 96, 40}, {257, 64, 3}}; // M, C, O
    for (size_t threads = 1; threads <= 2; threads++) {
        Backend *be = backend(threads);
        for (size_t i = 0; i < COUNT(sizes); i++)
            for (size_t d = 0; d < COUNT(dtypes); d++)
                for (int bias = 0; bias < 2; bias++)
                    check_linear(be, dtypes[d], sizes[i][0], sizes[i][1], sizes[i][2], bias);
        for (size_t C = 1; C < 80; C += 13) // rows that are no multiple of anything
            for (size_t M = 1; M < 12; M += 10) check_linear(be, DTYPE_BF16, M, C, 6, true);
        backend_destroy(be);
    }
}

// A value that is not finite must not be rounded away.
static void not_finite(void **state) {
    (void)state;
    enum { C = 64, O = 17 };
    Backend *be = backend(1);
    const float bad[] = {NAN, INFINITY, -INFINITY};
    for (size_t d = 0; d < COUNT(dtypes); d++)
        for (size_t i = 0; i < COUNT(bad); i++) {
            float *x = draw(C, 1), *values = draw(O * C, 2), y[O] = {0};
            void *w = dtypes[d] == DTYPE_F32 ? NULL : pack(values, dtypes[d], O * C);
            x[40] = bad[i];
            linear_forward(be, tensor_at(y, DTYPE_F32, SHAPE(1, O)), tensor_at(x, DTYPE_F32, SHAPE(1, C)),
                           weight(be, w ? w : values, dtypes[d], O, C), TENSOR_NONE);
            for (size_t o = 0; o < O; o++) assert_false(isfinite(y[o]));
            free(x), free(values), free(w);
        }
    backend_destroy(be);
}

// Whatever the size of x, down to where its scale is no longer a number that F32 has.
static void sizes_of_x(void **state) {
    (void)state;
    enum { C = 64, O = 33 };
    Backend *be = backend(1);
    for (size_t d = 0; d < COUNT(dtypes); d++)
        for (int e = -140; e <= 100; e += 20) {
            float *x = draw(C, 1), *values = draw(O * C, 2), y[O];
            void *w = dtypes[d] == DTYPE_F32 ? NULL : pack(values, dtypes[d], O * C);
            for (size_t i = 0; i < C; i++) x[i] = ldexpf(x[i], e);
            linear_forward(be, tensor_at(y, DTYPE_F32, SHAPE(1, O)), tensor_at(x, DTYPE_F32, SHAPE(1, C)),
                           weight(be, w ? w : values, dtypes[d], O, C), TENSOR_NONE);
            for (size_t o = 0; o < O; o++) {
                double expected = 0;
                for (size_t k = 0; k < C; k++) expected += (double)x[k] * values[o * C + k];
                assert_true(fabs(y[o] - expected) <= ldexp(1e-3, e) + ldexp(1, -94));
            }
            free(x), free(values), free(w);
        }
    backend_destroy(be);
}

static void embeddings(void **state) {
    (void)state;
    enum { V = 37, C = 96, M = 8 }; // two tiles of Q8_0 and five rows more
    static int32_t ids[M] = {36, 0, 17, 17, 31, 32, 15, 3};
    Backend *be = backend(1);
    for (size_t d = 0; d < COUNT(dtypes); d++) {
        float *values = draw(V * C, 5), y[M * C];
        void *table = dtypes[d] == DTYPE_F32 ? NULL : pack(values, dtypes[d], V * C);
        embedding_forward(be, tensor_at(y, DTYPE_F32, SHAPE(M, C)),
                          weight(be, table ? table : values, dtypes[d], V, C),
                          tensor_at(ids, DTYPE_I32, SHAPE(M)));
        for (size_t m = 0; m < M; m++)
            assert_memory_equal(y + m * C, values + (size_t)ids[m] * C, C * sizeof *y);
        free(values);
        free(table);
    }
    backend_destroy(be);
}

static void block_sizes(void **state) {
    (void)state;
    Tensor t = tensor_at((void *)64, DTYPE_Q8_0, SHAPE(5, 64));
    assert_int_equal(tensor_bytes(t), 5 * 2 * 34);
    assert_int_equal(tensor_span(t), 5 * 2 * 34);
    assert_int_equal(tensor_slice(t, 2, 1).data - t.data, 2 * 2 * 34);
    assert_int_equal(dtype_from_name("Q8_0", 4), -1); // no format of safetensors
    assert_int_equal(dtype_from_name("Q8_0 in tiles", 13), -1);
}

// ---- loading ----

typedef struct Loaded {
    VLMConfig config;
    Backbone backbone;
    Vlm model;
} Loaded;

static void load(Loaded *l, Backend *be, const char *path, Dtype weights) {
    Error err;
    *l = (Loaded){0};
    fields_set_defaults((FieldSet){&vlm_config_table, &l->config});
    if (!backbone_open(&l->backbone, BACKBONE_LANGUAGE, path, &err)) fail_msg("%s", err.text);
    l->config.lm_vocab_size = l->config.lm_base_vocab_size = 40;
    l->config.lm_tie_weights = !weights_find(l->backbone.weights, "lm_head.weight");
    const VlmPlan plan = {.max_batch = 1, .max_positions = 10};
    const ParamsForm form = {true, weights};
    if (!backbone_configure(&l->backbone, &l->config, &err) ||
        !vlm_create_form(&l->model, be, &l->config, &plan, &form, &err) ||
        !backbone_load(&l->backbone, &l->model.params, be, &l->config, &(SourceRules){0}, &err))
        fail_msg("%s", err.text);
}

static void unload(Loaded *l) {
    vlm_free(&l->model);
    backbone_close(&l->backbone);
    fields_free((FieldSet){&vlm_config_table, &l->config});
}

static bool is_vector(const Param *p) {
    return p->ndim == 1;
}

static void blocks_of_a_file(void **state) {
    (void)state;
    static const char path[] = "tests/golden/gguf_llama/untied_q8_0/model.gguf";
    Backend *be = backend(1);
    Gguf *file;
    Loaded l;
    Error err;
    size_t compared = 0;
    if (!gguf_open(&file, path, &err)) fail_msg("%s", err.text);
    load(&l, be, path, DTYPE_Q8_0);
    const struct {
        const char *name, *param;
    } tensors[] = {{"token_embd.weight", "decoder.token_embedding.weight"},
                   {"output.weight", "decoder.head.weight"},
                   {"blk.0.ffn_down.weight", "decoder.blocks.0.mlp.down_proj.weight"},
                   {"blk.0.attn_v.weight", "decoder.blocks.0.attn.v_proj.weight"}};
    for (size_t i = 0; i < COUNT(tensors); i++) {
        const GgufTensor *t = gguf_find_tensor(file, tensors[i].name);
        const Param *p = params_find(&l.model.params, tensors[i].param);
        if (t->type != GGUF_TYPE_Q8_0) continue;
        assert_int_equal(p->w.dtype, DTYPE_Q8_TILES);
        assert_int_equal(tensor_bytes(p->w), t->bytes);
        char *blocks = malloc(t->bytes);
        memcpy(blocks, t->data, t->bytes);
        weight(be, blocks, DTYPE_Q8_0, tensor_rows(p->w), tensor_cols(p->w));
        assert_memory_equal(p->w.data, blocks, t->bytes);
        free(blocks);
        compared++;
    }
    assert_true(compared >= 3);
    unload(&l);
    gguf_close(file);
    backend_destroy(be);
}

// Of a decoder alone nothing but the decoder is there, its vectors in F32.
static void what_is_kept(void **state) {
    (void)state;
    Backend *be = backend(1);
    size_t bytes[COUNT(dtypes)];
    for (size_t d = 0; d < COUNT(dtypes); d++) {
        Loaded l;
        load(&l, be, "tests/golden/gguf_llama/tied_f32/model.gguf", dtypes[d]);
        const Params *p = &l.model.params;
        const Dtype kept = dtypes[d] == DTYPE_Q8_0 ? DTYPE_Q8_TILES : dtypes[d];
        assert_null(p->projector);
        assert_null(p->vision.position);
        bytes[d] = 0;
        for (size_t i = 0; i < p->count; i++) {
            assert_true(p->items[i].group == GROUP_LANGUAGE || p->items[i].group == GROUP_BUFFER);
            assert_int_equal(p->items[i].w.dtype, is_vector(&p->items[i]) ? DTYPE_F32 : kept);
            if (!is_vector(&p->items[i])) bytes[d] += tensor_bytes(p->items[i].w);
        }
        unload(&l);
    }
    assert_int_equal(bytes[1] * 2, bytes[0]);
    assert_int_equal(bytes[2] * 128, bytes[0] * 34);
    backend_destroy(be);
}

// Every matrix of a whole model, the kernel of the patches with its four sizes among them, holds the values
// that were put into it.
static void every_matrix_of_a_model(void **state) {
    (void)state;
    Backend *be = backend(1);
    VLMConfig c;
    Params p;
    Error err;
    size_t kernels = 0;
    const FieldSet set = {&vlm_config_table, &c};
    fields_set_defaults(set);
    c.vit_hidden_dim = 64, c.vit_inter_dim = 96, c.vit_n_blocks = c.lm_n_blocks = 1;
    c.lm_hidden_dim = 64, c.lm_n_heads = 2, c.lm_n_kv_heads = 1, c.lm_inter_dim = 160, c.lm_vocab_size = 50;
    c.vit_img_size = 16, c.vit_patch_size = 8;
    params_plan_form(&p, be, &c, &(ParamsForm){false, DTYPE_Q8_0}, (const bool[GROUP_TRAINED]){false});
    if (!params_allocate(&p, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < p.count; i++) {
        Param *q = &p.items[i];
        const size_t rows = q->shape[0], n = q->fan_in;
        if (q->w.dtype != DTYPE_Q8_0) continue;
        float *values = draw(rows * n, i), *back = malloc(rows * n * sizeof *back);
        char *blocks = pack(values, DTYPE_Q8_0, rows * n);
        int32_t *ids = malloc(rows * sizeof *ids);
        for (size_t r = 0; r < rows; r++) ids[r] = (int32_t)r;
        memcpy(q->w.data, blocks, dtype_bytes(DTYPE_Q8_0, rows * n));
        param_arrange(q, be);
        assert_true(q->w.dtype == DTYPE_Q8_TILES && q->product.dtype == DTYPE_Q8_TILES);
        embedding_forward(be, tensor_at(back, DTYPE_F32, SHAPE(rows, n)),
                          tensor_reshape(q->product, SHAPE(rows, n)), tensor_at(ids, DTYPE_I32, SHAPE(rows)));
        assert_memory_equal(back, values, rows * n * sizeof *back);
        kernels += q->ndim == 4;
        free(values), free(back), free(blocks), free(ids);
    }
    assert_int_equal(kernels, 1);
    params_free(&p);
    fields_free(set);
    backend_destroy(be);
}

// A prompt of ten tokens, which takes the product of many rows, and two more, which take that of few.
static float *guarded_logits(Backend *be, const char *path, Dtype weights) {
    static int32_t ids[10] = {1, 5, 9, 2, 30, 31, 3, 3, 8, 12};
    const Batch prompt = {.B = 1, .T = 10, .input_ids = ids};
    float *logits = malloc(3 * 40 * sizeof *logits);
    Loaded l;
    Generation g;
    Error err;
    load(&l, be, path, weights);
    bool ok = generation_create(&g, &l.model, 1, 12, &err) && generation_prefill(&g, &prompt, &err);
    for (int i = 0; ok && i < 3; i++) {
        memcpy(logits + i * 40, generation_logits(&g), 40 * sizeof *logits);
        ok = i == 2 || generation_step(&g, &ids[i], &err);
    }
    if (!ok) fail_msg("%s", err.text);
    generation_free(&g);
    unload(&l);
    backend_destroy(be);
    return logits;
}

// No operator, and nobody else, touches what it was not given: the guard's logits are the CPU's, bit by bit.
static void on_the_guard(void **state) {
    (void)state;
    static const char *const paths[] = {"tests/golden/gguf_llama/untied_q8_0/model.gguf",
                                        "tests/golden/gguf_llama/tied_f32/model.gguf"};
    for (size_t i = 0; i < COUNT(paths); i++)
        for (size_t d = 0; d < COUNT(dtypes); d++) {
            Backend *guard;
            Error err;
            if (!backend_guard_create(&guard, &err)) fail_msg("%s", err.text);
            float *x = guarded_logits(guard, paths[i], dtypes[d]),
                  *y = guarded_logits(backend(1), paths[i], dtypes[d]);
            assert_memory_equal(x, y, 3 * 40 * sizeof *x);
            assert_true(isfinite(x[0]) && x[0] != 0);
            free(x), free(y);
        }
}

static int run_all(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products),     cmocka_unit_test(not_finite),
        cmocka_unit_test(sizes_of_x),   cmocka_unit_test(embeddings),
        cmocka_unit_test(block_sizes),  cmocka_unit_test(blocks_of_a_file),
        cmocka_unit_test(what_is_kept), cmocka_unit_test(every_matrix_of_a_model),
        cmocka_unit_test(on_the_guard),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    print_worst_shares();
    return failed;
}

int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, run_all);
}
