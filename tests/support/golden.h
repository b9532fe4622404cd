// Reference data: where it lies, which cases there are, and how far a result may be from it.
#pragma once
// cmocka wants these four before itself
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/file.h"

const char *golden_root(void); // $VLM_GOLDEN, or tests/golden
char *golden_path(const char *format, ...) __attribute__((format(printf, 1, 2))); // root/…; caller frees
char *golden_path_of(const char *format, va_list args);                           // the same
// The folders under root/folder that hold `file`, sorted; a test runs every one of them. Fails the test when
// there is none, because zero cases executed is a failure.
StringList golden_cases(const char *folder, const char *file);

// ‖x − ref‖₂ / ‖ref‖₂ in double; the norm of x itself when ref is all zero; INFINITY when x holds a NaN or
// infinity.
double relative_l2(const float *x, const float *ref, size_t n);
double largest_difference(const float *x, const float *ref, size_t n); // max |x − ref|; INFINITY for NaN
// Fails when error > limit, and remembers the greatest share of each kind of limit; kind is e.g. "forward,
// relative".
void expect_within(const char *kind, double error, double limit, const char *what_format, ...)
    __attribute__((format(printf, 4, 5)));
void print_worst_shares(void); // one line a kind: worst share of the tolerance used, and where
