// One call of an operator against a reference in double, with everything around it checked: outputs poisoned
// or preloaded before the call, sentinels around and between the rows of every tensor, inputs unchanged, the
// hooks shown the right tensors, the same bits again and with other numbers of threads.
#pragma once
#include "tensor/ops.h"

#define CASE_ARGS 12

typedef enum Role {
    ROLE_NONE,
    ROLE_IN,         // read
    ROLE_ASSIGNED,   // written; holds NaN before the call
    ROLE_ACCUMULATED // added to; holds random values before the call (also for what is changed in place)
} Role;

typedef struct Arg {
    const char *name;
    Role role;
    Dtype dtype; // F32, BF16 or I32
    int ndim;    // 0: an optional tensor left out
    size_t shape[TENSOR_MAX_DIMS];
    size_t gap;       // values between the rows
    double low, high; // random values, uniform in [low, high)
    int shares;       // 1 + the argument whose memory this output is, 0: its own
    int gradient_of;  // 1 + the argument by which `loss` is differentiated to get this one, 0: set by
                      // `reference`
} Arg;

typedef struct OpCase OpCase;
struct OpCase {
    const char *op;  // as the hooks see it
    char title[160]; // for messages; filled by op_case_check
    Arg args[CASE_ARGS];
    void (*run)(Backend *be, const Tensor *t, const OpCase *c);
    // The arguments' values in double, packed (NULL for those left out). prepare sets inputs that depend on
    // others (opt); reference sets the outputs from the inputs; loss is what the backward operators
    // differentiate.
    void (*prepare)(double **a, const OpCase *c);
    void (*reference)(double **a, const OpCase *c);
    double (*loss)(double **a, const OpCase *c);
    size_t by,
        at;      // the entry a[by][at] by which it is being differentiated: terms without it may be left out
    size_t n[4]; // sizes that the arguments' shapes don't tell
    float f[4];  // other arguments
    bool flag;
    bool inexact_threads; // the result may differ between numbers of threads (matrix products of the library)
    // The largest error of an output is limit · epsilon · (|expected| + rms of all expected + floor), with
    // the epsilon of its dtype and, if that is BF16, limit_bf16; floor (opt) is the size of terms that may
    // cancel out.
    double limit, limit_bf16, floor;
};

#define F32_ARG(name_, role_, ...)                                                                           \
    { .name = #name_, .role = role_, .dtype = DTYPE_F32, .low = -1, .high = 1, ARG_SHAPE(__VA_ARGS__) }
#define I32_ARG(name_, below, ...)                                                                           \
    {                                                                                                        \
        .name = #name_, .role = ROLE_IN, .dtype = DTYPE_I32, .low = 0, .high = (double)(below),              \
        ARG_SHAPE(__VA_ARGS__)                                                                               \
    }
#define BF16_ARG(name_, role_, ...)                                                                          \
    { .name = #name_, .role = role_, .dtype = DTYPE_BF16, .low = -1, .high = 1, ARG_SHAPE(__VA_ARGS__) }
#define NO_ARG(name_, role_)                                                                                 \
    { .name = #name_, .role = role_ }
#define ARG_SHAPE(...) .ndim = (int)(sizeof((size_t[]){__VA_ARGS__}) / sizeof(size_t)), .shape = {__VA_ARGS__}

size_t arg_count(const Arg *a); // values of an argument
// The same with the arguments of these bits (1 << index) in BF16, whose limit is half an epsilon, one
// rounding.
void op_case_check_bf16(OpCase c, unsigned args);
void op_case_check(OpCase c); // fails the test with the first thing that is wrong

// Calls run() in a process of its own for each level of instructions the machine has, with VLM_CPU_LEVEL set,
// or once when the variable is set already. The exit status for main: 0 when all went well.
int run_at_each_level(char **argv, int (*run)(void));
