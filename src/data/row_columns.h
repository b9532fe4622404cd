// The columns of a row group that become samples, in FineVision's layout: images, texts list<struct<user,
// assistant>>, and four optional lists of ratings. Another layout needs another adapter here.
//
// images (or image, where there is no images) is a list of pictures or one picture a row. A picture is
// struct<bytes, path>, of which one may be absent or null, its bytes, or its path.
#pragma once
#include "format/arrow.h"

enum { N_RATINGS = 4 };
extern const char *const row_column_names[]; // what has to be read
extern const size_t n_row_columns;

typedef struct RowColumns {
    Column images, image, bytes, path; // image: one picture, of which bytes and path are fields or itself
    bool has_images;                   // false: the column holds nulls only
    bool has_bytes, has_path;
    const char *file; // where the rows were read from, borrowed; paths are relative to its folder
    Column texts, turn, user, assistant;
    bool has_texts; // false: nulls only
    Column
        ratings[N_RATINGS]; // relevance, image_correspondence, visual_dependency, formatting: nanoVLM's order
    bool has_ratings[N_RATINGS];
} RowColumns;

// Finds the columns of a batch; a missing or mistyped one is an error that names it.
bool row_columns_bind(RowColumns *c, const RecordBatch *batch, Error *err);

// Pictures of a row: entries [*first, *first + *count) of c->image.
void row_images(size_t *first, size_t *count, const RowColumns *c, size_t row);
// The encoded bytes of one of them: the batch's, or, when it has a path only, those of the file of that name
// (absolute, or relative to the folder of the rows' own file).
typedef struct RowImage {
    const uint8_t *bytes;
    size_t size;
    char *owned; // NULL when the bytes are borrowed from the batch
} RowImage;
bool row_image_open(RowImage *r, const RowColumns *c, size_t image, Error *err);
void row_image_close(RowImage *r);
// Turns of a row: entries of c->turn. False when the row's texts are null.
bool row_turns(size_t *first, size_t *count, const RowColumns *c, size_t row, Error *err);
// Whether turn number `index` of the row passes the minimum ratings (nanoVLM: data/datasets.py,
// _get_messages). A null list or rating does not count; a list too short for the turn ends the checks and
// keeps it. Floats are compared as Python does, so that a NaN passes.
bool row_turn_passes(const RowColumns *c, size_t row, size_t index, const int minima[N_RATINGS]);
