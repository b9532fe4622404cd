#include "synth/kinds.h"

#include <stdio.h>
#include <string.h>

#define OPTION(name, type, ...)                                                                              \
    { #name, type, offsetof(SynthOptions, name), __VA_ARGS__ }

static const Field fields[] = {
    OPTION(out, FIELD_STRING, "data/synth", 0, 0, NULL, "folder to write; train/ and test/ are made in it"),
    OPTION(rows, FIELD_SIZE, "10000", 1, 1e9, NULL, "rows of the training split"),
    OPTION(test_rows, FIELD_SIZE, "500", 0, 1e9, NULL, "rows of the test split; 0: none"),
    OPTION(samples, FIELD_SIZE, "0", 0, 1e6, NULL, "test rows written once more as PNG files, to samples/"),
    OPTION(image_size, FIELD_SIZE, "64", 16, 4096, NULL, "side of the pictures in pixels"),
    OPTION(kinds, FIELD_STRING_LIST,
           "colour,shape,count,position,size,relation,exists,chart,word,digits,pair", 0, 0, NULL,
           "kinds of questions, drawn evenly; one named twice is drawn twice as often"),
    OPTION(turns, FIELD_SIZE, "3", 1, SYNTH_MAX_TURNS, NULL, "questions per row, at most"),
    OPTION(max_shapes, FIELD_SIZE, "4", 1, SCENE_MAX_OBJECTS, NULL, "shapes in a picture, at most"),
    OPTION(colours, FIELD_SIZE, "8", 2, SCENE_COLOURS, NULL, "number of colours in use"),
    OPTION(shapes, FIELD_SIZE, "8", 2, SCENE_SHAPES, NULL, "number of kinds of shapes in use"),
    OPTION(ground, FIELD_STRING, "any", 0, 0, "any|light|dark", "background of the pictures"),
    OPTION(shards, FIELD_SIZE, "1", 1, 10000, NULL, "files the training split is written to"),
    OPTION(seed, FIELD_U64, "0", 0, 0, NULL, "seed of all choices; the same seed gives the same rows"),
    OPTION(rows_per_group, FIELD_SIZE, "100", 1, 1e6, NULL, "rows of a Parquet row group"),
    OPTION(format, FIELD_STRING, "png", 0, 0, "png|jpeg", "format of the pictures"),
    OPTION(threads, FIELD_SIZE, "0", 0, 1024, NULL,
           "drawing threads; 0: one per core; the rows do not depend on it"),
};

const FieldTable synth_table = {"Synthetic data", fields, sizeof fields / sizeof *fields};

static bool unknown_kind(const char *name, Error *err) {
    char known[256] = "";
    for (const SynthKind *kind = synth_kinds; kind->name; kind++) {
        size_t used = strlen(known);
        snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", kind->name);
    }
    return error_set(err, "--kinds: there is no kind '%s'; there are %s", name, known);
}

bool synth_options_check(const SynthOptions *o, Error *err) {
    if (o->kinds.count == 0) return error_set(err, "--kinds: no kind of question is named");
    for (size_t i = 0; i < o->kinds.count; i++) {
        const SynthKind *kind = synth_kind_find(o->kinds.items[i]);
        if (!kind) return unknown_kind(o->kinds.items[i], err);
        if (kind->least_shapes > o->max_shapes)
            return error_set(err, "--kinds %s needs --max_shapes %zu or more, not %zu", kind->name,
                             kind->least_shapes, o->max_shapes);
    }
    if (o->shards > o->rows)
        return error_set(err, "--shards %zu is more than --rows %zu", o->shards, o->rows);
    return true;
}
