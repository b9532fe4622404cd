// GGUF files for tests. Static, so that the other tests need not link the format room.
#pragma once
#include "support/golden.h"

#include "base/memory.h"
#include "format/gguf.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static inline Gguf *open_gguf(const char *path) {
    Gguf *g;
    Error err;
    if (!gguf_open(&g, path, &err)) fail_msg("%s", err.text);
    return g;
}
