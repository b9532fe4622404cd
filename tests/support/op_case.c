#include "support/op_case.h"
#include "base/check.h"
#include "base/half.h"
#include "base/memory.h"
#include "base/random.h"
#include "ops/cpu/cpu.h"
#include "support/golden.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define MARGIN       64          // values around each tensor
#define SENTINEL     0x5ca1ab1eu // a value nobody computes; of BF16 the lower half
#define BF16_EPSILON 0x1p-7

size_t arg_count(const Arg *a) {
    size_t n = a->ndim ? 1 : 0;
    for (int i = 0; i < a->ndim; i++) n *= a->shape[i];
    return n;
}

static size_t arg_cols(const Arg *a) {
    return a->shape[a->ndim - 1];
}
// Attention's heads lie adjacent, so there the "row" that gaps separate is [heads, D].
static size_t row_length(const Arg *a) {
    return a->ndim == 4 ? a->shape[2] * a->shape[3] : arg_cols(a);
}
static size_t row_count(const Arg *a) {
    return arg_count(a) / row_length(a);
}
static size_t memory_values(const Arg *a) {
    return 2 * MARGIN + row_count(a) * (row_length(a) + a->gap);
}
static size_t row_place(const Arg *a, size_t row) {
    return MARGIN + row * (row_length(a) + a->gap);
}

static size_t memory_bytes(const Arg *a) {
    return memory_values(a) * dtype_size(a->dtype);
}

// The state of one argument: its values in double, and an image of its memory.
typedef struct Slot {
    double *value; // packed
    char *before;  // the memory as it is before the call
    char *after;
    Tensor t;
    char *memory;
} Slot;

// ---- values of an argument's dtype; whole runs of them, because some tensors have millions ----

static void put_values(const Arg *a, char *memory, size_t at, const double *value, size_t n) {
    if (a->dtype == DTYPE_BF16)
        for (size_t i = 0; i < n; i++) ((uint16_t *)(void *)memory)[at + i] = bf16_from_f32((float)value[i]);
    else if (a->dtype == DTYPE_I32)
        for (size_t i = 0; i < n; i++) ((int32_t *)(void *)memory)[at + i] = (int32_t)value[i];
    else
        for (size_t i = 0; i < n; i++) ((float *)(void *)memory)[at + i] = (float)value[i];
}

static void get_values(const Arg *a, const char *memory, size_t at, double *value, size_t n) {
    if (a->dtype == DTYPE_BF16)
        for (size_t i = 0; i < n; i++)
            value[i] = f32_from_bf16(((const uint16_t *)(const void *)memory)[at + i]);
    else
        for (size_t i = 0; i < n; i++) value[i] = ((const float *)(const void *)memory)[at + i];
}

// The same word everywhere; of a BF16 its lower half.
static void put_words(const Arg *a, char *memory, size_t at, uint32_t word, size_t n) {
    if (dtype_size(a->dtype) == sizeof(uint16_t))
        for (size_t i = 0; i < n; i++) ((uint16_t *)(void *)memory)[at + i] = (uint16_t)word;
    else
        for (size_t i = 0; i < n; i++) ((uint32_t *)(void *)memory)[at + i] = word;
}

// As near as the argument's dtype can be.
static void round_values(const Arg *a, double *value, size_t n) {
    if (a->dtype == DTYPE_BF16)
        for (size_t i = 0; i < n; i++) value[i] = f32_from_bf16(bf16_from_f32((float)value[i]));
    else if (a->dtype == DTYPE_I32)
        for (size_t i = 0; i < n; i++) value[i] = floor(value[i]);
    else
        for (size_t i = 0; i < n; i++) value[i] = (float)value[i];
}

// The first n numbers in [0, 1) that every case draws from: drawn once in a process.
static const double *uniform_values(size_t n) {
    static double *drawn;
    static size_t count;
    static Random r;
    if (count == 0) r = random_stream(7, RANDOM_TEST, 0);
    if (n > count) drawn = mem_resize(drawn, n * sizeof *drawn);
    for (; count < n; count++) drawn[count] = random_uniform(&r);
    return drawn;
}

// *used: how many of the random numbers are taken.
static void draw(Slot *s, const Arg *a, size_t *used) {
    const size_t n = arg_count(a);
    const double *uniform = uniform_values(*used + n) + *used;
    s->value = mem_zeroed(n + 1, sizeof *s->value);
    for (size_t i = 0; i < n; i++) s->value[i] = a->low + (a->high - a->low) * uniform[i];
    round_values(a, s->value, n);
    *used += n;
}

