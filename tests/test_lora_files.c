// LINK: train ops_cpu config
// RUNS: vlm
// Adapters in PEFT's files: the same bits there and back, damaged files and those of other models, and a run
// with adapters that is resumed.
#include "support/folders.h"
#include "support/golden.h"
#include "support/lora_case.h"
#include "support/program.h"

#include "base/memory.h"
#include "base/random.h"
#include "format/safetensors.h"
#include "model/checkpoint.h"
#include "model/lora_file.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool fill_param(void *context, size_t i, void *dst) {
    LoraCase *c = context;
    tensor_download(c->be, STREAM_COMPUTE, dst, c->model.params.items[i].w);
    backend_sync(c->be);
    return true;
}

static char *save_adapters(LoraCase *c) { // caller removes the folder
    Error err;
    char *folder = make_folder();
    if (!lora_save(&c->model.params, &c->model.plan.adaptation, folder, fill_param, c, &err))
        fail_msg("%s", err.text);
    return folder;
}

static void files_bring_the_same_bits_back(void **state) {
    (void)state;
    LoraCase a, b, plain;
    Error err;
    lora_open(&a, &(LoraKind){.rank = 3});
    lora_open(&b, &(LoraKind){.rank = 3});
    lora_open(&plain, &(LoraKind){0});
    lora_randomise(&a);
    char *folder = save_adapters(&a);
    if (!lora_load(&b.model.params, b.be, folder, &err)) fail_msg("%s", err.text);
    for (size_t i = 0; i < a.model.params.count; i++) {
        float *x = lora_values(&a, a.model.params.items[i].w),
              *y = lora_values(&b, b.model.params.items[i].w);
        assert_memory_equal(x, y, tensor_bytes(a.model.params.items[i].w));
        free(x);
        free(y);
    }
    if (!lora_merge_files(&plain.model.params, plain.be, folder, &err)) fail_msg("%s", err.text);
    expect_within("loss of merged files, relative", fabs((double)lora_loss(&plain, 0) / lora_loss(&a, 0) - 1),
                  2e-6, "merged");
    remove_folder(folder);
    lora_close(&a);
    lora_close(&b);
    lora_close(&plain);
}

static void write_bytes(const char *folder, const char *name, const char *bytes, size_t n) {
    Error err;
    char *path = path_join(folder, name);
    if (!file_write_text(path, bytes, n, &err)) fail_msg("%s", err.text);
    free(path);
}

static void expect_refused(LoraCase *c, const char *folder, const char *said) {
    Error err = {""};
    for (int merging = 0; merging < 2; merging++) {
        const bool ok = merging ? lora_merge_files(&c->model.params, c->be, folder, &err)
                                : lora_load(&c->model.params, c->be, folder, &err);
        if (ok || !strstr(err.text, said) || !strstr(err.text, folder))
            fail_msg("expected \"%s\": %s", said, err.text);
    }
}

static void damaged_configurations_are_named(void **state) {
    (void)state;
    const struct {
        const char *text, *said;
    } cases[] = {
        {"", "no JSON object"},
        {"[]", "no JSON object"},
        {"{}", "peft_type is missing"},
        {"{\"peft_type\": \"IA3\"}", "peft_type is IA3"},
        {"{\"peft_type\": \"LORA\", \"lora_alpha\": 4}", "r is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 0, \"lora_alpha\": 4}", "r is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 3}", "lora_alpha is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": -1}", "lora_alpha is missing"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 16, \"use_dora\": true}", "use_dora is set"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 16, \"bias\": \"all\"}", "bias is all"},
        {"{\"peft_type\": \"LORA\", \"r\": 3, \"lora_alpha\": 16, \"rank_pattern\": {\"q_proj\": 4}}",
         "rank_pattern is set"},
        {"{\"peft_type\": \"LORA\", \"r\": 4, \"lora_alpha\": 16}", "has shape [3, "},
    };
    LoraCase c;
    lora_open(&c, &(LoraKind){.rank = 3});
    char *folder = save_adapters(&c);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_bytes(folder, LORA_CONFIG_FILE, cases[i].text, strlen(cases[i].text));
        expect_refused(&c, folder, cases[i].said);
    }
    remove_folder(folder);
    lora_close(&c);
}

