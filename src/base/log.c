#include "base/log.h"
#include "base/clock.h"

#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; // loader threads log too
static LogLevel max_level = LOG_INFO;
static char progress_line[256]; // what the terminal's last line shows; empty when none
static double last_plain;       // when the last plain progress line was printed; 0: never

void log_set_level(LogLevel level) {
    max_level = level;
}

bool progress_is_terminal(void) {
    return isatty(STDERR_FILENO);
}

static void log_line(LogLevel level, const char *label, const char *format, va_list args) {
    if (level > max_level) return;
    pthread_mutex_lock(&lock);
    if (progress_line[0]) fputs("\r\033[K", stderr);
    fputs(label, stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    if (progress_line[0]) fputs(progress_line, stderr);
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}

#define LOG_FUNCTION(name, level, label)                                                                     \
    void name(const char *format, ...) {                                                                     \
        va_list args;                                                                                        \
        va_start(args, format);                                                                              \
        log_line(level, label, format, args);                                                                \
        va_end(args);                                                                                        \
    }
LOG_FUNCTION(log_error, LOG_ERROR, "vlm: error: ")
LOG_FUNCTION(log_warning, LOG_WARNING, "vlm: warning: ")
LOG_FUNCTION(log_info, LOG_INFO, "")
LOG_FUNCTION(log_debug, LOG_DEBUG, "")

void progress_update(double plain_every, const char *format, ...) {
    if (max_level < LOG_INFO) return;
    pthread_mutex_lock(&lock);
    char line[sizeof progress_line];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    double now = clock_seconds();
    if (progress_is_terminal()) {
        memcpy(progress_line, line, sizeof line);
        fprintf(stderr, "\r\033[K%s", line);
    } else if (last_plain == 0 || now - last_plain >= plain_every) {
        fprintf(stderr, "%s\n", line);
        last_plain = now;
    }
    fflush(stderr);
    pthread_mutex_unlock(&lock);
}

void progress_end(void) {
    pthread_mutex_lock(&lock);
    if (progress_line[0]) fputc('\n', stderr);
    progress_line[0] = '\0';
    last_plain = 0;
    pthread_mutex_unlock(&lock);
}
