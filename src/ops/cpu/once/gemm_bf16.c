// Matrix products of BF16 by oneDNN's matmul primitives, kept in a table by all that shapes them. The
// library's interface differs between its versions 2 and 3 in how a layout and a primitive are described.
#include "base/check.h"
#include "base/memory.h"
#include "ops/cpu/gemm.h"

#include <dnnl.h>
#include <omp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define TRY(call)                                                                                            \
    do {                                                                                                     \
        dnnl_status_t status_ = (call);                                                                      \
        CHECK(status_ == dnnl_success, "oneDNN says %d", (int)status_);                                      \
    } while (0)

// ---- the two interfaces ----

#if DNNL_VERSION_MAJOR >= 3
typedef dnnl_memory_desc_t Layout;
typedef const_dnnl_memory_desc_t LayoutView;
#define VIEW(layout) (layout)

static Layout layout(dnnl_data_type_t type, size_t rows, size_t cols, size_t step, size_t next) {
    dnnl_dims_t shape = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
    dnnl_dims_t strides = {(dnnl_dim_t)step, (dnnl_dim_t)next};
    Layout made;
    TRY(dnnl_memory_desc_create_with_strides(&made, 2, shape, type, strides));
    return made;
}
static void layout_free(Layout layout) {
    dnnl_memory_desc_destroy(layout);
}
static void describe(dnnl_primitive_desc_t *made, dnnl_engine_t engine, Layout a, Layout b,
                     const Layout *bias, Layout c, dnnl_primitive_attr_t attributes) {
    TRY(dnnl_matmul_primitive_desc_create(made, engine, a, b, bias ? *bias : NULL, c, attributes));
}
static void add_sum(dnnl_post_ops_t ops) {
    TRY(dnnl_post_ops_append_sum(ops, 1, 0, dnnl_data_type_undef));
}
#else
typedef dnnl_memory_desc_t Layout;
typedef const dnnl_memory_desc_t *LayoutView;
#define VIEW(layout) (&(layout))

static Layout layout(dnnl_data_type_t type, size_t rows, size_t cols, size_t step, size_t next) {
    dnnl_dims_t shape = {(dnnl_dim_t)rows, (dnnl_dim_t)cols};
    dnnl_dims_t strides = {(dnnl_dim_t)step, (dnnl_dim_t)next};
    Layout made;
    TRY(dnnl_memory_desc_init_by_strides(&made, 2, shape, type, strides));
    return made;
}
static void layout_free(Layout layout) {
    (void)layout;
}
static void describe(dnnl_primitive_desc_t *made, dnnl_engine_t engine, Layout a, Layout b,
                     const Layout *bias, Layout c, dnnl_primitive_attr_t attributes) {
    dnnl_matmul_desc_t matmul;
    TRY(dnnl_matmul_desc_init(&matmul, &a, &b, bias, &c));
    TRY(dnnl_primitive_desc_create(made, &matmul, attributes, engine, NULL));
}
static void add_sum(dnnl_post_ops_t ops) {
    TRY(dnnl_post_ops_append_sum(ops, 1));
}
#endif

// ---- one primitive ----

// All that shapes a primitive; compared and hashed as words.
typedef struct Key {
    size_t M, N, K, a_stride, b_stride, c_stride, threads, flags;
} Key;
enum { A_TRANSPOSED = 1, B_TRANSPOSED = 2, ACCUMULATE = 4, BIAS = 8, C_BF16 = 16 };

enum { ROLE_A, ROLE_B, ROLE_C, ROLE_SCRATCH, ROLE_BIAS, ROLES };
static const int role_names[ROLES] = {DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD,
                                      DNNL_ARG_BIAS};

typedef struct Product {
    Key key;
    dnnl_primitive_t primitive; // NULL: the place is free
    dnnl_exec_arg_t args[ROLES];
    int n_args;
    size_t scratch_bytes;
    uint64_t used; // when last, in calls
} Product;

// There at most, and as many of the newest stay when they are too many. A batch has about 20 shapes that no
// other may have, by its tiles and its targets; without a bound a run of a week would collect them all, 150
// KB each. A step of one batch needs 34 to 46, with any preset, and those stay.
enum { MOST_PRODUCTS = 80, KEPT_PRODUCTS = 56, PLACES = 256 };

