// Generation with a key/value cache: prefill a batch of prompts, then one token a sequence and step
// (nanoVLM, VisionLanguageModel.generate). Positions count the padding, as there.
#pragma once
#include "model/sampling.h"
#include "model/vlm.h"

typedef struct GenerateOptions {
    size_t max_new_tokens;
    bool greedy;
    size_t top_k;
    double top_p, temperature;
    uint64_t seed;        // row b of the batch draws from stream b
    const int32_t *stops; // tokens that end a row like eos does, and are given as eos
    size_t n_stops;
} GenerateOptions;

typedef struct Generation {
    Vlm *m;
    KVCache cache;
    Arena arena;
    size_t B, capacity;
    bool has_mask;
    Tensor mask;                    // [B * capacity] I32, cut to [B, used] at each step
    Tensor rows, hidden, logits;    // of the last positions: [B], [B, C], [B, V]
    int32_t *host_mask, *host_rows; // [B, capacity], [B]
    int32_t *packed_mask;           // [B, used], staging of mask
    float *host_logits;             // [B, V], what generation_logits shows
    double vision_seconds;          // spent on pictures since generation_create
} Generation;

// m must be planned for a batch of max_batch x prompt positions and 1 new one; capacity: prompt + new tokens.
bool generation_create(Generation *g, Vlm *m, size_t B, size_t capacity, Error *err);
void generation_free(Generation *g);
// Runs the prompts (left-padded; attention_mask may be NULL) with their pictures; the cache begins anew.
bool generation_prefill(Generation *g, const Batch *prompt, Error *err);
// Runs more tokens of every row behind those in the cache (as many a row, with their pictures); a chat goes
// on this way. batch->attention_mask must be NULL: all of them are seen.
bool generation_extend(Generation *g, const Batch *more, Error *err);
// Feeds one token a row; the next logits are then there.
bool generation_step(Generation *g, const int32_t *tokens, Error *err);
const float *generation_logits(const Generation *g); // [B, V] of the last position; valid until the next call

// Called for every new token a row, eos for rows that have ended; may end more of them, and returns false to
// stop the whole generation.
typedef bool (*TokenCallback)(void *context, size_t step, const int32_t *tokens, bool *ended);
// max_new_tokens tokens a row into tokens [B, max_new_tokens]; everything behind a row's first eos is eos,
// and generation ends when every row has reached one. eos < 0: none. callback may be NULL. Returns the steps
// done in *steps.
bool generate(int32_t *tokens, size_t *steps, Generation *g, const Batch *prompt,
              const GenerateOptions *options, int32_t eos, TokenCallback callback, void *context, Error *err);
// The same from where the cache stands: generation_prefill or generation_extend has been called. The last
// token chosen is not fed.
bool generation_run(int32_t *tokens, size_t *steps, Generation *g, const GenerateOptions *options,
                    int32_t eos, TokenCallback callback, void *context, Error *err);
