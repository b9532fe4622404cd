// Which row of a data set stands at which place of an epoch: a function of the seed, the epoch and the place.
// Any place is found without reading data and without repeating random numbers drawn for places before it.
//
// Row groups follow one another, in the order of the files or at random, and their rows are cut into windows;
// within a window the rows change places, by random numbers that belong to the window alone. What a window
// needs is read at once, so it is also the unit of reading and bounds the memory for it:
//
//   shuffle             groups at random; as many of them a window as fit window_bytes, at least one
//   shuffle_buffer > 0  groups in order; windows of so many rows, the last one shorter
//   neither             groups in order; each a window by itself, whose rows stay where they are
#pragma once
#include "base/vec.h"
#include "data/dataset.h"

typedef struct RowOrderSettings {
    bool shuffle;
    size_t window_bytes, shuffle_buffer;
    uint64_t seed;
} RowOrderSettings;

typedef struct OrderedGroup {
    size_t group; // of the data set
    size_t first; // place of its first row, were it not for the windows
} OrderedGroup;

typedef struct RowOrder {
    const Dataset *data; // borrowed
    RowOrderSettings settings;
    uint64_t epoch;
    size_t rows;
    VEC(OrderedGroup) groups; // those with rows, as they follow one another
    VEC(size_t) windows;      // first place of each, and behind them the number of rows
} RowOrder;

// The order number `epoch` of those rows whose bit is set in rows_wanted ([rows/64 + 1] of the data set;
// borrowed for the call). May be called again on the same order; the first time it must be zeroed.
void row_order_begin(RowOrder *o, const Dataset *data, RowOrderSettings settings, const uint64_t *rows_wanted,
                     uint64_t epoch);
void row_order_free(RowOrder *o);

typedef struct RowPlace {
    size_t ordered; // number in o->groups
    size_t row;     // in the group
} RowPlace;
typedef VEC(RowPlace) RowPlaces;

size_t row_order_window_of(const RowOrder *o, size_t place); // place < o->rows
// Of all groups that the windows need, from `first` to `last`.
size_t row_order_windows_bytes(const RowOrder *o, size_t first, size_t last);
// The rows of window w: places[i] stands at place o->windows[w] + i. Replaces what was there.
void row_order_window(const RowOrder *o, size_t w, const uint64_t *rows_wanted, RowPlaces *places);
