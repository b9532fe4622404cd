// How full the sequences get that packing makes of samples of which only the sizes are known.
#pragma once
#include "data/packer.h"

typedef struct PackMeter {
    Packer *packer;
    PackLimits limits;
    uint64_t samples, skipped, packs;
    uint64_t tokens; // of the packed samples, without the pad token behind each
} PackMeter;

// strategy and batch_size as packer_new takes them.
void pack_meter_init(PackMeter *m, const char *strategy, PackLimits limits, size_t batch_size);
// length: without the pad token; bytes: what the sample takes in memory while it waits. False, and counted,
// when no sequence can hold it.
bool pack_meter_add(PackMeter *m, size_t length, size_t images, size_t tiles, size_t bytes);
void pack_meter_finish(PackMeter *m);
double pack_meter_fill(const PackMeter *m); // tokens / (packs · length of a sequence); 0 without packs
void pack_meter_free(PackMeter *m);
