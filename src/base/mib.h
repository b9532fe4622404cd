// Sizes as they are printed.
#pragma once

static inline double in_mib(double bytes) {
    return bytes / (1 << 20);
}
