// What of the table is trained: patterns that freeze parameters, and adapters beside matrices.
#include "base/memory.h"
#include "base/vec.h"
#include "model/params.h"

#include <fnmatch.h>
#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool param_is_adapter(const Param *p) {
    return p->group == GROUP_LORA_VISION || p->group == GROUP_LORA_LANGUAGE;
}

static bool is_given(const char *text) {
    return text && *text;
}

// ---- lists of names ----

// Calls `use` for each entry of a list parted by commas, without the blanks around it; false ends it.
static bool for_each(const char *list, bool (*use)(void *context, const char *entry), void *context) {
    char *copy = mem_strdup(list), *rest = copy, *entry;
    bool ok = true;
    while (ok && (entry = strsep(&rest, ","))) {
        entry += strspn(entry, " ");
        for (size_t n = strlen(entry); n > 0 && entry[n - 1] == ' ';) entry[--n] = '\0';
        if (*entry) ok = use(context, entry);
    }
    free(copy);
    return ok;
}

// The name of the module a weight or bias belongs to.
static void module_of(char out[80], const char *name) {
    const char *dot = strrchr(name, '.');
    snprintf(out, 80, "%.*s", (int)(dot ? dot - name : (long)strlen(name)), name);
}

// The pattern's letters without what only stands for others.
static void letters_of(char out[80], const char *entry) {
    while (*entry == '*' || *entry == '.') entry++;
    snprintf(out, 80, "%s", entry);
    for (size_t n = strlen(out); n > 0 && (out[n - 1] == '*' || out[n - 1] == '.');) out[--n] = '\0';
}

// Of parameters' names, their modules' names and the last parts of these.
static void add_nearest(Error *err, const Params *p, const char *entry) {
    VEC(const char *) names = {0};
    char(*modules)[80] = mem_zeroed(p->count, sizeof *modules), letters[80];
    for (size_t i = 0; i < p->count; i++) {
        module_of(modules[i], p->items[i].name);
        const char *last = strrchr(modules[i], '.');
        vec_push(&names, (const char *)p->items[i].name);
        vec_push(&names, (const char *)modules[i]);
        vec_push(&names, last ? last + 1 : (const char *)modules[i]);
    }
    letters_of(letters, entry);
    const char *near = nearest_name(letters, names.items, names.count);
    const size_t used = strlen(err->text);
    if (near) snprintf(err->text + used, sizeof err->text - used, "; near is %s", near);
    vec_free(&names);
    free(modules);
}

// ---- freezing ----

typedef struct Freezing {
    Params *params;
    const char *flag;
    bool frozen; // what becomes of the parameters that match
    Error *err;
} Freezing;

static bool use_pattern(void *context, const char *pattern) {
    const Freezing *f = context;
    size_t found = 0;
    for (size_t i = 0; i < f->params->count; i++) {
        Param *q = &f->params->items[i];
        if (fnmatch(pattern, q->name, 0) && fnmatch(pattern, q->file_name, 0)) continue;
        if (f->frozen) q->trained = false;
        q->is_named = true;
        found++;
    }
    if (found) return true;
    error_set(f->err,
              "--%s: no parameter matches %.100s; patterns are of whole names, such as "
              "decoder.blocks.0.* or *.norm1.weight",
              f->flag, pattern);
    add_nearest(f->err, f->params, pattern);
    return false;
}

static bool same_unit(const Param *a, const Param *b) {
    static const char patches[] = "vision_encoder.patch_embedding.";
    char x[80], y[80];
    module_of(x, a->name), module_of(y, b->name);
    return !strcmp(x, y) ||
           (!strncmp(a->name, patches, sizeof patches - 1) && !strncmp(b->name, patches, sizeof patches - 1));
}

static bool check_units(const Params *p, const char *flag, Error *err) {
    for (size_t i = 1; i < p->count; i++) {
        const Param *a = &p->items[i - 1], *b = &p->items[i];
        if (a->trained == b->trained || !same_unit(a, b)) continue;
        return error_set(err,
                         "--%s: %s is frozen and %s is not; they get their gradients together, so name "
                         "both or neither",
                         flag, a->trained ? b->name : a->name, a->trained ? a->name : b->name);
    }
    return true;
}

static bool freeze(Params *p, const char *freeze, const char *train_only, Error *err) {
    Freezing f = {p, "train_only", false, err};
    if (is_given(train_only)) {
        if (!for_each(train_only, use_pattern, &f)) return false;
        for (size_t i = 0; i < p->count; i++)
            p->items[i].trained = p->items[i].trained && p->items[i].is_named;
    }
    f.flag = "freeze", f.frozen = true;
    if (is_given(freeze) && !for_each(freeze, use_pattern, &f)) return false;
    return check_units(p, is_given(freeze) ? "freeze" : "train_only", err);
}

