// LINK: cmd
// RUNS: vlm
// COST: 21
// `vlm train` from the command line on a small synthetic data set, each run in a process of its own: loader
// threads do not change a bit of the log, Ctrl-C saves and says how to go on, what it says works, and wrong
// flags name the remedy. A run from backbones starts with their values and sizes.
#include "base/file.h"
#include "base/memory.h"
#include "cmd/cmd.h"
#include "cmd/continue_line.h"
#include "support/reference.h"
#include "support/small_run.h"
#include "support/weights_case.h"
#include "train/pace.h"
#include "train/stop.h"

#include <jansson.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

// ---- commands in child processes ----

// A tiny model on the synthetic rows; the last word given of a flag counts. Caller frees.
static char *train_line(const char *name, const char *more) {
    char *tokenizer = golden_path("model/tokenizer"); // smaller than the preset's vocabulary: allowed
    char *line = mem_printf(
        "train --preset tiny --vit_n_blocks 1 --lm_n_blocks 1 --lm_max_length 128 --max_sample_length 128 "
        "--val_size 40 --batch_size 2 --gradient_accumulation_steps 2 --eval_interval 4 --threads 1 "
        "--max_training_steps 6 --train_dataset_path %s/data/train --vlm_checkpoint_path %s/checkpoints "
        "--lm_tokenizer %s --run_name %s %s",
        test_folder, test_folder, tokenizer, name, more);
    free(tokenizer);
    return line;
}

static pid_t start(const char *line) {
    return program_start(line, in_test_folder("stdout.txt"), in_test_folder("stderr.txt"));
}

// In a process of its own: signals, then what the second one gives.
static int run_signals(void) {
    stop_on_signals();
    stop_gently();
    kill(getpid(), SIGINT);
    for (int i = 0; i < 1000 && !stop_signal(); i++) usleep(10000);
    if (stop_signal() != SIGINT) return 1;
    kill(getpid(), SIGINT);
    usleep(10000000);
    return 2;
}