static void image(Slot *s, const Arg *a, bool poison) {
    const uint32_t nan = a->dtype == DTYPE_BF16 ? 0x7fc0u : 0x7fc00000u;
    const size_t length = row_length(a);
    s->before = mem_alloc(memory_bytes(a));
    s->after = mem_alloc(memory_bytes(a));
    put_words(a, s->before, 0, SENTINEL, memory_values(a));
    round_values(a, s->value, arg_count(a));
    for (size_t row = 0; row < row_count(a); row++)
        if (poison)
            put_words(a, s->before, row_place(a, row), nan, length);
        else
            put_values(a, s->before, row_place(a, row), s->value + row * length, length);
}

static void make_slots(const OpCase *c, Slot *s, double **value) {
    size_t used = 0;
    for (size_t i = 0; i < CASE_ARGS; i++) {
        const Arg *a = &c->args[i];
        if (a->ndim) draw(&s[i], a, &used);
        value[i] = s[i].value;
    }
    if (c->prepare) c->prepare(value, c);
    for (size_t i = 0; i < CASE_ARGS; i++) {
        const Arg *a = &c->args[i];
        if (!a->ndim) continue;
        if (a->shares) memcpy(s[i].value, s[a->shares - 1].value, arg_count(a) * sizeof *s[i].value);
        image(&s[i], a, a->role == ROLE_ASSIGNED && !a->shares);
    }
}

// ---- the call ----

static Tensor view(const Arg *a, char *memory) {
    Tensor t = tensor_at(memory + MARGIN * dtype_size(a->dtype), a->dtype, a->ndim, a->shape);
    size_t rows_at = a->ndim == 4 ? 2 : (size_t)a->ndim - 1, step = row_length(a) + a->gap;
    for (size_t d = rows_at; d-- > 0; step *= a->shape[d]) t.stride[d] = step;
    return t;
}

static void upload(Backend *be, const OpCase *c, Slot *s) {
    for (size_t i = 0; i < CASE_ARGS; i++) {
        if (!c->args[i].ndim) continue;
        size_t bytes = memory_bytes(&c->args[i]);
        s[i].memory = be->device->alloc(be, bytes);
        assert_non_null(s[i].memory);
        be->device->upload(be, STREAM_COMPUTE, s[i].memory, s[i].before, bytes);
    }
    for (size_t i = 0; i < CASE_ARGS; i++) {
        const Arg *a = &c->args[i];
        s[i].t = a->ndim ? view(a, s[a->shares ? (size_t)a->shares - 1 : i].memory) : TENSOR_NONE;
    }
}

static void download(Backend *be, const OpCase *c, Slot *s) {
    for (size_t i = 0; i < CASE_ARGS; i++) {
        if (!c->args[i].ndim) continue;
        size_t bytes = memory_bytes(&c->args[i]);
        be->device->download(be, STREAM_COMPUTE, s[i].after, s[i].memory, bytes);
        be->device->release(be, s[i].memory, bytes);
    }
}

typedef struct Seen {
    size_t enters, leaves;
    const OpCase *c;
    const Slot *s;
    bool wrong;
} Seen;

static void watch_enter(Backend *be, const OpCall *call) {
    Seen *seen = be->hook_state;
    size_t n = 0, writes = 0;
    while (n < CASE_ARGS && seen->c->args[n].role) writes += seen->c->args[n++].role != ROLE_IN;
    seen->enters++;
    seen->wrong |= strcmp(call->name, seen->c->op) || call->count != n || call->writes != writes;
    for (size_t i = 0; !seen->wrong && i < n; i++)
        seen->wrong |= memcmp(&call->tensors[i].data, &seen->s[i].t.data, sizeof(char *)) ||
                       (seen->s[i].t.data && !tensor_same_shape(call->tensors[i], seen->s[i].t));
}

static void watch_leave(Backend *be, const OpCall *call) {
    (void)call;
    ((Seen *)be->hook_state)->leaves++;
}

static void call(OpCase *c, Slot *s, size_t threads) {
    Error err;
    Backend *be;
    Tensor t[CASE_ARGS];
    Seen seen = {.c = c, .s = s};
    if (!backend_cpu_create(&be, threads, &err)) fail_msg("%s", err.text);
    be->op_enter = watch_enter, be->op_leave = watch_leave, be->hook_state = &seen;
    upload(be, c, s);
    for (size_t i = 0; i < CASE_ARGS; i++) t[i] = s[i].t;
    c->run(be, t, c);
    download(be, c, s);
    backend_destroy(be);
    if (seen.enters != 1 || seen.leaves != 1 || seen.wrong)
        fail_msg("%s: the hooks saw something else", c->title);
}

