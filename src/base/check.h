// Our own mistakes: CHECK aborts with the place, the condition and the values. Never used on what a file, a
// flag or a network can hold, and always compiled in (a trainer that runs a week must not run on a broken
// assumption).
#pragma once

#define CHECK(condition, ...)                                                                                \
    do {                                                                                                     \
        if (!(condition)) check_failed(__FILE__, __LINE__, __func__, #condition, __VA_ARGS__);               \
    } while (0)

// Prints "file:line: function: CHECK(condition) failed: message" to stderr and aborts.
_Noreturn void check_failed(const char *file, int line, const char *function, const char *condition,
                            const char *format, ...) __attribute__((format(printf, 5, 6)));