static int wait_for(pid_t child) { // exit status, or minus the signal
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void expect_status(int status, int expected) {
    if (status == expected) return;
    char *text = program_read_text(in_test_folder("stderr.txt"));
    fail_msg("exit status %d instead of %d: %s", status, expected, text);
}

static void run(char *owned_line, int expected) {
    const int status = wait_for(start(owned_line));
    free(owned_line);
    expect_status(status, expected);
}

static void expect_said(const char *words) {
    char *text = program_read_text(in_test_folder("stderr.txt"));
    if (!strstr(text, words)) fail_msg("\"%s\" is not in: %s", words, text);
    free(text);
}

static const char *in_run(const char *name, const char *file) {
    char path[160];
    snprintf(path, sizeof path, "checkpoints/%s/%s", name, file);
    return in_test_folder(path);
}

// ---- runs ----

// Losses and norms of all lines of log.jsonl, as written.
static json_t *logged(const char *name) {
    char *text = program_read_text(in_run(name, "log.jsonl")), *rest = text;
    json_t *values = json_array();
    for (char *line = strtok_r(rest, "\n", &rest); line; line = strtok_r(rest, "\n", &rest)) {
        json_t *object = json_loads(line, 0, NULL);
        assert_non_null(object);
        static const char *const keys[] = {"step", "batch_loss", "grad_norm", "val_loss", "epoch_loss"};
        for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
            if (json_object_get(object, keys[i])) json_array_append(values, json_object_get(object, keys[i]));
        json_decref(object);
    }
    free(text);
    return values;
}

static void test_loader_threads_do_not_matter(void **state) {
    (void)state;
    run(train_line("workers_0", "--num_workers 0"), EXIT_DONE);
    run(train_line("workers_1", "--num_workers 1"), EXIT_DONE);
    run(train_line("workers_4", "--num_workers 4 --prefetch_factor 3"), EXIT_DONE);
    run(train_line("seed_1", "--num_workers 1 --seed 1"), EXIT_DONE);
    expect_said("best: ");
    json_t *one = logged("workers_1"), *none = logged("workers_0"), *four = logged("workers_4"),
           *other = logged("seed_1");
    assert_true(json_array_size(one) >= 6 * 3);
    assert_true(json_equal(one, none));
    assert_true(json_equal(one, four));
    assert_false(json_equal(one, other));
    json_decref(one);
    json_decref(none);
    json_decref(four);
    json_decref(other);
    assert_true(file_exists(in_run("workers_1", "step_5/model.safetensors")));
    assert_true(file_exists(in_run("workers_1", "step_5/config.json")));
}

// Waits until the run has logged a few updates.
static void wait_for_log(const char *name, pid_t child) {
    for (int i = 0; i < 1200; i++) {
        Error err;
        char *text = NULL;
        size_t size, lines = 0;
        if (file_read(&text, &size, in_run(name, "log.jsonl"), &err))
            for (size_t k = 0; k < size; k++) lines += text[k] == '\n';
        free(text);
        if (lines >= 3) return;
        usleep(100000);
        if (waitpid(child, NULL, WNOHANG) != 0) break;
    }
    char *text = program_read_text(in_test_folder("stderr.txt"));
    fail_msg("the run logs nothing: %s", text);
}

// The line after "to go on …", without "vlm"; caller frees.
static char *said_line(void) {
    char *text = program_read_text(in_test_folder("stderr.txt"));
    const char *at = strstr(text, "\n  vlm train");
    if (!at) fail_msg("no line to go on with in: %s", text);
    char *line = mem_strdup(at ? at + strlen("\n  vlm ") : "");
    line[strcspn(line, "\n")] = '\0';
    free(text);
    return line;
}

static void test_interrupted(void **state) {
    (void)state;
    static const int signals[] = {SIGINT, SIGTERM, SIGUSR1};
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "signal_%d", signals[i]);
        char *line = train_line(name, "--max_training_steps 100000 --eval_interval 100000 --val_size 0");
        const pid_t child = start(line);
        wait_for_log(name, child);
        kill(child, signals[i]);
        expect_status(wait_for(child), 128 + signals[i]);
        free(line);
        expect_said("saved ");
        char *said = said_line();
        run(mem_printf("%s --max_training_steps 2 --run_name again_%d", said, signals[i]), EXIT_DONE);
        free(said);
    }
}

static void test_second_signal_ends_at_once(void **state) {
    (void)state;
    fflush(NULL);
    const pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) _exit(run_signals());
    assert_int_equal(wait_for(child), 130);
}

// Signals that come while the kernels compute must not touch the heap: oneDNN keeps its stack pointer there.
static void test_signals_while_computing(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        char name[32];
        snprintf(name, sizeof name, "computing_%d", i);
        char *line = train_line(name, "--max_training_steps 100000 --eval_interval 100000 --val_size 0");
        const pid_t child = start(line);
        wait_for_log(name, child);
        usleep((useconds_t)i * 17000);
        kill(child, SIGINT);
        expect_status(wait_for(child), 130);
        free(line);
    }
}

// The peak that the kernel counted, beside the plan for the largest of the run's batches: within 2% and what
// the program itself takes more or less from one machine to another. Sanitizers have memory of their own.
static void test_memory_as_planned(void **state) {
    (void)state;
    run(train_line("memory", "--batch_size 8 --lm_n_blocks 6 --val_size 0"), EXIT_DONE);
    char *text = program_read_text(in_test_folder("stderr.txt"));
    const char *at = strstr(text, " MiB resident at most; planned were ");
    double peak = 0, planned = 0;
    assert_non_null(at);
    while (at > text && at[-1] != ' ') at--;
    if (sscanf(at, "%lf MiB resident at most; planned were %lf", &peak, &planned) != 2) fail_msg("%s", text);
#ifdef __SANITIZE_ADDRESS__
    assert_true(peak > 0 && planned > 0);
#else
    const double program = 5;
    if (fabs(planned - peak) > 0.02 * peak + program) fail_msg("%g MiB, planned %g", peak, planned);
#endif
    free(text);
}