// ---- what is expected ----

// d loss / d a[by][i], by differences of fourth order.
static double derivative(double **a, OpCase *c, size_t by, size_t i) {
    const double h = 1e-3;
    double x = a[by][i], f[4];
    c->by = by, c->at = i;
    for (int k = 0; k < 4; k++) {
        a[by][i] = x + h * (const double[]){-2, -1, 1, 2}[k];
        f[k] = c->loss(a, c);
    }
    a[by][i] = x;
    return (8 * (f[2] - f[1]) - (f[3] - f[0])) / (12 * h);
}

static bool is_output(const Arg *a) {
    return a->ndim && a->role != ROLE_IN;
}

// At most this many entries of a gradient are differentiated: the ends and evenly spread ones between.
#define DIFFERENTIATED 24
static size_t gradient_step(const OpCase *c, const Arg *a) {
    return a->gradient_of && c->loss && arg_count(a) > DIFFERENTIATED ? arg_count(a) / DIFFERENTIATED + 1 : 1;
}

static void expect_gradients(double **value, OpCase *c) {
    for (size_t i = 0; i < CASE_ARGS; i++) {
        const Arg *a = &c->args[i];
        if (!a->gradient_of || !a->ndim) continue;
        for (size_t k = 0; k < arg_count(a); k += gradient_step(c, a)) {
            double g = derivative(value, c, (size_t)a->gradient_of - 1, k);
            value[i][k] = a->role == ROLE_ACCUMULATED ? value[i][k] + g : g;
        }
    }
}

// The values of the memory after the call; caller frees.
static double *values_after(const Arg *a, const Slot *s) {
    const size_t length = row_length(a);
    double *value = mem_zeroed(arg_count(a) + 1, sizeof *value);
    for (size_t row = 0; row < row_count(a); row++)
        get_values(a, s->after, row_place(a, row), value + row * length, length);
    return value;
}

static void check_values(const OpCase *c, const Arg *a, const Slot *s) {
    const double epsilon = a->dtype == DTYPE_BF16 ? BF16_EPSILON : FLT_EPSILON,
                 limit = a->dtype == DTYPE_BF16 ? c->limit_bf16 : c->limit;
    const size_t step = gradient_step(c, a), count = arg_count(a);
    size_t n = 0, worst = 0;
    double rms = 0, largest = 0, *got = values_after(a, s);
    for (size_t i = 0; i < count; i += step)
        if (fabs(s->value[i]) < 1e30) rms += s->value[i] * s->value[i], n++; // lse holds the lowest number
    rms = sqrt(rms / (double)(n ? n : 1));
    for (size_t i = 0; i < count; i += step) {
        const double expected = s->value[i];
        double error = fabs(got[i] - expected) / (epsilon * (fabs(expected) + rms + c->floor) + 1e-30);
        if (got[i] == expected) error = 0; // infinities too
        if (!(error <= largest)) largest = isnan(error) ? INFINITY : error, worst = i;
    }
    const double found = got[worst];
    free(got);
    static const char *const kinds[2][2] = {{"forward, in epsilons", "forward, in epsilons of BF16"},
                                            {"backward, in epsilons", "backward, in epsilons of BF16"}};
    expect_within(kinds[c->loss != NULL][a->dtype == DTYPE_BF16], largest, limit > 0 ? limit : FLT_MIN,
                  "%s: %s[%zu] is %.9g, expected %.9g", c->title, a->name, worst, found, s->value[worst]);
}

static bool is_written(const OpCase *c, size_t i) {
    bool written = is_output(&c->args[i]);
    for (size_t k = 0; k < CASE_ARGS; k++) written |= c->args[k].shares == (int)i + 1;
    return written;
}

// Everything but the outputs' values is as it was.
static void check_surroundings(const OpCase *c, size_t i, const Slot *s) {
    const Arg *a = &c->args[i];
    const size_t bytes = memory_bytes(a), size = dtype_size(a->dtype);
    const char *rest = s->after; // the memory after the call, but the values, where they are written
    char *copy = NULL;
    if (is_written(c, i)) {
        rest = copy = mem_alloc(bytes);
        memcpy(copy, s->after, bytes);
        for (size_t row = 0; row < row_count(a); row++)
            memcpy(copy + row_place(a, row) * size, s->before + row_place(a, row) * size,
                   row_length(a) * size);
    }
    if (memcmp(rest, s->before, bytes) != 0) {
        size_t at = 0;
        while (rest[at] == s->before[at]) at++;
        fail_msg("%s: wrote at %zu of the memory of %s", c->title, at / size, a->name);
    }
    free(copy);
}

