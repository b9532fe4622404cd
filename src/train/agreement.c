#include "train/agreement.h"
#include "base/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char what[] = "comparing settings";

// ---- facts ----

// Each rank may have its own.
static const char *const own_fields[] = {"vlm_checkpoint_path",
                                         "lm_tokenizer",
                                         "vit_model_type",
                                         "lm_model_type",
                                         "train_dataset_path",
                                         "val_dataset_path",
                                         "device",
                                         "threads",
                                         "num_workers",
                                         "prefetch_factor",
                                         "log_interval",
                                         "detect_anomaly",
                                         "log_wandb",
                                         "wandb_entity",
                                         "hf_repo_name",
                                         "max_minutes",
                                         "keep_checkpoints",
                                         "dump_batch",
                                         "lora_adapter",
                                         "cache_vision",
                                         "profile"};

json_t *agreement_of_config(const Config *config, const char *version) {
    FieldSet sets[3];
    json_t *facts = json_object();
    config_sets((Config *)config, sets);
    for (int i = 0; i < 3; i++) json_object_update_new(facts, fields_to_json(sets[i]));
    for (size_t i = 0; i < sizeof own_fields / sizeof *own_fields; i++) json_object_del(facts, own_fields[i]);
    json_object_set_new(facts, "version of vlm", json_string(version));
    return facts;
}

// ---- comparing ----

// Rank 0's text on all; caller frees, also after a failure.
static bool broadcast_text(Comm *comm, char **text, Error *err) {
    uint64_t n = strlen(*text);
    if (!comm_broadcast(comm, &n, sizeof n, what, err)) return false;
    if (!comm_is_first(comm)) {
        free(*text);
        *text = mem_zeroed(n + 1, 1);
    }
    for (size_t at = 0; at < n; at += COMM_SMALL_BYTES) {
        const size_t left = n - at;
        if (!comm_broadcast(comm, *text + at, left < COMM_SMALL_BYTES ? left : COMM_SMALL_BYTES, what, err))
            return false;
    }
    return true;
}

enum { COMPLAINT = 512 };

static void describe(char *out, size_t size, const json_t *value) {
    char *text = value ? json_dumps(value, JSON_ENCODE_ANY) : NULL;
    snprintf(out, size, "%.120s", text ? text : "not there");
    free(text);
}

// Nothing when all is the same.
static void complain(char complaint[COMPLAINT], size_t rank, const json_t *mine, const json_t *first) {
    const char *key;
    json_t *value;
    char a[128], b[128];
    if (json_object_size(first) > json_object_size(mine))
        snprintf(complaint, COMPLAINT, "rank %zu knows %zu settings, rank 0 %zu", rank,
                 json_object_size(mine), json_object_size(first));
    json_object_foreach((json_t *)mine, key, value) {
        const json_t *other = json_object_get(first, key);
        if (other && json_equal(value, other)) continue;
        describe(a, sizeof a, value);
        describe(b, sizeof b, other);
        snprintf(complaint, COMPLAINT, "%s of rank %zu is %s, of rank 0 %s", key, rank, a, b);
        return;
    }
}

// The complaint of the lowest rank that has one, on all.
static bool first_complaint(Comm *comm, char complaint[COMPLAINT], Error *err) {
    const size_t world = comm_world_size(comm);
    char(*all)[COMPLAINT] = mem_zeroed(world, sizeof *all);
    bool ok = comm_gather(comm, complaint, COMPLAINT, all, what, err);
    for (size_t r = 0; r < world && !complaint[0]; r++) memcpy(complaint, all[r], COMPLAINT);
    free(all);
    return ok && comm_broadcast(comm, complaint, COMPLAINT, what, err);
}

bool agreement_check(Comm *comm, const json_t *facts, Error *err) {
    if (!comm) return true;
    char *text = json_dumps(facts, 0), complaint[COMPLAINT] = "";
    bool ok = broadcast_text(comm, &text, err);
    json_t *first = ok ? json_loads(text, 0, NULL) : NULL;
    free(text);
    if (ok) complain(complaint, comm_rank(comm), facts, first);
    json_decref(first);
    ok = ok && first_complaint(comm, complaint, err);
    if (ok && complaint[0])
        return error_set(err, "%s; ranks of one run need the same program, settings and data", complaint);
    return ok;
}
