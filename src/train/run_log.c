#include "train/run_log.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/pyjson.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static bool write_config(const char *folder, const Config *config, Error *err) {
    static const char *const names[] = {"VLMConfig", "TrainConfig", "TrainOptions"};
    FieldSet sets[3];
    config_sets((Config *)config, sets);
    json_t *all = json_object();
    for (int i = 0; i < 3; i++) json_object_set_new(all, names[i], fields_to_json(sets[i]));
    char *text = pyjson_dump(all, 4), *path = path_join(folder, "config.json");
    bool ok = file_write_text(path, text, strlen(text), err);
    free(path);
    free(text);
    json_decref(all);
    return ok;
}

bool run_log_open(RunLog *log, const char *folder, const Config *config, Error *err) {
    *log = (RunLog){.path = path_join(folder, "log.jsonl"), .line = json_object()};
    bool ok = true;
    if (file_exists(log->path))
        ok = error_set(err, "%s: this run exists already; choose another --run_name or remove the folder",
                       log->path);
    ok = ok && file_make_folders(folder, err) && write_config(folder, config, err);
    if (ok && !(log->stream = fopen(log->path, "w")))
        ok = error_set(err, "%s: cannot be written: %s", log->path, strerror(errno));
    if (!ok) run_log_close(log);
    return ok;
}

void run_log_close(RunLog *log) {
    if (log->stream) fclose(log->stream);
    json_decref(log->line);
    free(log->path);
    *log = (RunLog){0};
}

void run_log_number(RunLog *log, const char *key, double value) {
    if (!isfinite(value)) log_warning("%s is %g; %s has null for it", key, value, log->path);
    json_object_set_new(log->line, key, isfinite(value) ? json_real(value) : json_null());
}

void run_log_commit(RunLog *log, uint64_t step) {
    json_t *line = json_object();
    json_object_set_new(line, "step", json_integer((json_int_t)step));
    json_object_update(line, log->line);
    json_object_clear(log->line);
    bool ok = json_dumpf(line, log->stream, JSON_REAL_PRECISION(9)) == 0 && fputc('\n', log->stream) != EOF &&
              fflush(log->stream) == 0;
    if (!ok && !log->failed)
        log_warning("%s: cannot be written: %s; training goes on", log->path, strerror(errno));
    log->failed = !ok;
    json_decref(line);
}
