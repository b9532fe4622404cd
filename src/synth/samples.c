// The first test rows once more as plain files, to look at and to ask about.
#include "base/file.h"
#include "base/memory.h"
#include "base/pyjson.h"
#include "synth/kinds.h"

#include <stdio.h>
#include <stdlib.h>

static bool write_picture(char name[64], const Scene *p, const SynthOptions *o, size_t row, size_t i,
                          Error *err) {
    unsigned char *bytes;
    size_t size;
    if (!scene_encode(&bytes, &size, p, o->image_size, "png", err)) return false;
    snprintf(name, 64, "%05zu-%zu.png", row, i);
    char *path = mem_printf("%s/samples/%s", o->out, name);
    bool ok = file_write_text(path, (const char *)bytes, size, err);
    free(path);
    free(bytes);
    return ok;
}

// One line a row: {"images": [names], "turns": [[question, answer], …]}.
static bool write_sample(FILE *lines, const SynthOptions *o, size_t index, Error *err) {
    SynthRow row;
    if (!synth_row(&row, o, SYNTH_TEST, index, err)) return false;
    json_t *images = json_array(), *turns = json_array();
    bool ok = true;
    for (size_t i = 0; ok && i < row.n_pictures; i++) {
        char name[64];
        ok = write_picture(name, &row.pictures[i], o, index, i, err);
        if (ok) json_array_append_new(images, json_string(name));
    }
    for (size_t i = 0; i < row.n_turns; i++)
        json_array_append_new(turns, json_pack("[ss]", row.turns[i].user, row.turns[i].assistant));
    pyjson_print(lines, json_pack("{soso}", "images", images, "turns", turns), -1);
    return ok;
}

bool synth_write_samples(const SynthOptions *o, Error *err) {
    if (o->samples == 0) return true;
    char *folder = path_join(o->out, "samples"), *path = path_join(folder, "questions.jsonl");
    FileWriter w;
    bool ok = file_make_folders(folder, err) && file_create(&w, path, err);
    if (ok) {
        for (size_t i = 0; ok && i < o->samples; i++) ok = write_sample(w.stream, o, i, err);
        if (ok)
            ok = file_commit(&w, err);
        else
            file_abandon(&w);
    }
    free(path);
    free(folder);
    return ok;
}
