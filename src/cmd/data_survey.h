// What a data set holds and what becomes of its rows under a configuration, counted without training.
#pragma once
#include "cmd/bench_time.h"
#include "cmd/data_setup.h"
#include "cmd/pack_meter.h"

// Why a row is no sample: the fates of data/sample.h, and two more.
enum {
    DROP_GROUP = SAMPLE_TOO_LONG + 1, // its row group cannot be read
    DROP_PACK,                        // no sequence can hold it
    N_DROPS
};
extern const char *const drop_names[N_DROPS]; // [SAMPLE_KEPT] is NULL

typedef struct Drop {
    uint64_t rows;
    size_t example; // number of the first such row
    Error reason;   // and what was wrong with it
} Drop;

typedef struct PictureSize {
    size_t width, height;
} PictureSize;
typedef VEC(size_t) SizeVec;

enum { SURVEY_FORMATS = 8 };
typedef struct FormatCount {
    const char *name;
    uint64_t pictures;
} FormatCount;

typedef struct Survey {
    uint64_t rows, image_rows;     // looked at; of them with pictures
    uint64_t token_rows;           // image tokens removed from the text
    uint64_t cut_rows;             // cut at their end to fit (long_samples truncate)
    uint64_t turns, turns_kept;    // before and after the ratings
    uint64_t turns_low[N_RATINGS]; // turns that each rating alone would drop
    Drop drops[N_DROPS];           // [SAMPLE_KEPT].rows: those that were packed
    FormatCount formats[SURVEY_FORMATS];
    uint64_t pictures;
    VEC(PictureSize) sizes;   // of pictures whose header tells, smallest first
    SizeVec bytes;            // encoded, smallest first
    SizeVec tiles;            // of rows that became samples, smallest first
    SizeVec lengths;          // tokens of the same, too long ones among them, shortest first
    uint64_t tokens, trained; // of the packed ones
    PackMeter meter;
    size_t threads;
    BenchTime time;
} Survey;

// Looks at the first `rows` rows (0: all) with num_workers threads. Rows that cannot be used are what it
// counts; only a data set out of reach is an error. Free in any case.
bool survey_run(Survey *s, DataSetup *setup, size_t rows, Error *err);
void survey_free(Survey *s);
// Prints it as tables or as one JSON object; columns are those of the first row group.
void survey_print(const Survey *s, const DataSetup *setup, bool json);
