#include "train/saver.h"
#include "base/check.h"
#include "base/cores.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/pyjson.h"
#include "format/safetensors.h"
#include "model/checkpoint.h"
#include "model/lora_file.h"
#include "train/resume.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// ---- what is saved ----

// Parameters and moments.
static size_t saved_bytes(const Params *p, Dtype moments) {
    size_t n = 0;
    for (size_t i = 0; i < p->count; i++)
        n += tensor_count(p->items[i].w) * sizeof(float) +
             (p->items[i].trained ? 2 * optimizer_moment_bytes(moments, tensor_count(p->items[i].w)) : 0);
    return n;
}

static bool is_adapted(const Param *p) {
    return p->lora_a || param_is_adapter(p);
}

// With adapters, they and the matrices beneath stand in the state as well as in the files made for others,
// and so does a projector that is trained along.
size_t saver_disk_bytes(const Params *p, Dtype moments) {
    size_t twice = 0;
    for (size_t i = 0; i < p->count; i++) {
        const Param *q = &p->items[i];
        const bool is_saved_along = p->lora_rank > 0 && q == p->projector && q->trained;
        if (is_adapted(q) || is_saved_along) twice += tensor_count(q->w);
    }
    return saved_bytes(p, moments) + twice * sizeof(float);
}

static void add_tensor(Saver *s, const char *prefix, const Param *p, Tensor t) {
    SavedTensor *saved = &s->tensors[s->n_tensors++];
    snprintf(saved->name, sizeof saved->name, "%s%s", prefix, p->name);
    saved->tensor = t;
    saved->same_as = SIZE_MAX;
}

// Adapters and the matrices beneath: merged, they can't be had back to the bit.
static void add_adapted(Saver *s, const Params *p) {
    for (size_t i = 0; i < p->count; i++) {
        if (!is_adapted(&p->items[i])) continue;
        add_tensor(s, "w.", &p->items[i], p->items[i].w);
        s->tensors[s->n_tensors - 1].same_as = i;
    }
}

// In the parameter's shape, codes in their rows. With shared moments no tensor is the whole: only the copy
// is.
static Tensor moment(const Optimizer *o, const Param *p, Tensor own) {
    void *data = optimizer_is_shared(o) ? NULL : own.data;
    return o->form.moments == DTYPE_U8
               ? tensor_at(data, DTYPE_U8, SHAPE(moment_blocks(tensor_count(p->w)), MOMENT_ROW))
               : tensor_at(data, o->form.moments, p->ndim, p->shape);
}

static void list_tensors(Saver *s) {
    const Params *p = &s->trainer->model->params;
    const Optimizer *o = &s->trainer->optimizer;
    s->tensors = mem_zeroed(4 * p->count, sizeof *s->tensors);
    for (size_t i = 0; i < p->count; i++) add_tensor(s, "", &p->items[i], p->items[i].w);
    for (size_t i = 0; i < p->count; i++) {
        if (!p->items[i].trained) continue;
        add_tensor(s, "m.", &p->items[i], moment(o, &p->items[i], o->m[i]));
        add_tensor(s, "v.", &p->items[i], moment(o, &p->items[i], o->v[i]));
    }
    add_adapted(s, p);
}

static bool needs_copy(const Saver *s, size_t i) {
    const SavedTensor *t = &s->tensors[i];
    return t->same_as == SIZE_MAX && (s->in_background || !t->tensor.data);
}

// Where the copies of each parameter's moments are.
static void list_moments(Saver *s) {
    const Params *p = &s->trainer->model->params;
    s->m = mem_zeroed(p->count, sizeof *s->m);
    s->v = mem_zeroed(p->count, sizeof *s->v);
    for (size_t i = 0, at = p->count; i < p->count; i++) {
        if (!p->items[i].trained) continue;
        s->m[i] = s->tensors[at++].copy;
        s->v[i] = s->tensors[at++].copy;
    }
}

static bool get_memory(Saver *s, Error *err) {
    size_t bytes = 0;
    for (size_t i = 0; i < s->n_tensors; i++)
        if (needs_copy(s, i)) bytes += tensor_bytes(s->tensors[i].tensor);
    if (bytes == 0) return true;
    if (!(s->memory = malloc(bytes)))
        return error_set(err,
                         "no memory for the copy that checkpoints are written from, %zu bytes; use "
                         "--save_in_background false",
                         bytes);
    memset(s->memory, 0, bytes); // it is there from now on
    char *at = s->memory;
    for (size_t i = 0; i < s->n_tensors; i++) {
        if (needs_copy(s, i)) {
            s->tensors[i].copy = at;
            at += tensor_bytes(s->tensors[i].tensor);
        } else if (s->tensors[i].same_as != SIZE_MAX) {
            s->tensors[i].copy = s->tensors[s->tensors[i].same_as].copy;
        }
    }
    list_moments(s);
    return true;
}

bool saver_open(Saver *s, const Trainer *trainer, const Config *config, Error *err) {
    *s = (Saver){.trainer = trainer,
                 .keep = config->options.keep_checkpoints,
                 .in_background = config->options.save_in_background};
    json_t *all = config_to_json(config);
    s->config = pyjson_dump(all, 4);
    json_decref(all);
    list_tensors(s);
    return get_memory(s, err);
}

