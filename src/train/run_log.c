#include "train/run_log.h"
#include "base/file.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/pyjson.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

// The folder, with config.json in it.
static bool make_folder(const RunLog *log, Error *err) {
    char *folder = mem_strndup(log->path, (size_t)(strrchr(log->path, '/') - log->path)),
         *path = path_join(folder, "config.json");
    const bool ok =
        file_make_folders(folder, err) && file_write_text(path, log->config, strlen(log->config), err);
    free(path);
    free(folder);
    return ok;
}

static char *config_text(const Config *config) {
    json_t *all = config_to_json(config);
    char *text = pyjson_dump(all, 4);
    json_decref(all);
    return text;
}

// The first `keep` bytes stay; a log that lost its end with the power keeps its whole lines.
static bool cut_log(RunLog *log, size_t keep, Error *err) {
    char *text = NULL;
    size_t size = 0;
    if (file_exists(log->path) && !file_read(&text, &size, log->path, err)) return false;
    if (size < keep) log_warning("%s: %zu bytes of lines are missing at its end", log->path, keep - size);
    if (size > keep) size = keep;
    while (size > 0 && text[size - 1] != '\n') size--;
    free(text);
    log->size = size;
    return true;
}

bool run_log_reopen(RunLog *log, const char *folder, const Config *config, size_t keep, Error *err) {
    *log = (RunLog){.path = path_join(folder, "log.jsonl"),
                    .config = config_text(config),
                    .file = -1,
                    .line = json_object()};
    bool ok = cut_log(log, keep, err) && make_folder(log, err);
    if (ok && ((log->file = open(log->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666)) < 0 ||
               ftruncate(log->file, (off_t)log->size) != 0))
        ok = error_set(err, "%s: cannot be written: %s", log->path, strerror(errno));
    if (!ok) run_log_close(log);
    return ok;
}

bool run_log_open(RunLog *log, const char *folder, const Config *config, Error *err) {
    *log = (RunLog){.file = -1};
    char *path = path_join(folder, "log.jsonl");
    const bool ok =
        !file_exists(path) ||
        error_set(err,
                  "%s: this run exists already; choose another --run_name, remove the folder, or go "
                  "on with it by --resume auto",
                  path);
    free(path);
    return ok && run_log_reopen(log, folder, config, 0, err);
}

void run_log_close(RunLog *log) {
    if (log->file >= 0) close(log->file);
    json_decref(log->line);
    free(log->config);
    free(log->path);
    *log = (RunLog){.file = -1};
}

void run_log_number(RunLog *log, const char *key, double value) {
    if (!log->line) return;
    if (!isfinite(value)) log_warning("%s is %g; %s has null for it", key, value, log->path);
    json_object_set_new(log->line, key, isfinite(value) ? json_real(value) : json_null());
}

// When the file was removed while the run was on, the lines to come go into a new one.
static void begin_anew_when_removed(RunLog *log) {
    struct stat info;
    Error err;
    if (fstat(log->file, &info) != 0 || info.st_nlink > 0) return;
    const bool ok = make_folder(log, &err);
    const int fresh = ok ? open(log->path, O_WRONLY | O_CREAT | O_CLOEXEC, 0666) : -1;
    if (fresh < 0) return; // tried again at the next line
    close(log->file);
    log->file = fresh;
    log->size = 0;
    log_warning("%s was removed while the run was on; a new one begins", log->path);
}

// Behind the last whole line, so that half a line left by a full disk is written over.
static bool write_line(RunLog *log, const char *text, size_t n) {
    for (size_t done = 0; done < n;) {
        const ssize_t written = pwrite(log->file, text + done, n - done, (off_t)(log->size + done));
        if (written > 0) {
            done += (size_t)written;
        } else if (errno != EINTR) {
            const int reason = errno;
            if (ftruncate(log->file, (off_t)log->size) != 0) log_debug("%s: half a line stays", log->path);
            errno = reason;
            return false;
        }
    }
    log->size += n;
    return true;
}

void run_log_commit(RunLog *log, uint64_t step) {
    if (!log->line) return;
    json_t *line = json_object();
    json_object_set_new(line, "step", json_integer((json_int_t)step));
    json_object_update(line, log->line);
    json_object_clear(log->line);
    char *json = json_dumps(line, JSON_REAL_PRECISION(9)), *text = mem_printf("%s\n", json);
    begin_anew_when_removed(log);
    const bool ok = write_line(log, text, strlen(text));
    if (!ok && !log->failed)
        log_warning("%s: cannot be written: %s; training goes on", log->path, strerror(errno));
    log->failed = !ok;
    free(text);
    free(json);
    json_decref(line);
}