// As many updates as the plan says make an epoch in the run.
static void check_epoch(const char *plan) {
    const char *at = strstr(plan, "an epoch ");
    size_t updates = 0;
    assert_true(at && sscanf(at, "an epoch %zu updates from 260 rows, ", &updates) == 1 && updates > 10);
    char *more = mem_printf("--eval_in_epochs false --max_training_steps %zu", updates + 1),
         *last = mem_printf("{\"step\": %zu, \"epoch\": 1.0", updates - 1);
    run(train_line("epoch", more), EXIT_DONE);
    char *log = program_read_text(in_run("epoch", "log.jsonl"));
    if (!strstr(log, last)) fail_msg("no %s in: %s", last, log);
    free(log);
    free(last);
    free(more);
}

// Everything is opened and timed, nothing written.
static void test_dry_run(void **state) {
    (void)state;
    run(train_line("planned", "--dry_run"), EXIT_DONE);
    assert_false(file_exists(in_run("planned", "log.jsonl")) ||
                 file_exists(in_test_folder("checkpoints/planned")));
    char *text = program_read_text(in_test_folder("stdout.txt"));
    static const char *const said[] = {"834496, 834496 of them trained",
                                       "2 batches of 2 x 128 positions",
                                       "tokens of an update",
                                       "time of an update",
                                       "MiB with",
                                       "the most there can be",
                                       "a checkpoint",
                                       "epochs in all",
                                       "free in"};
    for (size_t i = 0; i < sizeof said / sizeof *said; i++)
        if (!strstr(text, said[i])) fail_msg("\"%s\" is not in: %s", said[i], text);
    check_epoch(text);
    free(text);
    run(train_line("planned", "--dry_run --vlm_checkpoint_path /dev/null/nowhere"), EXIT_FAILED);
    expect_said("can't be written there");
    run(train_line("planned", "--dry_run --train_dataset_path /nowhere"), EXIT_FAILED);
    expect_said("/nowhere");
}