void saver_close(Saver *s) {
    char *folder = NULL;
    bool ok;
    Error err;
    if (s->is_busy && saver_collect(s, true, &folder, &ok, &err)) free(folder);
    vec_free(&s->place);
    free(s->memory);
    free(s->m);
    free(s->v);
    free(s->tensors);
    free(s->config);
    *s = (Saver){0};
}

// ---- writing ----

static bool fill_tensor(void *saver, size_t i, void *dst) {
    const Saver *s = saver;
    const SavedTensor *t = &s->tensors[i];
    Backend *be = s->trainer->model->be;
    if (t->copy) {
        memcpy(dst, t->copy, tensor_bytes(t->tensor));
    } else {
        tensor_download(be, STREAM_COMPUTE, dst, t->tensor);
        backend_sync(be);
    }
    return true;
}

// Moments and the rest come after the parameters, the place in the data at the end.
static bool fill_state(void *saver, size_t i, void *dst) {
    const Saver *s = saver;
    const size_t n_params = s->trainer->model->params.count;
    if (n_params + i < s->n_tensors) return fill_tensor(saver, n_params + i, dst);
    memcpy(dst, s->place.items, s->place.count);
    return true;
}

static bool write_state(Saver *s, const char *path, Error *err) {
    const size_t n_params = s->trainer->model->params.count;
    size_t n = 0;
    SafetensorsSpec *specs = mem_zeroed(s->n_tensors + 1, sizeof *specs);
    for (size_t i = n_params; i < s->n_tensors; i++, n++) {
        const Tensor t = s->tensors[i].tensor;
        specs[n] = (SafetensorsSpec){.name = s->tensors[i].name, .dtype = t.dtype, .ndim = t.ndim};
        for (int d = 0; d < t.ndim; d++) specs[n].shape[d] = t.shape[d];
    }
    if (s->place.count)
        specs[n++] =
            (SafetensorsSpec){.name = "loader", .dtype = DTYPE_U8, .ndim = 1, .shape = {s->place.count}};
    const bool ok = safetensors_write(path, specs, n, NULL, 0, fill_state, s, err);
    free(specs);
    return ok;
}

static bool write_text(const char *folder, const char *name, const char *text, Error *err) {
    char *path = path_join(folder, name);
    const bool ok = file_write_text(path, text, strlen(text), err);
    free(path);
    return ok;
}

static bool write_folder(void *saver, const char *folder, Error *err) {
    Saver *s = saver;
    const Vlm *m = s->trainer->model;
    char *config = path_join(folder, "config.json"), *weights = path_join(folder, "model.safetensors"),
         *state = path_join(folder, RESUME_STATE_FILE);
    const bool ok = vlm_config_save(m->config, config, err) &&
                    params_save_from(&m->params, weights, fill_tensor, s, err) &&
                    (m->params.lora_rank == 0 ||
                     lora_save(&m->params, &m->plan.adaptation, folder, fill_tensor, s, err)) &&
                    write_state(s, state, err) && write_text(folder, "run.json", s->config, err) &&
                    write_text(folder, RESUME_TRAINER_FILE, s->state, err);
    free(state);
    free(weights);
    free(config);
    return ok;
}

// Removes complete checkpoints but the newest `keep` and the best.
static void remove_older(const Saver *s) {
    char *run = mem_printf("%s/..", s->folder);
    const char *slash = strrchr(s->folder, '/');
    ResumeSteps steps = resume_steps(run); // newest first
    for (size_t i = s->keep; i < steps.count; i++) {
        char name[32];
        snprintf(name, sizeof name, "step_%llu", (unsigned long long)steps.items[i]);
        if (!strcmp(name, s->best) || (slash && !strcmp(name, slash + 1))) continue;
        char *path = path_join(run, name);
        checkpoint_remove(path);
        free(path);
    }
    vec_free(&steps);
    free(run);
}

static void *save(void *saver) {
    Saver *s = saver;
    s->ok = checkpoint_write(s->folder, write_folder, s, &s->err);
    if (s->ok && s->keep > 0) remove_older(s);
    s->is_done = true;
    return NULL;
}

void saver_begin(Saver *s, const char *folder, const RunState *state, CharVec *place) {
    CHECK(!s->is_busy, "two checkpoints at the same time");
    vec_free(&s->place);
    s->place = *place;
    *place = (CharVec){0};
    s->folder = mem_strdup(folder);
    s->state = run_state_text(state);
    snprintf(s->best, sizeof s->best, "%s", state->best_checkpoint);
    s->is_busy = true;
    s->is_done = s->is_threaded = false;
    if (s->in_background) {
        for (size_t i = 0; i < s->n_tensors; i++)
            if (s->tensors[i].same_as == SIZE_MAX && s->tensors[i].tensor.data)
                tensor_download(s->trainer->model->be, STREAM_COMPUTE, s->tensors[i].copy,
                                s->tensors[i].tensor);
        backend_sync(s->trainer->model->be);
        s->is_threaded = cores_start_thread(&s->thread, save, s) == 0;
    }
    if (!s->is_threaded) save(s);
}

bool saver_collect(Saver *s, bool wait, char **folder, bool *ok, Error *err) {
    if (!s->is_busy || (!wait && !s->is_done)) return false;
    if (s->is_threaded) pthread_join(s->thread, NULL);
    *folder = s->folder;
    *ok = s->ok;
    *err = s->err;
    free(s->state);
    s->folder = s->state = NULL;
    s->is_busy = false;
    return true;
}
