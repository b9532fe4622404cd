#include "model/lora.h"

void lora_plan(Lora *l, Backend *be, const Params *p, Arena *a, size_t M, bool gradients) {
    *l = (Lora){.be = be, .scale = p->lora_scale};
    if (p->lora_rank == 0) return;
    l->h = arena_take(a, p->act, SHAPE(M, p->lora_rank));
    if (gradients) l->dh = arena_take(a, p->act, SHAPE(M, p->lora_rank));
}

// h = s · x Aᵀ
static void into_rank(const Lora *l, Tensor x, const Param *w) {
    linear_forward(l->be, l->h, x, w->lora_a->product, TENSOR_NONE);
    multiply(l->be, l->h, l->scale);
}

void lora_forward(const Lora *l, Tensor y, Tensor x, const Param *w, const Param *b) {
    linear_forward(l->be, y, x, w->product, b ? b->w : TENSOR_NONE);
    if (!w->lora_a) return;
    into_rank(l, x, w);
    linear_backward_input(l->be, y, l->h, w->lora_b->product, true); // y += h Bᵀ
}

void lora_backward_input(const Lora *l, Tensor dx, Tensor dy, const Param *w, bool accumulate) {
    linear_backward_input(l->be, dx, dy, w->product, accumulate);
    if (!w->lora_a) return;
    linear_forward(l->be, l->dh, dy, w->lora_b->product, TENSOR_NONE); // of y += h Bᵀ
    multiply(l->be, l->dh, l->scale);                                  // of h = s · x Aᵀ
    linear_backward_input(l->be, dx, l->dh, w->lora_a->product, true);
}

void lora_backward_weight(const Lora *l, Tensor dy, Tensor x, const Param *w, const Param *b) {
    if (tensor_exists(w->d)) linear_backward_weight(l->be, w->d, b ? b->d : TENSOR_NONE, dy, x);
    if (!w->lora_a) return;
    into_rank(l, x, w);
    linear_backward_weight(l->be, w->lora_b->d, TENSOR_NONE, l->h, dy);
    linear_backward_weight(l->be, w->lora_a->d, TENSOR_NONE, l->dh, x);
}

void lora_backward(const Lora *l, Tensor dx, Tensor dy, Tensor x, const Param *w, const Param *b,
                   bool accumulate) {
    lora_backward_input(l, dx, dy, w, accumulate);
    lora_backward_weight(l, dy, x, w, b);
}

void lora_merge(float *w, const float *a, const float *b, size_t O, size_t C, size_t r, float scale) {
#pragma omp parallel for
    for (size_t o = 0; o < O; o++)
        for (size_t k = 0; k < r; k++) {
            const float factor = scale * b[k * O + o];
            for (size_t c = 0; c < C; c++) w[o * C + c] += factor * a[k * C + c];
        }
}