static void same_bits(OpCase *c, const Slot *first, Slot *s, size_t threads, const char *what) {
    for (size_t i = 0; i < CASE_ARGS; i++) // `before` is the same in both
        if (c->args[i].ndim) s[i] = first[i], s[i].after = mem_alloc(memory_bytes(&c->args[i]));
    call(c, s, threads);
    for (size_t i = 0; i < CASE_ARGS; i++) {
        if (!c->args[i].ndim) continue;
        if (memcmp(first[i].after, s[i].after, memory_bytes(&c->args[i])))
            fail_msg("%s: %s has other bits %s", c->title, c->args[i].name, what);
        free(s[i].after);
    }
}

static void make_title(OpCase *c) {
    size_t used = (size_t)snprintf(c->title, sizeof c->title, "%s", c->op);
    for (size_t i = 0; i < CASE_ARGS && c->args[i].role; i++) {
        const Arg *a = &c->args[i];
        if (used < sizeof c->title)
            used += (size_t)snprintf(c->title + used, sizeof c->title - used, " %s[", a->name);
        for (int d = 0; d < a->ndim && used < sizeof c->title; d++)
            used +=
                (size_t)snprintf(c->title + used, sizeof c->title - used, d ? ",%zu" : "%zu", a->shape[d]);
        if (used < sizeof c->title) used += (size_t)snprintf(c->title + used, sizeof c->title - used, "]");
    }
}

void op_case_check(OpCase c) {
    Slot s[CASE_ARGS] = {0}, again[CASE_ARGS] = {0};
    double *value[CASE_ARGS];
    make_title(&c);
    make_slots(&c, s, value);
    call(&c, s, 2);
    for (size_t i = 0; i < CASE_ARGS; i++)
        if (c.args[i].ndim) check_surroundings(&c, i, &s[i]);
    same_bits(&c, s, again, 2, "the second time");
    if (!c.inexact_threads) same_bits(&c, s, again, 1, "with one thread");
    if (!c.inexact_threads) same_bits(&c, s, again, 3, "with three threads");
    if (c.reference) c.reference(value, &c);
    if (c.loss) expect_gradients(value, &c);
    for (size_t i = 0; i < CASE_ARGS; i++) {
        Slot seen = s[i];
        if (c.args[i].shares) seen.after = s[c.args[i].shares - 1].after;
        if (is_output(&c.args[i])) check_values(&c, &c.args[i], &seen);
    }
    for (size_t i = 0; i < CASE_ARGS; i++) free(s[i].value), free(s[i].before), free(s[i].after);
}

void op_case_check_bf16(OpCase c, unsigned args) {
    for (unsigned i = 0; i < CASE_ARGS; i++)
        if (args >> i & 1) c.args[i].dtype = DTYPE_BF16;
    c.limit_bf16 = 0.51;
    op_case_check(c);
}

// ---- levels ----

static bool level_works(const char *level) {
    Error err;
    Backend *be;
    setenv("VLM_CPU_LEVEL", level, 1);
    if (!backend_cpu_create(&be, 1, &err)) return false;
    backend_destroy(be);
    return true;
}

int run_at_each_level(char **argv, int (*run)(void)) {
    static const char *const levels[] = {"generic", "avx2", "avx512", "avx512bf16", "amx"};
    if (getenv("VLM_CPU_LEVEL")) {
        printf("---- level %s ----\n", getenv("VLM_CPU_LEVEL"));
        return run();
    }
    int failed = 0, ran = 0;
    setenv("OMP_WAIT_POLICY", "passive", 0); // three threads on two cores: half the time went to spinning
    for (size_t i = 0; i < sizeof levels / sizeof *levels; i++) {
        if (!level_works(levels[i])) {
            printf("---- level %s: this machine lacks it, not run ----\n", levels[i]);
            continue;
        }
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            execv("/proc/self/exe", argv);
            _exit(127);
        }
        int status = -1;
        CHECK(child > 0 && waitpid(child, &status, 0) == child, "no child");
        failed += !(WIFEXITED(status) && WEXITSTATUS(status) == 0), ran++;
    }
    printf("%d of %d levels passed\n", ran - failed, ran);
    return failed || !ran;
}