static void test_wrong_flags(void **state) {
    (void)state;
    static const struct {
        const char *flags, *said;
        int status;
    } cases[] = {
        {"--vlm_load_backbone_weights true", "--vlm_load_backbone_weights false", EXIT_USAGE},
        {"--lm_dropout 0.1", "lm_dropout", EXIT_USAGE},
        {"--lr_mp 0 --lr_vision_backbone 0 --lr_language_backbone 0", "lr_mp", EXIT_USAGE},
        {"--max_training_stpes 3", "max_training_steps", EXIT_USAGE},
        {"--train_dataset_path /nowhere", "/nowhere", EXIT_FAILED},
        {"--lm_tokenizer /nowhere", "/nowhere", EXIT_FAILED},
        {"--resume_from_vlm_checkpoint true --vlm_checkpoint_path /nowhere",
         "--vlm_checkpoint_path: /nowhere: no such file or folder", EXIT_USAGE},
        {"--run_name workers_1", "run_name", EXIT_FAILED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run(train_line("wrong", cases[i].flags), cases[i].status);
        expect_said(cases[i].said);
        assert_false(file_exists(in_run("wrong", "log.jsonl")));
    }
}

static void test_says_what_is_left_out(void **state) {
    (void)state;
    run(train_line("left_out", "--log_wandb true --max_training_steps 1"), EXIT_DONE);
    expect_said("not part of this build and left out: W&B (log_wandb);");
}

// ---- backbones ----

// The reference's SigLIP (16 pixels, 4 x 4 patches) and Llama (100 tokens); 578 - 100 rows are new.
static char *backbone_line(const char *name, const char *more) {
    char *vision = golden_path("backbones/siglip_full"), *language = golden_path("backbones/llama_tied"),
         *line = mem_printf("--vlm_load_backbone_weights true --vit_model_type %s --lm_model_type %s "
                            "--vit_n_blocks 2 --lm_n_blocks 2 --mp_image_token_length 4 --max_img_size 16 "
                            "--max_training_steps 2 --lr_vision_backbone 0 %s",
                            vision, language, more);
    char *whole = train_line(name, line);
    free(line);
    free(vision);
    free(language);
    return whole;
}

static json_t *saved_config(const char *name) {
    json_t *config = json_load_file(in_run(name, "step_1/config.json"), 0, NULL);
    assert_non_null(config);
    return config;
}

static double number_of(const json_t *config, const char *field) {
    return json_number_value(json_object_get(config, field));
}

// The frozen part of a run's checkpoint is the file's.
static void expect_siglip_in(const char *run) {
    Safetensors *saved, *file = reference_open("backbones/siglip_full/model.safetensors");
    Error err;
    if (!safetensors_open(&saved, in_run(run, "step_1/model.safetensors"), &err)) fail_msg("%s", err.text);
    float *x = reference_f32(saved, "vision_encoder.blocks.1.mlp.fc2.weight"),
          *y = reference_f32(file, "vision_model.encoder.layers.1.mlp.fc2.weight");
    assert_memory_equal(x, y, 24 * 40 * sizeof *x);
    free(x);
    free(y);
    safetensors_close(saved);
    safetensors_close(file);
}

// What that run saved goes on with more vocabulary and larger pictures.
static void go_on_larger(const char *run_name) {
    char *more = mem_printf(
        "--resume_from_vlm_checkpoint true --resume_weights_only --lm_vocab_size 600 --vit_img_size 32 "
        "--max_img_size 32 --mp_image_token_length 16 --vlm_checkpoint_path %s",
        in_run(run_name, "step_1"));
    run(backbone_line("larger_refused", more), EXIT_FAILED);
    expect_said("--interpolate_positions bicubic");
    char *longer = mem_printf("%s --interpolate_positions bicubic", more);
    run(backbone_line("larger", longer), EXIT_DONE);
    expect_said("578 rows from the file, 22 new ones drawn");
    expect_said("a grid of 4 x 4 made 8 x 8, bicubic");
    free(longer);
    free(more);
}

// The same out of the Hub's cache, in shards; four tiles instead of one.
static void go_on_from_hub(const char *run_name) {
    const char *hub = "--resume_from_vlm_checkpoint true --resume_weights_only --vlm_checkpoint_path org/m "
                      "--max_img_size 32 --resize_to_max_side_len true --dry_run";
    setenv("HF_HUB_CACHE", in_test_folder("hub"), 1);
    shard_into_cache(in_test_folder("hub"), "org--m", in_run(run_name, "step_1"));
    run(backbone_line("from_hub", hub), EXIT_DONE);
    run(backbone_line("from_hub", "--resume_from_vlm_checkpoint true --vlm_checkpoint_path org/none"),
        EXIT_USAGE);
    expect_said("hf download org/none");
    unsetenv("HF_HUB_CACHE");
}

// The configuration follows the files, the frozen part is the file's, and what was saved can be gone on from.
static void test_starts_from_backbones(void **state) {
    (void)state;
    run(backbone_line("backbones", ""), EXIT_DONE);
    expect_said("loaded ");
    expect_said("100 rows from the file, 478 new ones drawn");
    json_t *config = saved_config("backbones");
    assert_true(number_of(config, "vit_hidden_dim") == 24 && number_of(config, "vit_ln_eps") == 1e-5);
    assert_true(number_of(config, "lm_hidden_dim") == 32 && number_of(config, "lm_re_base") == 20000);
    json_decref(config);
    expect_siglip_in("backbones");
    go_on_larger("backbones");
    go_on_from_hub("backbones");
}

// A file as huggingface_hub keeps it: a blob, and a link to it in the snapshot.
static void put_into_cache(const char *model, const char *from, const char *name) {
    Error err;
    char *source = path_join(from, name), *text, *blob = mem_printf("blob-of-%s", name),
         *root = mem_printf("%s/home/hub/models--%s", test_folder, model), *blobs = path_join(root, "blobs"),
         *snapshot = path_join(root, "snapshots/0a1b"), *refs = path_join(root, "refs"),
         *path = path_join(blobs, blob), *link = path_join(snapshot, name),
         *target = mem_printf("../../blobs/%s", blob);
    size_t size;
    write_text(refs, "main", "0a1b\n");
    if (!file_read(&text, &size, source, &err) || !file_make_folders(blobs, &err) ||
        !file_make_folders(snapshot, &err) || !file_write_text(path, text, size, &err))
        fail_msg("%s", err.text);
    assert_int_equal(symlink(target, link), 0);
    free(source), free(text), free(blob), free(root), free(blobs), free(snapshot), free(refs), free(path);
    free(link), free(target);
}

static void expect_name(const json_t *config, const char *field, const char *name) {
    assert_string_equal(json_string_value(json_object_get(config, field)), name);
}

// What `vlm generate` prints about the run's checkpoint; more: further flags.
static char *generated(const char *more, int status) {
    char *line = mem_printf("generate --checkpoint %s --prompt hi --greedy --max_new_tokens 4 --threads 1 %s",
                            in_run("cached", "step_1"), more);
    run(line, status);
    return program_read_text(in_test_folder("stdout.txt"));
}

// Backbones and tokenizer by their names on the Hub: the checkpoint keeps the names, as nanoVLM does, answers
// and goes on with the cache, and without it when it is told where a tokenizer lies.
static void test_starts_from_the_cache(void **state) {
    (void)state;
    char *vision = golden_path("backbones/siglip_full"), *language = golden_path("backbones/llama_tied"),
         *tokenizer = golden_path("model/tokenizer"), *own = mem_printf("--lm_tokenizer %s", tokenizer);
    put_into_cache("org--vit", vision, "config.json");
    put_into_cache("org--vit", vision, "model.safetensors");
    put_into_cache("org--llm", language, "config.json");
    put_into_cache("org--llm", language, "model.safetensors");
    put_into_cache("org--llm", tokenizer, "tokenizer.json");
    put_into_cache("org--llm", tokenizer, "tokenizer_config.json");
    setenv("HF_HOME", in_test_folder("home"), 1);
    run(backbone_line("cached", "--vit_model_type org/vit --lm_model_type org/llm --lm_tokenizer org/llm"),
        EXIT_DONE);
    expect_said("100 rows from the file, 478 new ones drawn");
    json_t *config = saved_config("cached");
    expect_name(config, "vit_model_type", "org/vit");
    expect_name(config, "lm_model_type", "org/llm");
    expect_name(config, "lm_tokenizer", "org/llm");
    json_decref(config);
    char *there = generated("", EXIT_DONE),
         *on = mem_printf("--resume_from_vlm_checkpoint true --max_training_steps "
                          "3 --vlm_checkpoint_path %s",
                          in_run("cached", "step_1"));
    run(backbone_line("cached_on", on), EXIT_DONE);
    setenv("HF_HOME", in_test_folder("empty"), 1); // another machine
    free(generated("", EXIT_FAILED));
    expect_said("--lm_tokenizer: org/llm: no such file or folder, and not in the Hub cache");
    char *elsewhere = generated(own, EXIT_DONE);
    assert_string_equal(elsewhere, there);
    run(backbone_line("cached_away", on), EXIT_DONE);
    unsetenv("HF_HOME");
    free(vision), free(language), free(tokenizer), free(own), free(there), free(on), free(elsewhere);
}

static void test_backbones_that_do_not_fit(void **state) {
    (void)state;
    static const TensorCase one[] = {{"model.embed_tokens.weight", 2, {100, 32}}, {NULL, 0, {0}}};
    char *source = golden_path("backbones/llama_tied/config.json"), *config = program_read_text(source),
         *half = mem_printf("--lm_model_type %s", in_test_folder("half"));
    write_text(in_test_folder("half"), "config.json", config);
    write_tensors(in_test_folder("half/model.safetensors"), one, DTYPE_F32);
    static const struct {
        const char *flags, *said;
        int status;
    } cases[] = {
        {"--lm_hidden_dim 64", "--lm_hidden_dim 64: ", EXIT_USAGE},
        {"--vit_n_blocks=3", "is a backbone with 2; leave the flag out", EXIT_USAGE},
        {"--vit_img_size 32", "--interpolate_positions bicubic", EXIT_USAGE},
        {"--lm_vocab_size 99", "vocab_size 100 is larger than lm_vocab_size 99", EXIT_USAGE},
        {"--vit_model_type org/none", "hf download org/none", EXIT_USAGE},
        {"--mp_image_token_length 16", "mp_image_token_length", EXIT_USAGE},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        run(backbone_line("wrong", cases[i].flags), cases[i].status);
        expect_said(cases[i].said);
    }
    run(backbone_line("wrong", half), EXIT_FAILED); // config.json fits, a tensor is missing
    expect_said("tensor model.layers.0.mlp.gate_proj.weight is missing; ");
    assert_false(file_exists(in_run("wrong", "log.jsonl")));
    free(source);
    free(config);
    free(half);
}

// ---- parts ----

static void test_continue_line(void **state) {
    (void)state;
    char *argv[] = {"train",
                    "--preset",
                    "tiny",
                    "--run-name",
                    "a b",
                    "--vlm_checkpoint_path=old",
                    "--resume_from_vlm_checkpoint",
                    "--note",
                    "it's",
                    "--threads=2"};
    char *line = continue_line("runs/x y/step_3", 10, argv);
    assert_string_equal(
        line, "vlm train --preset tiny --note 'it'\\''s' --threads=2 --resume_from_vlm_checkpoint true "
              "--vlm_checkpoint_path 'runs/x y/step_3'");
    free(line);
    assert_true(flag_is("--run-name=x", "run_name") && flag_is("--run_name", "run_name"));
    assert_false(flag_is("--run_names", "run_name") || flag_is("run_name", "run_name") ||
                 flag_is("--run", "run_name"));
}

static void test_pace(void **state) {
    (void)state;
    Pace p = {0};
    assert_true(pace_tokens_per_second(&p) == 0 && pace_waiting_share(&p) == 0 &&
                pace_seconds_left(&p, 5) == 0);
    for (int i = 0; i < 50; i++) {
        pace_micro_batch(&p, 100, 0.5, 0.75);
        pace_micro_batch(&p, 300, 0.0, 0.75);
        pace_update(&p);
    }
    expect_within("pace", fabs(pace_tokens_per_second(&p) - 200), 1e-9, "tokens a second");
    expect_within("pace", fabs(pace_waiting_share(&p) - 0.25), 1e-9, "share of waiting");
    expect_within("pace", fabs(pace_seconds_left(&p, 10) - 20), 1e-9, "seconds left");
    static const struct {
        double seconds;
        const char *text;
    } cases[] = {{-1, "0 s"},           {59.4, "59 s"},       {59.6, "1 min 0 s"},
                 {3599, "59 min 59 s"}, {25620, "7 h 7 min"}, {187200, "2 d 4 h"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[32];
        pace_format_duration(text, cases[i].seconds);
        assert_string_equal(text, cases[i].text);
    }
}

static int make_data(void **state) {
    (void)state;
    return make_small_run_data(300);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_loader_threads_do_not_matter),
        cmocka_unit_test(test_interrupted),
        cmocka_unit_test(test_second_signal_ends_at_once),
        cmocka_unit_test(test_signals_while_computing),
        cmocka_unit_test(test_memory_as_planned),
        cmocka_unit_test(test_dry_run),
        cmocka_unit_test(test_wrong_flags),
        cmocka_unit_test(test_says_what_is_left_out),
        cmocka_unit_test(test_starts_from_backbones),
        cmocka_unit_test(test_starts_from_the_cache),
        cmocka_unit_test(test_backbones_that_do_not_fit),
        cmocka_unit_test(test_continue_line),
        cmocka_unit_test(test_pace),
    };
    return cmocka_run_group_tests(tests, make_data, remove_test_folder);
}