// Every truncation and many mutations: refused or read, never anything else, and refused files change
// nothing.
static void damaged_weights_are_refused(void **state) {
    (void)state;
    LoraCase c;
    Error err;
    char *bytes;
    size_t size;
    lora_open(&c, &(LoraKind){.rank = 1, .targets = "decoder.blocks.0.attn.k_proj", .freeze = "MP.*"});
    lora_randomise(&c);
    char *folder = save_adapters(&c), *path = path_join(folder, LORA_WEIGHTS_FILE);
    assert_true(file_read(&bytes, &size, path, &err));
    const float before = lora_loss(&c, 0);
    for (size_t n = 0; n < size; n += n < 400 ? 1 : 97) {
        write_bytes(folder, LORA_WEIGHTS_FILE, bytes, n);
        expect_refused(&c, folder, LORA_WEIGHTS_FILE);
    }
    const float after = lora_loss(&c, 0);
    assert_memory_equal(&before, &after, sizeof after);
    Random r = random_stream(1, RANDOM_TEST, 5);
    for (int i = 0; i < 500; i++) {
        const size_t at = random_below(&r, size < 400 ? size : 400);
        const char old = bytes[at];
        bytes[at] = (char)random_below(&r, 256);
        write_bytes(folder, LORA_WEIGHTS_FILE, bytes, size);
        if (!lora_load(&c.model.params, c.be, folder, &err)) assert_true(strlen(err.text) > 0);
        bytes[at] = old;
    }
    free(bytes);
    free(path);
    remove_folder(folder);
    lora_close(&c);
}

// Adapters saved for other settings than those they are loaded into.
static void other_adapters_are_named(void **state) {
    (void)state;
    const struct {
        LoraKind saved, opened;
        double alpha;
        const char *said;
    } cases[] = {
        {{.rank = 3}, {.rank = 2}, 16, "use --lora_rank 3 --lora_alpha 16"},
        {{.rank = 3}, {.rank = 3}, 8, "use --lora_rank 3 --lora_alpha 16"},
        {{.rank = 3, .targets = "q_proj"},
         {.rank = 3, .targets = "q_proj,v_proj"},
         16,
         "no adapter of decoder.blocks.0.attn.v_proj"},
        {{.rank = 3, .targets = "q_proj,v_proj"}, {.rank = 3, .targets = "q_proj"}, 16, "v_proj"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        LoraCase a, b;
        Error err = {""};
        lora_open(&a, &cases[i].saved);
        lora_open(&b, &cases[i].opened);
        char *folder = save_adapters(&a);
        b.model.params.lora_scale = (float)(cases[i].alpha / (double)b.model.params.lora_rank);
        if (lora_load(&b.model.params, b.be, folder, &err) || !strstr(err.text, cases[i].said))
            fail_msg("%zu: %s", i, err.text);
        remove_folder(folder);
        lora_close(&a);
        lora_close(&b);
    }
}

// Names that belong nowhere, halves without the other, values that are no numbers.
typedef struct Odd {
    SafetensorsSpec specs[2];
    const float *values;
} Odd;

static bool fill_odd(void *context, size_t i, void *dst) {
    const Odd *o = context;
    for (size_t k = 0; k < o->specs[i].shape[0] * o->specs[i].shape[1]; k++) ((float *)dst)[k] = o->values[i];
    return true;
}

static void odd_tensors_are_named(void **state) {
    (void)state;
    LoraCase c;
    Error err;
    lora_open(&c, &(LoraKind){.rank = 1, .targets = "decoder.blocks.0.attn.k_proj"});
    const size_t C = c.config.vlm.lm_hidden_dim,
                 KD = c.config.vlm.lm_n_kv_heads * vlm_config_head_dim(&c.config.vlm);
    const char *a = "base_model.model.decoder.blocks.0.attn.k_proj.lora_A.weight",
               *b = "base_model.model.decoder.blocks.0.attn.k_proj.lora_B.weight",
               *odd = "base_model.model.decoder.blocks.7.attn.k_proj.lora_A.weight";
    const float fine[] = {1, 1}, bad[] = {1, NAN};
    const struct {
        const char *names[2];
        const float *values;
        size_t rank;
        const char *said;
    } cases[] = {{{odd, NULL}, fine, 1, "belongs to no matrix"},
                 {{a + 17, NULL}, fine, 1, "belongs to no matrix"},
                 {{a, NULL}, fine, 1, "lora_B.weight is missing"},
                 {{b, NULL}, fine, 1, "lora_A.weight is missing"},
                 {{a, b}, bad, 1, "NaN"},
                 {{a, b}, fine, 2, "has shape"}};
    char *folder = save_adapters(&c), *path = path_join(folder, LORA_WEIGHTS_FILE);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Odd o = {.values = cases[i].values};
        const size_t n = cases[i].names[1] ? 2 : 1, r = cases[i].rank;
        for (size_t k = 0; k < n; k++) {
            const bool is_b = !strcmp(cases[i].names[k], b);
            o.specs[k] =
                (SafetensorsSpec){cases[i].names[k], DTYPE_F32, 2, {is_b ? KD : r, is_b ? 1 : C / r}};
        }
        assert_true(safetensors_write(path, o.specs, n, NULL, 0, fill_odd, &o, &err));
        expect_refused(&c, folder, cases[i].said);
    }
    free(path);
    remove_folder(folder);
    lora_close(&c);
}

