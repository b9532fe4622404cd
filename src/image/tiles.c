// nanoVLM's data/custom_transforms.py: the size a picture is resized to, and its tiles, which
// the resize writes straight into the caller's memory.
#include "base/check.h"
#include "image/resize.h"

#include <math.h>
#include <stdlib.h>

bool image_target_size(size_t *width, size_t *height, size_t in_width, size_t in_height,
                       const ResizeRule *rule, Error *err) {
    const size_t max_img_size = rule->max_img_size, tile = rule->tile;
    CHECK(in_width && in_height && max_img_size && tile, "sizes %zu x %zu, max_img_size %zu, tile %zu",
          in_width, in_height, max_img_size, tile);
    bool wide = in_width >= in_height;
    double p = (double)tile, long_side = (double)(wide ? in_width : in_height);
    double short_side = (double)(wide ? in_height : in_width), long_target = (double)max_img_size;
    if (!rule->resize_to_max_side_len) long_target = fmin(long_target, ceil(long_side / p) * p);
    double scale =
        long_target / long_side; // rounding here decides some sizes: the order of operations matters
    double short_target = fmax(p, ceil(short_side * scale / p) * p);
    *width = (size_t)(wide ? long_target : short_target);
    *height = (size_t)(wide ? short_target : long_target);
    if (*width % tile == 0 && *height % tile == 0) return true;
    return error_set(err,
                     "a picture of %zu x %zu pixels would be resized to %zu x %zu, which tiles of %zu do not "
                     "divide; make max_img_size (%zu) a multiple of vit_img_size (%zu)",
                     in_width, in_height, *width, *height, tile, max_img_size, tile);
}

// ---- the global tile ----

// The whole picture as one tile [3, tile, tile]: torchvision's antialiased bilinear resize of the float
// picture. It is mixed from the rows of the tiles while these are made: first down, into the sums of the
// output rows that the current row lies within (three at most, since neighbours share half their rows), then
// each finished one across.
enum { OPEN_ROWS = 3 };

typedef struct GlobalTile {
    float *out; // [3, tile, tile]; NULL: none is wanted
    size_t tile, width;
    ResizeFilter across, down;
    float *sums;    // [OPEN_ROWS, 3, width]; output row i in i % OPEN_ROWS
    float *weights; // [2 * cols]: across, of all outputs but the first and the last
    size_t next;    // the first output row that is not finished
} GlobalTile;

static double triangle(double x) {
    return fabs(x) < 1 ? 1 - fabs(x) : 0;
}

static void global_close(GlobalTile *g) {
    resize_filter_free(&g->across);
    resize_filter_free(&g->down);
    free(g->sums);
    free(g->weights);
}

static bool global_open(GlobalTile *g, float *out, size_t width, size_t height, size_t tile) {
    *g = (GlobalTile){.out = out, .tile = tile, .width = width};
    if (!out) return true;
    if (!resize_filter_make(&g->across, width, tile, triangle, 1)) return false;
    if (!resize_filter_make(&g->down, height, tile, triangle, 1)) return false;
    const size_t taps = width / tile * 2;
    g->sums = malloc(OPEN_ROWS * 3 * width * sizeof *g->sums);
    g->weights = malloc(taps * sizeof *g->weights);
    for (size_t j = 0; g->weights && tile > 2 && j < taps; j++)
        g->weights[j] = j < g->across.count[1] ? (float)g->across.weights[g->across.stride + j] : 0;
    return g->sums && g->weights;
}

static float shrink_one(const GlobalTile *g, const float *in, size_t x) {
    const double *w = g->across.weights + x * g->across.stride;
    float sum = 0;
    for (size_t j = 0; j < g->across.count[x]; j++) sum += in[g->across.first[x] + j] * (float)w[j];
    return sum;
}

static void finish_row(GlobalTile *g, const ImageKernels *kernels) {
    const size_t n = g->tile, stride = g->width / n;
    for (size_t c = 0; c < 3; c++) {
        const float *in = g->sums + (g->next % OPEN_ROWS * 3 + c) * g->width;
        float *out = g->out + (c * n + g->next) * n;
        out[0] = shrink_one(g, in, 0);
        out[n - 1] = shrink_one(g, in, n - 1);
        if (n > 2) kernels->shrink(out + 1, in + g->across.first[1], g->weights, stride, n - 2);
    }
    g->next++;
}

// Row y of the picture, of which x [3][width] is given tile by tile: channel c of tile column col at tiles +
// (col * 3 + c) * plane.
static void global_add_row(GlobalTile *g, const ImageKernels *kernels, const float *tiles, size_t y) {
    const size_t n = g->tile;
    if (!g->out) return;
    for (size_t i = g->next; i < n && g->down.first[i] <= y; i++) {
        const size_t j = y - g->down.first[i];
        if (j >= g->down.count[i]) continue;
        const float weight = (float)g->down.weights[i * g->down.stride + j];
        for (size_t col = 0; col < g->width / n; col++)
            for (size_t c = 0; c < 3; c++)
                kernels->add_row(g->sums + (i % OPEN_ROWS * 3 + c) * g->width + col * n,
                                 tiles + (col * 3 + c) * n * n, weight, j == 0, n);
    }
    while (g->next < n && g->down.first[g->next] + g->down.count[g->next] == y + 1) finish_row(g, kernels);
}

// ---- all tiles ----

static void cut_rows(float *out, Resizer *r, const Image *image, GlobalTile *global, size_t tile) {
    const size_t cols = r->width / tile, plane = tile * tile;
    for (size_t y = 0; y < r->height; y++) {
        const int32_t *weights;
        while (!resizer_has(r, y)) resizer_put(r, image->rgb + r->taken * image->width * 3);
        const size_t n_rows = resizer_row(r, y, &weights);
        float *row = out + y / tile * cols * 3 * plane + y % tile * tile;
        for (size_t col = 0; col < cols; col++) {
            for (size_t c = 0; c < 3; c++) {
                r->kernels->mix_floats(row + (col * 3 + c) * plane, r->rows + c * r->down.taps, weights,
                                       n_rows, tile);
                for (size_t j = 0; j < n_rows; j++) r->rows[c * r->down.taps + j] += tile;
            }
        }
        global_add_row(global, r->kernels, row, y);
    }
}

bool image_to_tiles(float *out, const Image *image, size_t width, size_t height, size_t tile,
                    bool with_global, Error *err) {
    CHECK(width % tile == 0 && height % tile == 0, "%zu x %zu pixels in tiles of %zu", width, height, tile);
    Resizer r;
    GlobalTile global;
    if (!resizer_open(&r, (ImageSize){image->width, image->height}, width, height, err)) return false;
    bool ok = global_open(&global, with_global ? out : NULL, width, height, tile) ||
              error_set(err, "no memory for the global tile of %zu x %zu pixels", width, height);
    if (ok) cut_rows(out + (with_global ? 3 * tile * tile : 0), &r, image, &global, tile);
    global_close(&global);
    resizer_close(&r);
    return ok;
}
