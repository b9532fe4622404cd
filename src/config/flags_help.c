// What a person reads about fields: help on the terminal and the tables of docs/config.md.
#include "config/fields_value.h"

#include <stdio.h>
#include <string.h>

#define LONGEST_DEFAULT 60 // longer ones (chat template, extra tokens) are cut

static const char *placeholder(const Field *f) {
    static const char *const words[] = {
        [FIELD_SIZE] = "N",
        [FIELD_U64] = "N",
        [FIELD_INT] = "N",
        [FIELD_NUMBER] = "X",
        [FIELD_OPTIONAL_NUMBER] = "X",
        [FIELD_BOOL] = "true|false",
        [FIELD_STRING] = "TEXT",
        [FIELD_OPTIONAL_STRING] = "TEXT",
        [FIELD_STRING_LIST] = "A,B,…",
        [FIELD_STRING_REPEATED] = "TEXT",
        [FIELD_TOKEN_MAP] = "JSON",
    };
    return f->choices ? f->choices : words[f->type];
}

static void shorten_default(char text[LONGEST_DEFAULT + 8], const Field *f) {
    const char *value = f->default_text ? f->default_text : "none";
    const char *end = strlen(value) > LONGEST_DEFAULT ? "…" : "";
    int n = *end ? LONGEST_DEFAULT : (int)strlen(value);
    snprintf(text, LONGEST_DEFAULT + 8, "%.*s%s", n, value, end);
    for (char *c = text; *c; c++) {
        if (*c == '\n') *c = ' ';
    }
}

static void print_field(const Field *f) {
    char left[160], value[LONGEST_DEFAULT + 8];
    snprintf(left, sizeof left, "--%s %s", f->name, placeholder(f));
    shorten_default(value, f);
    printf("  %-38s %s", left, f->help);
    if (f->default_text) printf(" [%s]", value);
    printf("\n");
}

void flags_print_help(const FieldSet *sets, size_t n_sets) {
    for (size_t i = 0; i < n_sets; i++) {
        const FieldTable *table = sets[i].table;
        if (!table || !table->count) continue;
        printf("\n%s\n", table->title);
        for (size_t j = 0; j < table->count; j++) print_field(&table->fields[j]);
    }
}

// Text inside a cell: a bar would end it.
static void print_cell(const char *text, bool code) {
    printf(" %s", code ? "`" : "");
    for (const char *c = text; *c; c++) printf(*c == '|' ? "\\|" : "%c", *c);
    printf("%s |", code ? "`" : "");
}

static const char *type_name(FieldType type) {
    static const char *const names[] = {
        [FIELD_SIZE] = "size",
        [FIELD_U64] = "size",
        [FIELD_INT] = "integer",
        [FIELD_NUMBER] = "number",
        [FIELD_OPTIONAL_NUMBER] = "number",
        [FIELD_BOOL] = "bool",
        [FIELD_STRING] = "text",
        [FIELD_OPTIONAL_STRING] = "text",
        [FIELD_STRING_LIST] = "list",
        [FIELD_STRING_REPEATED] = "text, repeated",
        [FIELD_TOKEN_MAP] = "object",
    };
    return names[type];
}

void fields_print_markdown(const FieldTable *table) {
    printf("\n## %s\n\n| Name | Type | Default | Allowed | Meaning |\n|---|---|---|---|---|\n", table->title);
    for (size_t i = 0; i < table->count; i++) {
        const Field *f = &table->fields[i];
        char allowed[256], value[LONGEST_DEFAULT + 8];
        field_allowed(allowed, f);
        shorten_default(value, f);
        printf("|");
        print_cell(f->name, true);
        print_cell(type_name(f->type), false);
        print_cell(value, true);
        print_cell(allowed, false);
        print_cell(f->help, false);
        printf("\n");
    }
}
