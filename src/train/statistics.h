// What the micro-batches between two statistics lines were like (nanoVLM, train.py: accumulated_stats).
#pragma once
#include "train/run_log.h"

typedef enum Statistic {
    STATISTIC_TOKENS_PER_SECOND,
    STATISTIC_DATA_LOAD_TIME, // seconds
    STATISTIC_FW_BW_TIME,
    STATISTIC_POST_PROCESS_TIME,
    STATISTIC_IMAGES_PER_SAMPLE,
    STATISTIC_COUNT
} Statistic;

typedef struct Statistics {
    struct {
        double sum, min, max;
        size_t count;
    } series[STATISTIC_COUNT];
} Statistics; // all zero: empty

void statistics_add(Statistics *s, Statistic which, double value);
// Adds training_stats/avg_*, max_* (but of tokens_per_second) and min_images_per_sample to the log's open
// line and empties the series; one without values is left out.
void statistics_log(Statistics *s, RunLog *log);
