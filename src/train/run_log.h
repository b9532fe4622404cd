// The files a run writes beside its checkpoints, in <vlm_checkpoint_path>/<run_name>: config.json, everything
// the run was told ({"VLMConfig", "TrainConfig", "TrainOptions"}, readable by --config), and log.jsonl.
//
// log.jsonl has one JSON object a line, each with "step" and the names nanoVLM logs under:
//   every update    batch_loss (of its last micro-batch), grad_norm (before clipping), lr_mp,
//   lr_vision_backbone,
//                   lr_language_backbone (groups that are trained), and when due val_loss and
//                   training_stats/*
//   end of an epoch a line of its own: epoch, epoch_loss, epoch_duration, epoch_tokens_per_second
// Numbers have nine significant digits; a value that is not finite is written as null. A line is complete
// once written.
#pragma once
#include "config/config.h"

typedef struct RunLog {
    char *path;   // of log.jsonl
    char *config; // text of config.json
    int file;
    size_t size;  // bytes of whole lines in it
    json_t *line; // the open line
    bool failed;  // the last line was lost, which was reported
} RunLog;         // {.file = -1}: of a rank that writes none

// Makes the folder and writes config.json. A folder that already has a log is an error: two runs do not mix.
bool run_log_open(RunLog *log, const char *folder, const Config *config, Error *err);
// Goes on with a log (or begins one): its first `keep` bytes stay, what is behind them is cut off.
bool run_log_reopen(RunLog *log, const char *folder, const Config *config, size_t keep, Error *err);
void run_log_close(RunLog *log);
void run_log_number(RunLog *log, const char *key, double value); // into the open line
// Writes the open line as step `step` and begins the next. A disk that is full costs the line and one
// warning; a log that was removed meanwhile costs the lines before.
void run_log_commit(RunLog *log, uint64_t step);
