#include "model/sampling.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>

void sampler_init(Sampler *s, size_t V) {
    *s =
        (Sampler){.V = V, .probs = mem_zeroed(V, sizeof *s->probs), .order = mem_zeroed(V, sizeof *s->order)};
}

void sampler_free(Sampler *s) {
    free(s->probs);
    free(s->order);
    *s = (Sampler){0};
}

static int by_falling_logit(const void *a, const void *b, void *logits) {
    uint32_t i = *(const uint32_t *)a, j = *(const uint32_t *)b;
    float x = ((const float *)logits)[i], y = ((const float *)logits)[j];
    if (x != y) return x > y ? -1 : 1;
    return i < j ? -1 : 1; // equal logits: the lower index first, as torch's sort on the CPU leaves them
}

// How many of s->order stay after the top_p cut; kept: how many top_k left.
static size_t nucleus(const Sampler *s, const float *logits, size_t kept, double top_p) {
    double total = 0, cumulative = 0, highest = logits[s->order[0]];
    for (size_t i = 0; i < kept; i++) total += exp(logits[s->order[i]] - highest);
    size_t n = 0;
    while (n < kept) {
        cumulative += exp(logits[s->order[n]] - highest) / total;
        if (cumulative > top_p) break;
        n++;
    }
    return n > 0 ? n : 1;
}

void sampler_filter(Sampler *s, const float *logits, size_t top_k, double top_p, double temperature) {
    size_t V = s->V, kept = V;
    for (size_t i = 0; i < V; i++) s->order[i] = (uint32_t)i;
    qsort_r(s->order, V, sizeof *s->order, by_falling_logit, (void *)logits);
    if (top_k > 0 && top_k < V) {
        float least = logits[s->order[top_k - 1]];
        for (kept = top_k; kept < V && logits[s->order[kept]] >= least;) kept++;
    }
    if (top_p < 1.0) kept = nucleus(s, logits, kept, top_p);
    double highest = logits[s->order[0]], total = 0;
    for (size_t i = 0; i < kept; i++) total += exp((logits[s->order[i]] - highest) / temperature);
    for (size_t i = 0; i < V; i++) s->probs[i] = 0.0f;
    for (size_t i = 0; i < kept; i++) {
        uint32_t token = s->order[i];
        s->probs[token] = (float)(exp((logits[token] - highest) / temperature) / total);
    }
}

int32_t sampler_draw(Sampler *s, Random *r) {
    double u = random_uniform(r), cumulative = 0;
    int32_t last = 0;
    for (size_t i = 0; i < s->V; i++) {
        if (s->probs[i] == 0.0f) continue;
        cumulative += s->probs[i];
        last = (int32_t)i;
        if (u < cumulative) break;
    }
    return last; // the last possible token when rounding left the sum below u
}

int32_t argmax(const float *logits, size_t V) {
    size_t best = 0;
    for (size_t i = 1; i < V; i++)
        if (logits[i] > logits[best]) best = i;
    return (int32_t)best;
}
