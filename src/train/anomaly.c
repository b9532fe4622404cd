#include "train/anomaly.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static bool is_nan(const void *at, Dtype dtype) {
    uint32_t wide;
    uint16_t narrow;
    if (dtype == DTYPE_F32) return memcpy(&wide, at, sizeof wide), (wide & 0x7fffffffu) > 0x7f800000u;
    memcpy(&narrow, at, sizeof narrow);
    return (narrow & 0x7fffu) > (dtype == DTYPE_BF16 ? 0x7f80u : 0x7c00u);
}

static bool has_nan(const Tensor *t, const char *values) {
    const size_t bytes = dtype_size(t->dtype), n = tensor_count(*t);
    for (size_t i = 0; i < n; i++) {
        size_t rest = i, at = 0;
        for (int d = t->ndim - 1; d >= 0; d--) {
            at += rest % t->shape[d] * t->stride[d];
            rest /= t->shape[d];
        }
        if (is_nan(values + at * bytes, t->dtype)) return true;
    }
    return false;
}

static void look_at(Anomaly *a, const OpCall *call, size_t i) {
    const Tensor *t = &call->tensors[i];
    if (!tensor_exists(*t) || (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16))
        return;
    const size_t bytes = tensor_span(*t);
    if (bytes > a->size) {
        free(a->buffer);
        a->buffer = mem_alloc(a->size = bytes);
    }
    a->be->device->download(a->be, STREAM_COMPUTE, a->buffer, t->data, bytes);
    a->be->device->sync(a->be);
    if (!has_nan(t, a->buffer)) return;
    int n = snprintf(a->text, sizeof a->text, "%s made the first NaN, in its output %zu of shape", call->name,
                     i + 1);
    for (int d = 0; d < t->ndim; d++)
        n += snprintf(a->text + n, sizeof a->text - (size_t)n, "%s%zu", d ? " x " : " ", t->shape[d]);
}

static void pass_on(Anomaly *a, void (*hook)(Backend *be, const OpCall *call), const OpCall *call) {
    if (!hook) return;
    a->be->hook_state = a->next_state;
    hook(a->be, call);
    a->be->hook_state = a;
}

static void enter(Backend *be, const OpCall *call) {
    Anomaly *a = be->hook_state;
    pass_on(a, a->enter, call);
}

static void look(Backend *be, const OpCall *call) {
    Anomaly *a = be->hook_state;
    pass_on(a, a->leave, call);
    for (size_t i = 0; i < call->writes && !a->text[0]; i++) look_at(a, call, i);
}

void anomaly_attach(Anomaly *a, Backend *be) {
    *a = (Anomaly){.be = be, .enter = be->op_enter, .leave = be->op_leave, .next_state = be->hook_state};
    be->op_enter = enter;
    be->op_leave = look;
    be->hook_state = a;
}

void anomaly_detach(Anomaly *a) {
    if (!a->be) return;
    a->be->op_enter = a->enter;
    a->be->op_leave = a->leave;
    a->be->hook_state = a->next_state;
    free(a->buffer);
    *a = (Anomaly){0};
}