// Everything that exists once in the process, behind one lock.
static struct {
    pthread_mutex_t lock;
    dnnl_engine_t engine;
    dnnl_stream_t stream;
    Product products[PLACES]; // open addressing
    size_t count;
    uint64_t calls;
    void *scratch;
    size_t scratch_bytes;
} gemms = {.lock = PTHREAD_MUTEX_INITIALIZER};

static dnnl_primitive_attr_t attributes_of(const Key *k) {
    dnnl_primitive_attr_t attributes;
    TRY(dnnl_primitive_attr_create(&attributes));
    TRY(dnnl_primitive_attr_set_scratchpad_mode(attributes, dnnl_scratchpad_mode_user));
    if (!(k->flags & ACCUMULATE)) return attributes;
    dnnl_post_ops_t ops;
    TRY(dnnl_post_ops_create(&ops));
    add_sum(ops);
    TRY(dnnl_primitive_attr_set_post_ops(attributes, ops));
    dnnl_post_ops_destroy(ops);
    return attributes;
}

static Layout factor_layout(size_t rows, size_t cols, size_t stride, bool transposed) {
    return layout(dnnl_bf16, rows, cols, transposed ? 1 : stride, transposed ? stride : 1);
}

static void add_memory(Product *p, int role, LayoutView view) {
    dnnl_exec_arg_t *arg = &p->args[p->n_args++];
    arg->arg = role_names[role];
    TRY(dnnl_memory_create(&arg->memory, view, gemms.engine, DNNL_MEMORY_NONE));
}

static void make(Product *p, const Key *k) {
    Layout layouts[] = {
        [ROLE_A] = factor_layout(k->M, k->K, k->a_stride, k->flags & A_TRANSPOSED),
        [ROLE_B] = factor_layout(k->K, k->N, k->b_stride, k->flags & B_TRANSPOSED),
        [ROLE_C] = layout(k->flags & C_BF16 ? dnnl_bf16 : dnnl_f32, k->M, k->N, k->c_stride, 1),
    };
    Layout bias = layout(dnnl_f32, 1, k->N, k->N, 1);
    dnnl_primitive_attr_t attributes = attributes_of(k);
    dnnl_primitive_desc_t described;
    describe(&described, gemms.engine, layouts[ROLE_A], layouts[ROLE_B], k->flags & BIAS ? &bias : NULL,
             layouts[ROLE_C], attributes);
    LayoutView scratch = dnnl_primitive_desc_query_md(described, dnnl_query_scratchpad_md, 0);
    *p = (Product){.key = *k, .scratch_bytes = scratch ? dnnl_memory_desc_get_size(scratch) : 0};
    TRY(dnnl_primitive_create(&p->primitive, described));
    for (int role = ROLE_A; role <= ROLE_C; role++) add_memory(p, role, VIEW(layouts[role]));
    add_memory(p, ROLE_SCRATCH, scratch);
    if (k->flags & BIAS) add_memory(p, ROLE_BIAS, VIEW(bias));
    for (int role = ROLE_A; role <= ROLE_C; role++) layout_free(layouts[role]);
    layout_free(bias);
    dnnl_primitive_desc_destroy(described);
    dnnl_primitive_attr_destroy(attributes);
}

// ---- the table ----

static size_t hash(const Key *k) {
    const size_t *words = (const size_t *)k;
    size_t h = 0;
    for (size_t i = 0; i < sizeof *k / sizeof *words; i++) h = (h ^ words[i]) * 0x9e3779b97f4a7c15u;
    return h >> 20;
}

static Product *place_of(const Key *k) {
    size_t i = hash(k) & (PLACES - 1);
    while (gemms.products[i].primitive && memcmp(&gemms.products[i].key, k, sizeof *k))
        i = (i + 1) & (PLACES - 1);
    return &gemms.products[i];
}

static void drop(Product *p) {
    for (int i = 0; i < p->n_args; i++) dnnl_memory_destroy(p->args[i].memory);
    dnnl_primitive_destroy(p->primitive);
}

