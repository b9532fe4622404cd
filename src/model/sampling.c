#include "model/sampling.h"
#include "base/memory.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static void sift_down(float *heap, size_t n, size_t at) {
    for (size_t child; (child = 2 * at + 1) < n; at = child) {
        if (child + 1 < n && heap[child + 1] < heap[child]) child++;
        if (heap[at] <= heap[child]) return;
        const float lower = heap[child];
        heap[child] = heap[at];
        heap[at] = lower;
    }
}

// The k-th greatest logit: the least of a heap of the k greatest so far, in scratch [k].
static float kth_greatest(float *heap, const float *logits, size_t V, size_t k) {
    memcpy(heap, logits, k * sizeof *heap);
    for (size_t i = k; i-- > 0;) sift_down(heap, k, i);
    for (size_t i = k; i < V; i++) {
        if (logits[i] <= heap[0]) continue;
        heap[0] = logits[i];
        sift_down(heap, k, 0);
    }
    return heap[0];
}

// Puts the logits ≥ the top_k-th into s->order, sorted where that is of use, the greatest first in any case;
// returns how many they are.
static size_t keep_top_k(Sampler *s, const float *logits, size_t top_k, bool sorted) {
    size_t kept = 0;
    const bool all = top_k == 0 || top_k >= s->V;
    const float least = all ? -INFINITY : kth_greatest(s->probs, logits, s->V, top_k);
    for (size_t i = 0; i < s->V; i++)
        if (logits[i] >= least) s->order[kept++] = (uint32_t)i;
    if (sorted) {
        qsort_r(s->order, kept, sizeof *s->order, by_falling_logit, (void *)logits);
        return kept;
    }
    const size_t first = (size_t)argmax(logits, s->V);
    for (size_t i = 0; i < kept; i++)
        if (s->order[i] == first) s->order[i] = s->order[0];
    s->order[0] = (uint32_t)first;
    return kept;
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
    size_t V = s->V, kept = keep_top_k(s, logits, top_k, top_p < 1.0);
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
