#include "train/statistics.h"

#include <stdio.h>

static const struct {
    const char *name;
    bool max, min; // logged beside the mean
} kinds[STATISTIC_COUNT] = {
    [STATISTIC_TOKENS_PER_SECOND] = {"tokens_per_second", false, false},
    [STATISTIC_DATA_LOAD_TIME] = {"data_load_time", true, false},
    [STATISTIC_FW_BW_TIME] = {"fw_bw_time", true, false},
    [STATISTIC_POST_PROCESS_TIME] = {"post_process_time", true, false},
    [STATISTIC_IMAGES_PER_SAMPLE] = {"images_per_sample", true, true},
};

void statistics_add(Statistics *s, Statistic which, double value) {
    const bool first = s->series[which].count++ == 0;
    s->series[which].sum += value;
    if (first || value < s->series[which].min) s->series[which].min = value;
    if (first || value > s->series[which].max) s->series[which].max = value;
}

static void log_value(RunLog *log, const char *what, const char *name, double value) {
    char key[64];
    snprintf(key, sizeof key, "training_stats/%s_%s", what, name);
    run_log_number(log, key, value);
}

void statistics_log(Statistics *s, RunLog *log) {
    for (int i = 0; i < STATISTIC_COUNT; i++) {
        if (s->series[i].count == 0) continue;
        log_value(log, "avg", kinds[i].name, s->series[i].sum / (double)s->series[i].count);
        if (kinds[i].max) log_value(log, "max", kinds[i].name, s->series[i].max);
        if (kinds[i].min) log_value(log, "min", kinds[i].name, s->series[i].min);
    }
    *s = (Statistics){0};
}