static int newest_first(const void *a, const void *b) {
    const uint64_t x = ((const Product *)a)->used, y = ((const Product *)b)->used;
    return (x < y) - (x > y);
}

// Drops those that were not used for longest.
static void sweep(void) {
    Product old[PLACES];
    memcpy(old, gemms.products, sizeof old);
    memset(gemms.products, 0, sizeof gemms.products);
    qsort(old, PLACES, sizeof *old, newest_first);
    for (size_t i = 0; i < gemms.count; i++)
        if (i < KEPT_PRODUCTS)
            *place_of(&old[i].key) = old[i];
        else
            drop(&old[i]);
    gemms.count = KEPT_PRODUCTS;
}

static Product *find(const Key *k) {
    if (!gemms.engine) {
        TRY(dnnl_engine_create(&gemms.engine, dnnl_cpu, 0));
        TRY(dnnl_stream_create(&gemms.stream, gemms.engine, dnnl_stream_default_flags));
        TRY(dnnl_set_primitive_cache_capacity(0)); // the library would keep 1024 more
    }
    Product *p = place_of(k);
    if (p->primitive) return p;
    if (gemms.count == MOST_PRODUCTS) {
        sweep();
        p = place_of(k);
    }
    make(p, k);
    gemms.count++;
    return p;
}

static void *scratch_for(const Product *p) {
    if (p->scratch_bytes > gemms.scratch_bytes) {
        free(gemms.scratch);
        gemms.scratch_bytes = (p->scratch_bytes + 4095) & ~(size_t)4095;
        gemms.scratch = aligned_alloc(4096, gemms.scratch_bytes);
        CHECK(gemms.scratch, "no memory for %zu bytes of scratch", gemms.scratch_bytes);
    }
    return gemms.scratch;
}

static Key key_of(int threads, GemmSize size, GemmMatrix c, bool accumulate, GemmMatrix a, GemmMatrix b,
                  bool has_bias) {
    return (Key){
        size.M,
        size.N,
        size.K,
        a.stride,
        b.stride,
        c.stride,
        (size_t)threads,
        (a.transposed ? A_TRANSPOSED : 0) | (b.transposed ? B_TRANSPOSED : 0) |
            (accumulate ? ACCUMULATE : 0) | (has_bias ? BIAS : 0) | (c.dtype == DTYPE_BF16 ? C_BF16 : 0),
    };
}

size_t gemm_bf16_prepare(int threads, GemmSize size, GemmMatrix c, bool accumulate, GemmMatrix a,
                         GemmMatrix b, bool has_bias) {
    const Key key = key_of(threads, size, c, accumulate, a, b, has_bias);
    pthread_mutex_lock(&gemms.lock);
    omp_set_num_threads(threads); // as below
    Product *p = find(&key);
    p->used = ++gemms.calls;
    const size_t bytes = p->scratch_bytes;
    pthread_mutex_unlock(&gemms.lock);
    return bytes;
}

size_t gemm_bf16_scratch(void) {
    return gemms.scratch_bytes;
}

size_t gemm_bf16_primitives(size_t *most) {
    *most = MOST_PRODUCTS;
    pthread_mutex_lock(&gemms.lock);
    const size_t count = gemms.count;
    pthread_mutex_unlock(&gemms.lock);
    return count;
}

void gemm_bf16(int threads, GemmSize size, GemmMatrix c, bool accumulate, GemmMatrix a, GemmMatrix b,
               const float *bias) {
    const Key key = key_of(threads, size, c, accumulate, a, b, bias != NULL);
    pthread_mutex_lock(&gemms.lock);
    omp_set_num_threads(threads); // of this host thread; the library asks for it when a primitive is made
    Product *p = find(&key);
    p->used = ++gemms.calls;
    void *data[ROLES] = {a.data, b.data, c.data, scratch_for(p), (void *)bias};
    for (int i = 0; i < p->n_args; i++) TRY(dnnl_memory_set_data_handle(p->args[i].memory, data[i]));
    TRY(dnnl_primitive_execute(p->primitive, gemms.stream, p->n_args, p->args));
    TRY(dnnl_stream_wait(gemms.stream));
    pthread_mutex_unlock(&gemms.lock);
}
