#include "cmd/pack_meter.h"

void pack_meter_init(PackMeter *m, const char *strategy, PackLimits limits, size_t batch_size) {
    *m = (PackMeter){.packer = packer_new(strategy, limits, batch_size, 0), .limits = limits};
}

static void take_packs(PackMeter *m) {
    Pack pack;
    while (packer_take(m->packer, &pack)) {
        m->packs++;
        for (size_t i = 0; i < pack.count; i++) m->tokens += pack.items[i].length - 1;
    }
}

bool pack_meter_add(PackMeter *m, size_t length, size_t images, size_t tiles, size_t bytes) {
    PackItem item = {.length = length + 1, .images = images, .tiles = tiles, .bytes = bytes};
    if (!packer_accepts(m->packer, &item)) {
        m->skipped++;
        return false;
    }
    m->samples++;
    packer_add(m->packer, item);
    take_packs(m);
    return true;
}

void pack_meter_finish(PackMeter *m) {
    packer_finish(m->packer);
    take_packs(m);
}

double pack_meter_fill(const PackMeter *m) {
    if (m->packs == 0) return 0;
    return (double)m->tokens / ((double)m->packs * (double)m->limits.length);
}

void pack_meter_free(PackMeter *m) {
    packer_free(m->packer);
    *m = (PackMeter){0};
}
