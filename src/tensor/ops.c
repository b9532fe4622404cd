// The way from a call to a kernel: check the arguments, show them to the hooks, jump through the backend's
// table.
#include "tensor/ops.h"
#include "base/check.h"
#include "tensor/ops_table.h"

#include <stdio.h>

#define LIST(...) __VA_ARGS__
// Tensors stand in the order that both the hooks and the kernel take them: those written first, then those
// read; what follows are the kernel's other arguments.
#define RUN(op, n_written, list, ...) RUN_CAUSAL(false, op, n_written, list, __VA_ARGS__)
#define RUN_CAUSAL(is_causal, op, n_written, list, ...)                                                      \
    do {                                                                                                     \
        const Tensor tensors_[] = {LIST list};                                                               \
        const OpCall call_ = {#op, tensors_, n_written, sizeof tensors_ / sizeof *tensors_, is_causal};      \
        if (be->op_enter) be->op_enter(be, &call_);                                                          \
        be->ops->op(be, LIST list __VA_OPT__(, ) __VA_ARGS__);                                               \
        if (be->op_leave) be->op_leave(be, &call_);                                                          \
    } while (0)

typedef struct TensorText {
    char text[120];
} TensorText;

// "F32 [2, 3:40]": the sizes, with the stride of each dimension after a colon where it isn't the packed one.
static TensorText describe(Tensor t) {
    TensorText d;
    size_t packed = 1, strides[TENSOR_MAX_DIMS] = {0};
    for (int i = t.ndim - 1; i >= 0; i--) {
        strides[i] = packed;
        packed *= t.shape[i];
    }
    int used = snprintf(d.text, sizeof d.text, "%s%s [", t.data ? "" : "no data, ", dtype_name(t.dtype));
    for (int i = 0; i < t.ndim && used < (int)sizeof d.text; i++) {
        used += snprintf(d.text + used, sizeof d.text - (size_t)used, "%s%zu", i ? ", " : "", t.shape[i]);
        if (t.stride[i] != strides[i] && used < (int)sizeof d.text)
            used += snprintf(d.text + used, sizeof d.text - (size_t)used, ":%zu", t.stride[i]);
    }
    if (used < (int)sizeof d.text) snprintf(d.text + used, sizeof d.text - (size_t)used, "]");
    return d;
}

static bool has_memory(Tensor t) {
    return t.ndim >= 1 && (t.data || tensor_count(t) == 0);
}
static bool has_shape(Tensor t, int ndim, const size_t *shape) {
    if (t.ndim != ndim) return false;
    for (int i = 0; i < ndim; i++)
        if (t.shape[i] != shape[i]) return false;
    return true;
}

// CHECK as an expression, so that the checks of several arguments make one statement.
#define REQUIRE(condition, ...)                                                                              \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, __func__, #condition, __VA_ARGS__))
#define CHECK_PLAIN(t, type)                                                                                 \
    REQUIRE(has_memory(t) && (t).dtype == (type) && tensor_is_contiguous(t), #t " is %s", describe(t).text)
#define CHECK_F32(t) CHECK_PLAIN(t, DTYPE_F32)
#define CHECK_I32(t) CHECK_PLAIN(t, DTYPE_I32)
// A matrix of weights, which may be packed: its rows are whole blocks then.
#define CHECK_WEIGHT(t)                                                                                      \
    REQUIRE(has_memory(t) && tensor_is_contiguous(t) &&                                                      \
                ((t).dtype == DTYPE_F32 || (t).dtype == DTYPE_BF16 || (t).dtype == DTYPE_Q8_TILES) &&        \
                tensor_cols(t) % dtype_block((t).dtype) == 0,                                                \
            #t " is %s", describe(t).text)
#define IS_FLOAT(t) ((t).dtype == DTYPE_F32 || (t).dtype == DTYPE_BF16)
#define CHECK_FLOAT(t)                                                                                       \
    REQUIRE(has_memory(t) && IS_FLOAT(t) && tensor_is_contiguous(t), #t " is %s", describe(t).text)
#define CHECK_STRIDED_FLOAT(t)                                                                               \
    REQUIRE(has_memory(t) && IS_FLOAT(t) && tensor_row_stride(t) >= tensor_cols(t), #t " is %s",             \
            describe(t).text)
#define CHECK_STRIDED(t)                                                                                     \
    REQUIRE(has_memory(t) && (t).dtype == DTYPE_F32 && tensor_row_stride(t) >= tensor_cols(t), #t " is %s",  \
            describe(t).text)
#define CHECK_LIKE(a, b)                                                                                     \
    REQUIRE((a).dtype == (b).dtype, #a " is %s, " #b " %s", describe(a).text, describe(b).text)
// The result of a product: BF16 only of BF16 factors.
#define CHECK_PRODUCT(c, a)                                                                                  \
    REQUIRE((c).dtype == DTYPE_F32 || (a).dtype == DTYPE_BF16, #c " is %s, " #a " %s", describe(c).text,     \
            describe(a).text)
#define CHECK_SAME(a, b)                                                                                     \
    REQUIRE(tensor_same_shape(a, b), #a " is %s, " #b " %s", describe(a).text, describe(b).text)
#define CHECK_MATRIX(t, n_rows, n_cols)                                                                      \
    REQUIRE(tensor_rows(t) == (n_rows) && tensor_cols(t) == (n_cols), #t " is %s, expected %zu rows of %zu", \
            describe(t).text, (size_t)(n_rows), (size_t)(n_cols))
#define CHECK_COUNT(t, n)                                                                                    \
    REQUIRE(tensor_count(t) == (n), #t " is %s, expected %zu values", describe(t).text, (size_t)(n))
#define CHECK_SHAPE(t, ...) REQUIRE(has_shape(t, SHAPE(__VA_ARGS__)), #t " is %s", describe(t).text)

// ---- moving values ----

void fill(Backend *be, Tensor x, float value) {
    CHECK_F32(x);
    if (tensor_count(x)) RUN(fill, 1, (x), value);
}

void copy(Backend *be, Tensor y, Tensor x) {
    CHECK_SAME(y, x);
    CHECK(has_memory(x) && has_memory(y), "y is %s, x %s", describe(y).text, describe(x).text);
    CHECK(tensor_row_stride(y) >= tensor_cols(y), "y is %s", describe(y).text);
    CHECK(tensor_row_stride(x) >= tensor_cols(x), "x is %s", describe(x).text);
    CHECK((x.dtype == DTYPE_F32 && y.dtype == DTYPE_BF16) ||
              (x.dtype == DTYPE_BF16 && y.dtype == DTYPE_F32) || x.dtype == y.dtype,
          "%s to %s", dtype_name(x.dtype), dtype_name(y.dtype));
    if (tensor_count(y)) RUN(copy, 1, (y, x));
}

void add(Backend *be, Tensor y, Tensor a, Tensor b) {
    CHECK_F32(y), CHECK_F32(a), CHECK_FLOAT(b);
    CHECK_SAME(y, a), CHECK_SAME(y, b);
    if (tensor_count(y)) RUN(add, 1, (y, a, b));
}

void multiply(Backend *be, Tensor x, float factor) {
    CHECK_FLOAT(x);
    if (tensor_count(x)) RUN(multiply, 1, (x), factor);
}

void gather_rows(Backend *be, Tensor y, Tensor x, Tensor rows) {
    CHECK_FLOAT(y), CHECK_FLOAT(x), CHECK_I32(rows);
    CHECK_MATRIX(y, tensor_count(rows), tensor_cols(x));
    if (tensor_count(y)) RUN(gather_rows, 1, (y, x, rows));
}

void scatter_rows(Backend *be, Tensor y, Tensor x, Tensor rows) {
    CHECK_FLOAT(y), CHECK_FLOAT(x), CHECK_I32(rows);
    CHECK_MATRIX(x, tensor_count(rows), tensor_cols(y));
    if (tensor_count(x)) RUN(scatter_rows, 1, (y, x, rows));
}

void zero_rows(Backend *be, Tensor y, Tensor rows) {
    CHECK_F32(y), CHECK_I32(rows);
    if (tensor_count(rows)) RUN(zero_rows, 1, (y, rows));
}

// ---- linear ----

Tensor arrange_weights(Backend *be, Tensor w) {
    CHECK_PLAIN(w, DTYPE_Q8_0);
    CHECK(tensor_cols(w) % dtype_block(w.dtype) == 0, "w is %s", describe(w).text);
    if (tensor_count(w)) RUN(arrange_weights, 1, (w));
    w.dtype = DTYPE_Q8_TILES;
    return w;
}

void linear_forward(Backend *be, Tensor y, Tensor x, Tensor w, Tensor b) {
    CHECK_STRIDED_FLOAT(y), CHECK_STRIDED_FLOAT(x), CHECK_WEIGHT(w), CHECK_PRODUCT(y, x);
    if (x.dtype != DTYPE_F32) CHECK_FLOAT(w);
    CHECK_MATRIX(w, tensor_cols(y), tensor_cols(x));
    CHECK_MATRIX(y, tensor_rows(x), tensor_rows(w));
    if (tensor_exists(b)) {
        CHECK_F32(b);
        CHECK_COUNT(b, tensor_cols(y));
    }
    if (tensor_count(y)) RUN(linear_forward, 1, (y, x, w, b));
}

void linear_backward_input(Backend *be, Tensor dx, Tensor dy, Tensor w, bool accumulate) {
    CHECK_STRIDED_FLOAT(dx), CHECK_STRIDED_FLOAT(dy), CHECK_FLOAT(w);
    if (dy.dtype == DTYPE_F32) CHECK_LIKE(w, dy);
    CHECK_PRODUCT(dx, dy);
    CHECK_MATRIX(w, tensor_cols(dy), tensor_cols(dx));
    CHECK_MATRIX(dy, tensor_rows(dx), tensor_rows(w));
    if (tensor_count(dx)) RUN(linear_backward_input, 1, (dx, dy, w), accumulate);
}

void linear_backward_weight(Backend *be, Tensor dw, Tensor db, Tensor dy, Tensor x) {
    CHECK_F32(dw), CHECK_STRIDED_FLOAT(dy), CHECK_STRIDED_FLOAT(x), CHECK_LIKE(dy, x);
    CHECK_MATRIX(dw, tensor_cols(dy), tensor_cols(x));
    CHECK_MATRIX(dy, tensor_rows(x), tensor_rows(dw));
    if (tensor_exists(db)) {
        CHECK_F32(db);
        CHECK_COUNT(db, tensor_cols(dy));
    }
    if (tensor_count(dy)) RUN(linear_backward_weight, 2, (dw, db, dy, x));
}

// ---- normalisation ----

void layer_norm_forward(Backend *be, Tensor y, Tensor mean, Tensor rstd, Tensor x, Tensor w, Tensor b,
                        float eps) {
    CHECK_FLOAT(y), CHECK_F32(mean), CHECK_F32(rstd), CHECK_STRIDED(x), CHECK_F32(w), CHECK_F32(b);
    CHECK_MATRIX(y, tensor_rows(x), tensor_cols(x));
    CHECK_COUNT(mean, tensor_rows(x)), CHECK_COUNT(rstd, tensor_rows(x));
    CHECK_COUNT(w, tensor_cols(x)), CHECK_COUNT(b, tensor_cols(x));
    if (tensor_count(y)) RUN(layer_norm_forward, 3, (y, mean, rstd, x, w, b), eps);
}

static void check_rounded(Tensor rounded, Tensor x) {
    if (!tensor_exists(rounded)) return;
    CHECK_PLAIN(rounded, DTYPE_BF16);
    CHECK_MATRIX(rounded, tensor_rows(x), tensor_cols(x));
}

void layer_norm_backward(Backend *be, Tensor dx, Tensor rounded, Tensor dw, Tensor db, Tensor dy, Tensor x,
                         Tensor w, Tensor mean, Tensor rstd) {
    check_rounded(rounded, x);
    CHECK_STRIDED(dx), CHECK_FLOAT(dy), CHECK_STRIDED(x), CHECK_F32(w), CHECK_F32(mean), CHECK_F32(rstd);
    CHECK_MATRIX(dx, tensor_rows(x), tensor_cols(x)), CHECK_MATRIX(dy, tensor_rows(x), tensor_cols(x));
    CHECK_COUNT(mean, tensor_rows(x)), CHECK_COUNT(rstd, tensor_rows(x)), CHECK_COUNT(w, tensor_cols(x));
    CHECK(tensor_exists(dw) == tensor_exists(db), "dw is %s, db %s", describe(dw).text, describe(db).text);
    if (tensor_exists(dw)) {
        CHECK_F32(dw), CHECK_F32(db);
        CHECK_COUNT(dw, tensor_cols(x)), CHECK_COUNT(db, tensor_cols(x));
    }
    if (tensor_count(dy)) RUN(layer_norm_backward, 4, (dx, rounded, dw, db, dy, x, w, mean, rstd));
}

void rms_norm_forward(Backend *be, Tensor y, Tensor rstd, Tensor x, Tensor w, float eps) {
    CHECK_FLOAT(y), CHECK_F32(rstd), CHECK_F32(x), CHECK_F32(w);
    CHECK_MATRIX(y, tensor_rows(x), tensor_cols(x));
    CHECK_COUNT(rstd, tensor_rows(x)), CHECK_COUNT(w, tensor_cols(x));
    if (tensor_count(y)) RUN(rms_norm_forward, 2, (y, rstd, x, w), eps);
}

void rms_norm_backward(Backend *be, Tensor dx, Tensor rounded, Tensor dw, Tensor dy, Tensor x, Tensor w,
                       Tensor rstd) {
    check_rounded(rounded, x);
    CHECK_F32(dx), CHECK_FLOAT(dy), CHECK_F32(x), CHECK_F32(w), CHECK_F32(rstd);
    CHECK_MATRIX(dx, tensor_rows(x), tensor_cols(x)), CHECK_MATRIX(dy, tensor_rows(x), tensor_cols(x));
    CHECK_COUNT(rstd, tensor_rows(x)), CHECK_COUNT(w, tensor_cols(x));
    if (tensor_exists(dw)) {
        CHECK_F32(dw);
        CHECK_COUNT(dw, tensor_cols(x));
    }
    if (tensor_count(dy)) RUN(rms_norm_backward, 3, (dx, rounded, dw, dy, x, w, rstd));
}

static void check_add(Tensor sum, Tensor y, Tensor rstd, Tensor x, Tensor branch, Tensor w) {
    CHECK_F32(sum), CHECK_FLOAT(y), CHECK_F32(rstd), CHECK_F32(x), CHECK_FLOAT(branch), CHECK_F32(w);
    CHECK_SAME(sum, x), CHECK_SAME(branch, x), CHECK_LIKE(branch, y);
    CHECK_MATRIX(y, tensor_rows(x), tensor_cols(x));
    CHECK_COUNT(rstd, tensor_rows(x)), CHECK_COUNT(w, tensor_cols(x));
}

void add_layer_norm_forward(Backend *be, Tensor sum, Tensor y, Tensor mean, Tensor rstd, Tensor x,
                            Tensor branch, Tensor w, Tensor b, float eps) {
    check_add(sum, y, rstd, x, branch, w);
    CHECK_F32(mean), CHECK_F32(b), CHECK_COUNT(mean, tensor_rows(x)), CHECK_COUNT(b, tensor_cols(x));
    if (tensor_count(y)) RUN(add_layer_norm_forward, 4, (sum, y, mean, rstd, x, branch, w, b), eps);
}

void add_rms_norm_forward(Backend *be, Tensor sum, Tensor y, Tensor rstd, Tensor x, Tensor branch, Tensor w,
                          float eps) {
    check_add(sum, y, rstd, x, branch, w);
    if (tensor_count(y)) RUN(add_rms_norm_forward, 3, (sum, y, rstd, x, branch, w), eps);
}

// ---- activations ----

void gelu_forward(Backend *be, Tensor y, Tensor x) {
    CHECK_FLOAT(y), CHECK_FLOAT(x), CHECK_LIKE(y, x), CHECK_SAME(y, x);
    if (tensor_count(y)) RUN(gelu_forward, 1, (y, x));
}

void gelu_backward(Backend *be, Tensor dx, Tensor y, Tensor dy, Tensor x) {
    CHECK_FLOAT(dx), CHECK_FLOAT(dy), CHECK_FLOAT(x), CHECK_LIKE(dx, x), CHECK_LIKE(dy, x);
    CHECK_SAME(dx, x), CHECK_SAME(dy, x);
    if (tensor_exists(y)) CHECK_FLOAT(y), CHECK_LIKE(y, x), CHECK_SAME(y, x);
    if (tensor_count(dx)) RUN(gelu_backward, 2, (dx, y, dy, x));
}

void swiglu_forward(Backend *be, Tensor y, Tensor gate, Tensor up) {
    CHECK_FLOAT(y), CHECK_FLOAT(gate), CHECK_FLOAT(up), CHECK_LIKE(y, gate), CHECK_LIKE(up, gate);
    CHECK_SAME(y, gate), CHECK_SAME(y, up);
    if (tensor_count(y)) RUN(swiglu_forward, 1, (y, gate, up));
}

void swiglu_backward(Backend *be, Tensor dgate, Tensor dup, Tensor y, Tensor dy, Tensor gate, Tensor up) {
    CHECK_FLOAT(dgate), CHECK_FLOAT(dup), CHECK_FLOAT(dy), CHECK_FLOAT(gate), CHECK_FLOAT(up);
    CHECK_LIKE(dgate, gate), CHECK_LIKE(dup, gate), CHECK_LIKE(dy, gate), CHECK_LIKE(up, gate);
    CHECK_SAME(dgate, gate), CHECK_SAME(dup, gate), CHECK_SAME(dy, gate), CHECK_SAME(up, gate);
    if (tensor_exists(y)) CHECK_FLOAT(y), CHECK_LIKE(y, gate), CHECK_SAME(y, gate);
    if (tensor_count(dy)) RUN(swiglu_backward, 3, (dgate, dup, y, dy, gate, up));
}

// ---- rotary positions ----

void rope_table(Backend *be, Tensor cos, Tensor sin, Tensor positions, Tensor inv_freq, float divisor,
                float scaling) {
    CHECK_F32(cos), CHECK_F32(sin), CHECK_I32(positions), CHECK_F32(inv_freq);
    CHECK_MATRIX(cos, tensor_count(positions), 2 * tensor_count(inv_freq));
    CHECK_SAME(sin, cos);
    if (tensor_count(cos)) RUN(rope_table, 2, (cos, sin, positions, inv_freq), divisor, scaling);
}

static void check_rotation(Tensor x, Tensor cos, Tensor sin) {
    CHECK_FLOAT(x), CHECK_F32(cos), CHECK_F32(sin);
    CHECK(x.dtype == DTYPE_F32 || tensor_cols(x) <= ATTENTION_MAX_D, "x is %s", describe(x).text);
    CHECK(x.ndim == 3 && tensor_cols(x) == tensor_cols(cos) && tensor_cols(x) % 2 == 0, "x is %s, cos %s",
          describe(x).text, describe(cos).text);
    CHECK_SAME(sin, cos);
    CHECK(tensor_count(x) == 0 || tensor_rows(cos) > 0, "no rows of cos");
}

void rope_forward(Backend *be, Tensor x, Tensor cos, Tensor sin) {
    check_rotation(x, cos, sin);
    if (tensor_count(x)) RUN(rope_forward, 1, (x, cos, sin));
}

void rope_backward(Backend *be, Tensor dx, Tensor cos, Tensor sin) {
    check_rotation(dx, cos, sin);
    if (tensor_count(dx)) RUN(rope_backward, 1, (dx, cos, sin));
}

// ---- attention ----

// [B, T, heads, D] with heads adjacent, strided in B and T.
#define CHECK_HEADS(t, batch, length, heads, size)                                                           \
    do {                                                                                                     \
        CHECK_SHAPE(t, batch, length, heads, size);                                                          \
        CHECK(has_memory(t) && t.dtype == q.dtype && t.stride[3] == 1 && t.stride[2] == t.shape[3],          \
              #t " is %s", describe(t).text);                                                                \
    } while (0)

static void check_attention(Tensor q, Tensor k, Tensor v, Tensor o, Tensor lse, Tensor mask, Tensor starts,
                            bool causal) {
    CHECK(q.ndim == 4 && k.ndim == 4, "q is %s, k %s", describe(q).text, describe(k).text);
    CHECK(q.dtype == DTYPE_F32 || q.dtype == DTYPE_BF16, "q is %s", describe(q).text);
    size_t B = q.shape[0], Tq = q.shape[1], H = q.shape[2], D = q.shape[3], Tk = k.shape[1], K = k.shape[2];
    CHECK_HEADS(q, B, Tq, H, D);
    CHECK_HEADS(k, B, Tk, K, D);
    CHECK_HEADS(v, B, Tk, K, D);
    CHECK_HEADS(o, B, Tq, H, D);
    CHECK(K > 0 && H % K == 0, "%zu query heads, %zu key heads", H, K);
    CHECK(D <= ATTENTION_MAX_D, "heads of %zu, at most %d", D, ATTENTION_MAX_D);
    CHECK(Tk > 0 && (!causal || Tk >= Tq), "%zu queries, %zu keys", Tq, Tk);
    if (tensor_exists(lse)) {
        CHECK_F32(lse);
        CHECK_SHAPE(lse, B, H, Tq);
    }
    if (tensor_exists(mask)) {
        CHECK_I32(mask);
        CHECK_SHAPE(mask, B, Tk);
    }
    if (tensor_exists(starts)) {
        CHECK_I32(starts);
        CHECK_SHAPE(starts, B, Tk);
        CHECK(causal && Tq == Tk, "starts, and %zu queries, %zu keys", Tq, Tk);
    }
}

void attention_forward(Backend *be, Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor mask,
                       Tensor starts, float scale, bool causal) {
    if (tensor_count(q) == 0) return;
    check_attention(q, k, v, o, lse, mask, starts, causal);
    CHECK(scale > 0, "scale %g", (double)scale);
    RUN_CAUSAL(causal, attention_forward, 2, (o, lse, q, k, v, mask, starts), scale, causal);
}

void attention_backward(Backend *be, Tensor dq, Tensor dk, Tensor dv, Tensor delta, Tensor dout, Tensor q,
                        Tensor k, Tensor v, Tensor o, Tensor lse, Tensor mask, Tensor starts, float scale,
                        bool causal) {
    if (tensor_count(q) == 0) return;
    check_attention(q, k, v, o, lse, mask, starts, causal);
    check_attention(dq, dk, dv, dout, lse, mask, starts, causal);
    CHECK_SAME(dq, q), CHECK_SAME(dk, k), CHECK_F32(delta), CHECK_SAME(delta, lse);
    CHECK(scale > 0, "scale %g", (double)scale);
    CHECK(dq.dtype == q.dtype, "dq is %s, q %s", describe(dq).text, describe(q).text);
    CHECK(tensor_exists(lse) && q.shape[1] == k.shape[1], "%zu queries, %zu keys", q.shape[1], k.shape[1]);
    RUN_CAUSAL(causal, attention_backward, 4, (dq, dk, dv, delta, dout, q, k, v, o, lse, mask, starts), scale,
               causal);
}

// ---- embeddings ----

void embedding_forward(Backend *be, Tensor y, Tensor table, Tensor ids) {
    CHECK_F32(y), CHECK_WEIGHT(table), CHECK_I32(ids);
    CHECK_MATRIX(y, tensor_count(ids), tensor_cols(table));
    if (tensor_count(y)) RUN(embedding_forward, 1, (y, table, ids));
}

void embedding_backward(Backend *be, Tensor dtable, Tensor dy, Tensor ids) {
    CHECK_F32(dtable), CHECK_F32(dy), CHECK_I32(ids);
    CHECK_MATRIX(dy, tensor_count(ids), tensor_cols(dtable));
    if (tensor_count(dy)) RUN(embedding_backward, 1, (dtable, dy, ids));
}

void patchify(Backend *be, Tensor patches, Tensor images, size_t P) {
    CHECK_FLOAT(patches), CHECK_F32(images);
    CHECK(images.ndim == 4 && images.shape[1] == 3 && P > 0, "images is %s, P %zu", describe(images).text, P);
    size_t tiles = images.shape[0], grid = (images.shape[2] / P) * (images.shape[3] / P);
    CHECK_MATRIX(patches, tiles * grid, 3 * P * P);
    if (tensor_count(patches)) RUN(patchify, 1, (patches, images), P);
}

static void check_position(Tensor y, Tensor x, Tensor position, Tensor cls) {
    CHECK_F32(y), CHECK_FLOAT(x), CHECK_F32(position);
    CHECK(y.ndim == 3 && x.ndim == 3, "y is %s, x %s", describe(y).text, describe(x).text);
    size_t N = y.shape[1], C = y.shape[2];
    CHECK_SHAPE(x, y.shape[0], tensor_exists(cls) ? N - 1 : N, C);
    CHECK_SHAPE(position, N, C);
    if (tensor_exists(cls)) {
        CHECK_F32(cls);
        CHECK_COUNT(cls, C);
    }
}

void position_forward(Backend *be, Tensor y, Tensor x, Tensor position, Tensor cls) {
    check_position(y, x, position, cls);
    if (tensor_count(y)) RUN(position_forward, 1, (y, x, position, cls));
}

void position_backward(Backend *be, Tensor dx, Tensor dposition, Tensor dcls, Tensor dy) {
    check_position(dy, dx, dposition, dcls);
    if (tensor_count(dy)) RUN(position_backward, 3, (dx, dposition, dcls, dy));
}

static void check_shuffle(Tensor y, Tensor x, size_t S) {
    CHECK_FLOAT(y), CHECK_FLOAT(x), CHECK_LIKE(y, x);
    CHECK(x.ndim == 3 && y.ndim == 3 && S > 0, "x is %s, y %s, S %zu", describe(x).text, describe(y).text, S);
    size_t side = 0;
    while (side * side < x.shape[1]) side++;
    CHECK(side * side == x.shape[1] && side % S == 0, "x is %s, S %zu", describe(x).text, S);
    CHECK_SHAPE(y, x.shape[0], x.shape[1] / (S * S), S * S * x.shape[2]);
}

void pixel_shuffle_forward(Backend *be, Tensor y, Tensor x, size_t S) {
    check_shuffle(y, x, S);
    if (tensor_count(y)) RUN(pixel_shuffle_forward, 1, (y, x), S);
}

void pixel_shuffle_backward(Backend *be, Tensor dx, Tensor dy, size_t S) {
    check_shuffle(dy, dx, S);
    if (tensor_count(dy)) RUN(pixel_shuffle_backward, 1, (dx, dy), S);
}

// ---- loss ----

void cross_entropy(Backend *be, Tensor losses, Tensor logits, Tensor targets, float dscale) {
    CHECK_F32(losses), CHECK_I32(targets);
    CHECK_PLAIN(logits, logits.dtype == DTYPE_BF16 ? DTYPE_BF16 : DTYPE_F32);
    CHECK_COUNT(losses, tensor_rows(logits)), CHECK_COUNT(targets, tensor_rows(logits));
    if (tensor_count(logits)) RUN(cross_entropy, 2, (losses, logits, targets), dscale);
}

void sum(Backend *be, Tensor total, Tensor x, float scale) {
    CHECK_F32(total), CHECK_F32(x), CHECK_COUNT(total, 1);
    RUN(sum, 1, (total, x), scale);
}

// ---- optimizer ----

void sum_of_squares(Backend *be, Tensor total, Tensor x) {
    CHECK_F32(total), CHECK_F32(x), CHECK_COUNT(total, 1);
    RUN(sum_of_squares, 1, (total, x));
}

void clip_factor(Backend *be, Tensor clip, Tensor squares, float max_norm) {
    CHECK_F32(clip), CHECK_F32(squares), CHECK_COUNT(clip, 2);
    RUN(clip_factor, 1, (clip, squares), max_norm);
}

void adamw(Backend *be, Tensor p, Tensor m, Tensor v, Tensor rounded, Tensor grad, Tensor hyper, Tensor clip,
           double beta1, double beta2, float eps, bool clear) {
    CHECK_F32(p), CHECK_F32(grad), CHECK_F32(hyper), CHECK_F32(clip);
    const Dtype moments = m.dtype == DTYPE_U8 || m.dtype == DTYPE_BF16 ? m.dtype : DTYPE_F32;
    const size_t n = tensor_count(p), held = moments == DTYPE_U8 ? moment_blocks(n) * MOMENT_ROW : n;
    CHECK_PLAIN(m, moments), CHECK_PLAIN(v, moments);
    CHECK_COUNT(m, held), CHECK_COUNT(v, held), CHECK_COUNT(grad, n);
    CHECK_COUNT(hyper, 3), CHECK_COUNT(clip, 2);
    if (tensor_exists(rounded)) CHECK_PLAIN(rounded, DTYPE_BF16), CHECK_COUNT(rounded, tensor_count(p));
    if (tensor_count(p)) RUN(adamw, 5, (p, m, v, rounded, grad, hyper, clip), beta1, beta2, eps, clear);
}
