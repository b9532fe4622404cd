#include "support/weights_case.h"
#include "base/memory.h"
#include "format/safetensors.h"
#include "support/golden.h"

#include <stdlib.h>
#include <string.h>

float case_value(size_t t, size_t i) {
    return (float)(1 + (t * 7 + i) % 50) / 16.0f;
}

typedef struct Filling {
    const TensorCase *tensors;
    Dtype dtype;
} Filling;

static size_t count_of(const TensorCase *t) {
    size_t n = 1;
    for (int d = 0; d < t->ndim; d++) n *= t->shape[d];
    return n;
}

static bool fill(void *context, size_t t, void *dst) {
    const Filling *f = context;
    for (size_t i = 0; i < count_of(&f->tensors[t]); i++) {
        const float x = case_value(t, i);
        const double wide = x;
        const _Float16 half = (_Float16)x;
        uint32_t bits;
        memcpy(&bits, &x, sizeof bits);
        const uint16_t upper = (uint16_t)(bits >> 16);
        const void *from = f->dtype == DTYPE_F64    ? (const void *)&wide
                           : f->dtype == DTYPE_F16  ? (const void *)&half
                           : f->dtype == DTYPE_BF16 ? (const void *)&upper
                                                    : (const void *)&x;
        memcpy((char *)dst + i * dtype_size(f->dtype), from, dtype_size(f->dtype));
    }
    return true;
}

void write_tensors(const char *path, const TensorCase *tensors, Dtype dtype) {
    size_t n = 0;
    while (tensors[n].name) n++;
    SafetensorsSpec *specs = mem_zeroed(n + 1, sizeof *specs);
    for (size_t i = 0; i < n; i++) {
        specs[i] = (SafetensorsSpec){.name = tensors[i].name, .dtype = dtype, .ndim = tensors[i].ndim};
        for (int d = 0; d < tensors[i].ndim; d++) specs[i].shape[d] = tensors[i].shape[d];
    }
    Filling f = {tensors, dtype};
    Error err;
    if (!safetensors_write(path, specs, n, NULL, 0, fill, &f, &err)) fail_msg("%s", err.text);
    free(specs);
}

void write_text(const char *folder, const char *name, const char *text) {
    Error err;
    char *path = path_join(folder, name);
    if (!file_make_folders(folder, &err) || !file_write_text(path, text, strlen(text), &err))
        fail_msg("%s", err.text);
    free(path);
}

void remove_folder_tree(const char *folder) {
    char *command = mem_printf("rm -rf '%s'", folder);
    assert_int_equal(system(command), 0);
    free(command);
}