// ---- adapters ----

typedef struct Targets {
    Params *params;
    bool *chosen; // [params->count]
    Error *err;
} Targets;

static bool may_have_adapter(const Param *p) {
    return strstr(p->name, ".blocks.") && p->ndim == 2 &&
           (p->init == INIT_WEIGHT || p->init == INIT_RESIDUAL);
}

static bool ends_with(const char *name, const char *end) {
    const size_t n = strlen(name), m = strlen(end);
    return n >= m && !strcmp(name + n - m, end) && (n == m || name[n - m - 1] == '.');
}

// As PEFT takes an entry of a list: a module's whole name, or an end of it. Also by transformers' names.
static bool use_target(void *context, const char *target) {
    const Targets *t = context;
    size_t found = 0;
    for (size_t i = 0; i < t->params->count; i++) {
        const Param *q = &t->params->items[i];
        char ours[80], theirs[80];
        module_of(ours, q->name), module_of(theirs, q->backbone_name);
        if (!may_have_adapter(q) || (!ends_with(ours, target) && !ends_with(theirs, target))) continue;
        t->chosen[i] = true;
        found++;
    }
    if (found) return true;
    error_set(
        t->err,
        "--lora_targets: %.100s is no linear layer of the vision encoder's or decoder's blocks (qkv_proj, "
        "out_proj, fc1, fc2, q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj)",
        target);
    add_nearest(t->err, t->params, target);
    return false;
}

static bool use_expression(Targets *t, const char *text) {
    char *whole = mem_printf("^(%s)$", text), why[128], ours[80];
    regex_t regex;
    size_t found = 0;
    const int failure = regcomp(&regex, whole, REG_EXTENDED | REG_NOSUB);
    free(whole);
    if (failure) {
        regerror(failure, &regex, why, sizeof why);
        return error_set(t->err, "--lora_targets: %.100s is no POSIX regular expression: %s", text, why);
    }
    for (size_t i = 0; i < t->params->count; i++) {
        module_of(ours, t->params->items[i].name);
        if (!may_have_adapter(&t->params->items[i]) || regexec(&regex, ours, 0, NULL, 0)) continue;
        t->chosen[i] = true;
        found++;
    }
    regfree(&regex);
    return found ||
           error_set(t->err,
                     "--lora_targets: the regular expression %.100s matches no whole name of a linear "
                     "layer, such as decoder.blocks.0.attn.q_proj",
                     text);
}

static bool choose(Targets *t, const char *targets) {
    if (strpbrk(targets, "^$*+?()[]{}|\\")) return use_expression(t, targets);
    if (strcmp(targets, "all-linear")) return for_each(targets, use_target, t);
    for (size_t i = 0; i < t->params->count; i++) t->chosen[i] = may_have_adapter(&t->params->items[i]);
    return true;
}

static Param *append(Params *p, const Param *w, const char *which, ParamInit init, size_t r, size_t n) {
    Param *q = &p->items[p->count++];
    char module[80];
    module_of(module, w->name);
    *q = (Param){.group = w->group == GROUP_VISION ? GROUP_LORA_VISION : GROUP_LORA_LANGUAGE,
                 .init = init,
                 .fan_in = n,
                 .ndim = 2,
                 .shape = {r, n},
                 .trained = true};
    // ".lora_A.weight" fits behind every name of a matrix: the longest has 45 letters
    snprintf(q->name, sizeof q->name, "%.60s.lora_%s.weight", module, which);
    return q;
}

static bool add_adapters(Params *p, const Adaptation *a, Error *err) {
    const size_t count = p->count, r = a->lora_rank;
    Targets t = {p, mem_zeroed(count, sizeof(bool)), err};
    size_t added = 0;
    bool ok = choose(&t, is_given(a->lora_targets) ? a->lora_targets : "all-linear");
    for (size_t i = 0; ok && i < count; i++) {
        Param *w = &p->items[i];
        if (!t.chosen[i]) continue;
        w->lora_a = append(p, w, "A", INIT_LORA, r, w->shape[1]);
        w->lora_b = append(p, w, "B", INIT_ZERO, r, w->shape[0]);
        added++;
    }
    free(t.chosen);
    if (ok && added == 0) ok = error_set(err, "--lora_targets: \"%.100s\" names no layer", a->lora_targets);
    p->lora_rank = r;
    p->lora_scale = (float)(a->lora_alpha / (a->lora_rslora ? sqrt((double)r) : (double)r));
    return ok;
}

bool params_adapt(Params *p, Backend *be, const Adaptation *a, Error *err) {
    if (!a->lora_rank && !is_given(a->freeze) && !is_given(a->train_only)) return true;
    if (!freeze(p, a->freeze, a->train_only, err) || (a->lora_rank && !add_adapters(p, a, err))) return false;
    params_measure(p, be);
    return true;
}
