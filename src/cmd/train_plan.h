// What `vlm train --dry_run` prints.
#pragma once
#include "data/loader.h"
#include "dist/comm.h"
#include "train/memory_plan.h"
#include "train/trainer.h"

// Times ten batches of the training data (fewer when the epoch has fewer) and an update, on weights that
// nobody keeps, and prints the plan: parameters, tokens, updates of an epoch, memory, disk
// and expected time. Writes no file.
// Fails when the data gives no batch or the folder of the checkpoints can't be written.
bool train_plan_print(const Config *config, Trainer *trainer, const HostMemory *host, Loader *training,
                      Comm *comm, Error *err);