// ---- the program ----

static char *read_bytes(const char *folder, const char *name, size_t *size) {
    Error err;
    char *bytes, *path = path_join(folder, name);
    if (!file_read(&bytes, size, path, &err)) fail_msg("%s", err.text);
    free(path);
    return bytes;
}

// What --dry_run says of a checkpoint, in bytes.
static double planned_bytes(const char *train) {
    char *line = mem_printf("%s --dry_run", train);
    ProgramResult r = program_run(line);
    const char *at = strstr(r.out, "a checkpoint ");
    double mib = 0;
    if (r.status || !at || sscanf(at, "a checkpoint %lf", &mib) != 1) fail_msg("%s\n%s", r.out, r.err);
    program_result_free(&r);
    free(line);
    return mib * 1048576;
}

static char *train_line(const char *work) {
    char *tokenizer = golden_path("model/tokenizer");
    char *line =
        mem_printf("train --preset tiny --vit_n_blocks 1 --lm_n_blocks 1 --lm_max_length 128 "
                   "--max_sample_length 128 --val_size 0 --batch_size 2 --eval_interval 3 --threads 1 "
                   "--max_training_steps 6 --num_workers 1 --train_dataset_path %s/data/train "
                   "--vlm_checkpoint_path %s/runs --lm_tokenizer %s --run_name a --resume auto "
                   "--lora_rank 2 --lora_targets all-linear --lr_lora 0.01",
                   work, work, tokenizer);
    free(tokenizer);
    return line;
}

static void expect_line(int status, const char *err, char *owned_line) {
    program_expect(owned_line, status, "", err);
    free(owned_line);
}

// A run with adapters that lost its last checkpoint makes it again to the bit; and what reads checkpoints.
static void a_resumed_run_has_the_same_bits(void **state) {
    (void)state;
    static const char *const files[] = {"model.safetensors", LORA_WEIGHTS_FILE, LORA_CONFIG_FILE,
                                        "state-rank0.safetensors"};
    char *work = program_temporary("run"), *train = train_line(work),
         *last = mem_printf("%s/runs/a/step_5", work), *bytes[4];
    size_t sizes[4];
    double all = 0;
    expect_line(0, "", mem_printf("synth --out %s/data --rows 60 --test_rows 0", work));
    const double planned = planned_bytes(train);
    program_expect(train, 0, "", "LoRA language");
    for (int i = 0; i < 4; i++) {
        bytes[i] = read_bytes(last, files[i], &sizes[i]);
        all += (double)sizes[i];
    }
    assert_true(fabs(planned / all - 1) < 0.01);
    checkpoint_remove(last);
    program_expect(train, 0, "", "bit for bit");
    for (int i = 0; i < 4; i++) {
        size_t size;
        char *again = read_bytes(last, files[i], &size);
        if (size != sizes[i] || memcmp(again, bytes[i], size)) fail_msg("%s differs", files[i]);
        free(again);
        free(bytes[i]);
    }
    expect_line(1, "merged in it already",
                mem_printf("export --checkpoint %s --adapter %s --out %s/to --to nanovlm", last, last, work));
    remove_folder_tree(work);
    free(last);
    free(train);
    free(work);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_bring_the_same_bits_back), cmocka_unit_test(damaged_configurations_are_named),
        cmocka_unit_test(damaged_weights_are_refused),    cmocka_unit_test(other_adapters_are_named),
        cmocka_unit_test(odd_tensors_are_named),          cmocka_unit_test(a_resumed_run_has_the_same_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
