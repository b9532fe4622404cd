// `vlm data`: looks at a data set before training does. Without --show it counts what is in it and what would
// become of its rows; with --show it writes rows as a page of HTML.
#include "cmd/cmd.h"
#include "cmd/data_show.h"
#include "cmd/data_survey.h"

typedef struct Flags {
    size_t rows;
    bool json;
    char *show, *out;
} Flags;

#define FLAG(name, type, ...)                                                                                \
    { #name, type, offsetof(Flags, name), __VA_ARGS__ }
static const Field fields[] = {
    FLAG(rows, FIELD_SIZE, "0", 0, 1e15, NULL, "look at the first so many rows; 0: all"),
    FLAG(json, FIELD_BOOL, "false", 0, 0, NULL, "print one JSON object instead of tables"),
    FLAG(show, FIELD_STRING, NULL, 0, 0, NULL,
         "write these rows as a page of HTML, e.g. 7 or 0-9,40; rows are numbered from 0"),
    FLAG(out, FIELD_STRING, "rows.html", 0, 0, NULL, "the page to write"),
};
static const FieldTable table = {"Looking", fields, sizeof fields / sizeof *fields};

static bool survey(DataSetup *setup, const Flags *f, Error *err) {
    Survey s;
    const bool ok = survey_run(&s, setup, f->rows, err);
    if (ok) survey_print(&s, setup, f->json);
    survey_free(&s);
    return ok;
}

static bool look(DataSetup *setup, const void *flags, Error *err) {
    const Flags *f = flags;
    return f->show ? data_show(setup, f->show, f->out, err) : survey(setup, f, err);
}

int cmd_data(int argc, char **argv) {
    Flags f;
    return data_command_run((FieldSet){&table, &f}, argc, argv, look);
}
