// `vlm bench decode`: tokens a second of one sequence, and what share that is of the speed at which this
// machine reads memory, measured in the same run: each token reads every weight once.
#include "base/log.h"
#include "base/mib.h"
#include "base/pyjson.h"
#include "cmd/bench.h"
#include "cmd/bench_time.h"
#include "cmd/cmd.h"
#include "cmd/session.h"
#include "ops/cpu/cpu.h"

#include <stdio.h>
#include <stdlib.h>

typedef struct DecodeFlags {
    char *checkpoint, *lm_tokenizer, *weights;
    size_t prompt_tokens, tokens, repeats, threads, stream_mib;
    bool json;
} DecodeFlags;

#define AT(field) offsetof(DecodeFlags, field)
static const Field decode_fields[] = {
    {"checkpoint", FIELD_STRING, AT(checkpoint), NULL, 0, 0, NULL,
     "checkpoint folder, .gguf file or folder with a Llama model"},
    {"lm_tokenizer", FIELD_STRING, AT(lm_tokenizer), NULL, 0, 0, NULL,
     "tokenizer instead of the model's own"},
    {"weights", FIELD_STRING, AT(weights), "f32", 0, 0, WEIGHTS_CHOICES, "what weights are kept in"},
    {"prompt_tokens", FIELD_SIZE, AT(prompt_tokens), "64", 1, 1e6, NULL,
     "tokens in front, one prefill a repeat"},
    {"tokens", FIELD_SIZE, AT(tokens), "32", 1, 1e6, NULL, "tokens a repeat"},
    {"repeats", FIELD_SIZE, AT(repeats), "5", 1, 1e4, NULL, "the fastest of so many counts"},
    {"threads", FIELD_SIZE, AT(threads), "1", 0, 4096, NULL, "threads; 0: one per physical core"},
    {"stream_mib", FIELD_SIZE, AT(stream_mib), "256", 1, 1e6, NULL, "memory that is read for comparison"},
    {"json", FIELD_BOOL, AT(json), "false", 0, 0, NULL, "print one JSON object"},
};
static const FieldTable decode_table = {"Decoding", decode_fields,
                                        sizeof decode_fields / sizeof *decode_fields};

typedef struct Timings { // seconds, the least of all repeats; of processor time, divided by the threads
    double stream, prefill, token;
} Timings;

static double spent(BenchTime begin, int threads) {
    return bench_since(begin).cpu / threads;
}

static void keep_least(double *least, double seconds) {
    if (*least == 0 || seconds < *least) *least = seconds;
}

// Reads the whole buffer; the sum keeps the compiler from leaving it out.
static uint64_t read_through(const uint64_t *x, size_t n, int threads) {
    uint64_t total = 0;
#pragma omp parallel for simd reduction(+ : total) num_threads(threads) schedule(static)
    for (size_t i = 0; i < n; i++) total += x[i];
    return total;
}

// Bytes that a token reads: all weights of the decoder, of an untied embedding only a row.
static size_t bytes_a_token(const Params *p) {
    size_t bytes = 0;
    for (size_t i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        const bool skipped = !p->tied && q == p->decoder.embedding;
        if (q->group == GROUP_LANGUAGE && !skipped) bytes += tensor_bytes(q->w);
    }
    return bytes;
}

static bool decode_once(Timings *t, Generation *g, int32_t *ids, const DecodeFlags *f, Error *err) {
    const int threads = cpu_threads(g->m->be);
    const Batch prompt = {.B = 1, .T = f->prompt_tokens, .input_ids = ids};
    BenchTime begin = bench_now();
    if (!generation_prefill(g, &prompt, err)) return false;
    keep_least(&t->prefill, spent(begin, threads));
    begin = bench_now();
    for (size_t i = 0; i < f->tokens; i++) {
        const int32_t next = argmax(generation_logits(g), g->m->config->lm_vocab_size);
        if (!generation_step(g, &next, err)) return false;
    }
    keep_least(&t->token, spent(begin, threads) / (double)f->tokens);
    return true;
}

static bool measure(Timings *t, Session *s, const DecodeFlags *f, Error *err) {
    const size_t words = f->stream_mib << 17;
    uint64_t *memory = mem_alloc(words * sizeof *memory), total = 0;
    int32_t *ids = mem_alloc(f->prompt_tokens * sizeof *ids);
    Generation g = {0};
    for (size_t i = 0; i < words; i++) memory[i] = i;
    for (size_t i = 0; i < f->prompt_tokens; i++)
        ids[i] = (int32_t)((i * 7919 + 11) % s->config.lm_vocab_size);
    bool ok = generation_create(&g, &s->model, 1, f->prompt_tokens + f->tokens, err);
    for (size_t i = 0; ok && i < f->repeats; i++) {
        const BenchTime begin = bench_now();
        total += read_through(memory, words, cpu_threads(s->be));
        keep_least(&t->stream, spent(begin, cpu_threads(s->be)));
        ok = decode_once(t, &g, ids, f, err);
    }
    log_debug("sum %llu", (unsigned long long)total);
    generation_free(&g);
    free(ids);
    free(memory);
    return ok;
}

static void report(const Timings *t, const Session *s, const DecodeFlags *f) {
    const size_t bytes = bytes_a_token(&s->model.params);
    const double gigabytes = bench_rate((double)bytes / 1e9, t->token),
                 stream = bench_rate((double)f->stream_mib * 1048576 / 1e9, t->stream);
    if (!f->json) {
        printf("%s, weights %s, %s\n", f->checkpoint, dtype_name(s->model.params.weights), s->be->detail);
        printf("prefill   %9.1f tokens/s (%zu at once)\n", bench_rate((double)f->prompt_tokens, t->prefill),
               f->prompt_tokens);
        printf("decode    %9.1f tokens/s, %.2f ms each\n", bench_rate(1, t->token), 1e3 * t->token);
        printf("weights   %9.1f MiB a token, %.2f GB/s\n", in_mib(bytes), gigabytes);
        printf("memory    %9.2f GB/s read in the same run: decode is at %.0f%%\n", stream,
               stream > 0 ? 100 * gigabytes / stream : 0);
        return;
    }
    pyjson_print(stdout,
                 json_pack("{s:s, s:i, s:f, s:f, s:I, s:f, s:f}", "weights",
                           dtype_name(s->model.params.weights), "threads", cpu_threads(s->be),
                           "prefill_tokens_per_second", bench_rate((double)f->prompt_tokens, t->prefill),
                           "decode_tokens_per_second", bench_rate(1, t->token), "bytes_per_token",
                           (json_int_t)bytes, "decode_gb_per_second", gigabytes, "stream_gb_per_second",
                           stream),
                 -1);
}

static bool run(const void *flags, Error *err) {
    const DecodeFlags *f = flags;
    Session s;
    Timings t = {0};
    const SessionPlan plan = {1, f->prompt_tokens, 0, f->threads, weights_dtype(f->weights), NULL};
    log_set_level(LOG_WARNING);
    if (!session_open(&s, f->checkpoint, f->lm_tokenizer, err)) return false;
    const bool ok = session_load(&s, &plan, err) && measure(&t, &s, f, err);
    if (ok) report(&t, &s, f);
    session_close(&s);
    return ok;
}

static bool check_flags(const void *flags, Error *err) {
    const DecodeFlags *f = flags;
    if (f->checkpoint) return true;
    return error_set(err,
                     "--checkpoint: not given; name a checkpoint folder, a .gguf file or a Llama folder");
}

int bench_decode(int argc, char **argv) {
    DecodeFlags f;
    return command_run((FieldSet){&decode_table, &f}, argc, argv, check_flags, run);
}
