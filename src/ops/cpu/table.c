// The table of one level's kernels.
#include "ops/cpu/kernels.h"

extern const BackendOps KERNEL(table);
#define OP_ENTRY(name, ...) .name = KERNEL(name),
const BackendOps KERNEL(table) = {BACKEND_OPS(OP_ENTRY)};
