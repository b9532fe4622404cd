// What the program says while it runs: lines on stderr, with a level.
#pragma once
#include <stdbool.h>
#include <stddef.h>

typedef enum LogLevel { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG } LogLevel;

void log_set_level(LogLevel level); // messages above it are dropped; LOG_INFO at start
void log_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_warning(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_info(const char *format, ...) __attribute__((format(printf, 1, 2)));
void log_debug(const char *format, ...) __attribute__((format(printf, 1, 2)));

// One line of progress on stderr. On a terminal it is redrawn in place (and log lines are put above it);
// elsewhere it becomes a plain line, at most one every `plain_every` seconds. progress_end() leaves the last
// one standing.
bool progress_is_terminal(void);
void progress_update(double plain_every, const char *format, ...) __attribute__((format(printf, 2, 3)));
void progress_end(void);
