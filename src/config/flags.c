#include "config/flags.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct Reader {
    const FieldSet *sets;
    size_t n_sets;
    int argc, next; // next: the argument to look at
    char **argv;
} Reader;

static bool is_flag(const char *argument) {
    return argument[0] == '-' && argument[1] == '-' && argument[2];
}

static bool find_field(Flag *flag, const Reader *r, const char *name, size_t length) {
    for (size_t i = 0; i < r->n_sets; i++) {
        flag->set = r->sets[i];
        flag->field = fields_find(r->sets[i].table, name, length);
        if (flag->field) return true;
    }
    return false;
}

static bool unknown_flag(const Reader *r, const char *argument, Error *err) {
    VEC(const char *) names = {0};
    for (size_t i = 0; i < r->n_sets; i++) {
        const FieldTable *table = r->sets[i].table;
        for (size_t j = 0; table && j < table->count; j++) vec_push(&names, table->fields[j].name);
    }
    char *name = mem_strndup(argument, strcspn(argument, "="));
    const char *near = nearest_name(name + strspn(name, "-"), names.items, names.count);
    if (near)
        error_set(err, "%.100s: unknown flag; did you mean --%s?", name, near);
    else
        error_set(err, "%.100s: unknown flag; `vlm %s --help` lists all", name, r->argc ? r->argv[0] : "");
    free(name);
    vec_free(&names);
    return false;
}

// A flag without `=`: its value is the next argument, which a bool may leave out.
static bool read_value(Flag *flag, Reader *r, Error *err) {
    const char *next = r->next < r->argc ? r->argv[r->next] : NULL;
    bool is_bool = flag->field->type == FIELD_BOOL;
    if (next && !is_flag(next) && strcmp(next, "--") && !(is_bool && *next == '-')) {
        flag->value = next;
        r->next++;
        return true;
    }
    flag->value = "true";
    if (is_bool) return true;
    return error_set(err, "--%s: the value is missing; write --%s=VALUE", flag->field->name,
                     flag->field->name);
}

static bool read_flag(Flag *flag, Reader *r, Error *err) {
    const char *argument = r->argv[r->next++], *name = argument + 2, *equals = strchr(name, '=');
    size_t length = equals ? (size_t)(equals - name) : strlen(name);
    if (find_field(flag, r, name, length)) {
        if (equals) flag->value = equals + 1;
        return equals || read_value(flag, r, err);
    }
    bool negated = !equals && (!strncmp(name, "no_", 3) || !strncmp(name, "no-", 3));
    if (negated && find_field(flag, r, name + 3, length - 3) && flag->field->type == FIELD_BOOL) {
        flag->value = "false";
        return true;
    }
    return unknown_flag(r, argument, err);
}

static bool take_positional(StringList *positional, const char *argument, Error *err) {
    if (!positional) return error_set(err, "\"%.200s\": unexpected argument; flags begin with --", argument);
    string_list_add(positional, mem_strdup(argument));
    return true;
}

static void help_and_exit(const Reader *r) {
    printf("usage: vlm %s [--flag VALUE ...]\n", r->argv[0]);
    flags_print_help(r->sets, r->n_sets);
    exit(fflush(stdout) ? EXIT_FAILURE : EXIT_SUCCESS);
}

bool flags_read(FlagVec *flags, const FieldSet *sets, size_t n_sets, int argc, char **argv,
                StringList *positional, Error *err) {
    Reader r = {sets, n_sets, argc, 1, argv};
    bool ok = true, only_positional = false;
    while (ok && r.next < argc) {
        const char *argument = argv[r.next];
        Flag flag = {0};
        if (only_positional) {
            ok = take_positional(positional, argv[r.next++], err);
        } else if (!strcmp(argument, "--help") || !strcmp(argument, "-h")) {
            help_and_exit(&r);
        } else if (!strcmp(argument, "--")) {
            only_positional = true;
            r.next++;
        } else if (is_flag(argument)) {
            ok = read_flag(&flag, &r, err);
            if (ok) vec_push(flags, flag);
        } else if (argument[0] == '-' && argument[1]) {
            ok = unknown_flag(&r, argument, err);
        } else {
            ok = take_positional(positional, argv[r.next++], err);
        }
    }
    return ok;
}

bool flag_apply(const Flag *flag, Error *err) {
    return fields_set_text(flag->set, flag->field, flag->value, err);
}

bool flags_parse(const FieldSet *sets, size_t n_sets, int argc, char **argv, StringList *positional,
                 Error *err) {
    FlagVec flags = {0};
    bool ok = flags_read(&flags, sets, n_sets, argc, argv, positional, err);
    for (size_t i = 0; ok && i < flags.count; i++) ok = flag_apply(&flags.items[i], err);
    vec_free(&flags);
    return ok;
}
