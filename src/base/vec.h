// Growable arrays, one macro for all element types: VEC(int32_t) ids = {0}; vec_push(&ids, 7);
// vec_free(&ids).
#pragma once
#include "base/memory.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define VEC(type)                                                                                            \
    struct {                                                                                                 \
        type *items;                                                                                         \
        size_t count, capacity;                                                                              \
    }

typedef VEC(int32_t) Int32Vec; // token ids, labels
typedef VEC(char) CharVec;     // bytes of text; not terminated unless the owner says so

#define vec_reserve(v, n)                                                                                    \
    do {                                                                                                     \
        size_t vec_need_ = (n);                                                                              \
        if (vec_need_ > (v)->capacity) {                                                                     \
            size_t vec_cap_ = (v)->capacity ? (v)->capacity : 16;                                            \
            while (vec_cap_ < vec_need_) vec_cap_ *= 2;                                                      \
            (v)->items = mem_resize((v)->items, vec_cap_ * sizeof *(v)->items);                              \
            (v)->capacity = vec_cap_;                                                                        \
        }                                                                                                    \
    } while (0)

#define vec_push(v, ...)                                                                                     \
    do {                                                                                                     \
        vec_reserve((v), (v)->count + 1);                                                                    \
        (v)->items[(v)->count++] = (__VA_ARGS__);                                                            \
    } while (0)

#define vec_extend(v, source, n)                                                                             \
    do {                                                                                                     \
        size_t vec_n_ = (n);                                                                                 \
        vec_reserve((v), (v)->count + vec_n_);                                                               \
        if (vec_n_) memcpy((v)->items + (v)->count, (source), vec_n_ * sizeof *(v)->items);                  \
        (v)->count += vec_n_;                                                                                \
    } while (0)

#define vec_clear(v) ((v)->count = 0)
#define vec_free(v)  (free((v)->items), (v)->items = NULL, (v)->count = (v)->capacity = 0)
