// Rows of a table by token id, and the gradient of the table.
#include "ops/cpu/packed.h"

void KERNEL(embedding_forward)(Backend *be, Tensor y, Tensor table, Tensor ids) {
    size_t M = tensor_count(ids), C = tensor_cols(table), V = tensor_rows(table);
#pragma omp parallel for num_threads(threads_for(be, M *C))
    for (size_t m = 0; m < M; m++) unpack(floats(y) + m * C, table, checked_row(ids, m, V), 0, C);
}

// A token may occur many times, so the tasks share out the columns and each adds the rows in order.
void KERNEL(embedding_backward)(Backend *be, Tensor dtable, Tensor dy, Tensor ids) {
    size_t M = tensor_count(ids), C = tensor_cols(dtable), V = tensor_rows(dtable);
#pragma omp parallel for num_threads(threads_for(be, M *C))
    for (size_t s = 0; s < strips(C); s++) {
        size_t width = strip_width(C, s);
        for (size_t m = 0; m < M; m++) {
            float *to = floats(dtable) + checked_row(ids, m, V) * C + s * STRIP;
            const float *from = floats(dy) + m * C + s * STRIP;
            for (size_t c = 0; c < width; c++) to[c] += from[c];
        }
    }
}
