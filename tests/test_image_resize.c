// LINK: image
// Resizing and cutting into tiles against the formulas written down plainly, bit for bit, at every level of
// instructions: odd sizes and tiles, strong enlarging and shrinking, a side that stays as it is.
#include "support/image_case.h"
#include "support/op_case.h"
#include "image/resize.h"

#include <math.h>

static double cubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}
static double triangle(double x) {
    return fabs(x) < 1 ? 1 - fabs(x) : 0;
}

// The weights of output i, of sum 1; returns the first input.
static size_t weights_of(double *w, size_t *count, size_t i, size_t n_in, size_t n_out,
                         double (*kernel)(double), double radius) {
    const double scale = (double)n_in / (double)n_out, f = scale > 1 ? scale : 1;
    const double center = ((double)i + 0.5) * scale, low = center - radius * f + 0.5,
                 high = center + radius * f + 0.5;
    const size_t first = low > 0 ? (size_t)low : 0, end = high < (double)n_in ? (size_t)high : n_in;
    double sum = 0;
    *count = end - first;
    for (size_t j = 0; j < *count; j++) sum += w[j] = kernel(((double)(j + first) - center + 0.5) * (1 / f));
    for (size_t j = 0; j < *count; j++) w[j] /= sum;
    return first;
}

// One pass over lines of n_in bytes `step` apart.
static void plain_line(uint8_t *out, const uint8_t *in, size_t step, size_t n_in, size_t n_out) {
    double *w = mem_alloc((n_in + 8) * sizeof *w);
    for (size_t i = 0; i < n_out; i++) {
        size_t count, first = weights_of(w, &count, i, n_in, n_out, cubic, 2);
        int64_t sum = 1 << 21;
        for (size_t j = 0; j < count; j++)
            sum += in[(first + j) * step] * (int64_t)(w[j] * (1 << 22) + (w[j] < 0 ? -0.5 : 0.5));
        sum >>= 22;
        out[i * step] = (uint8_t)(sum < 0 ? 0 : sum > 255 ? 255 : sum);
    }
    free(w);
}

static Image plain_resize(const Image *in, size_t width, size_t height) {
    Image wide, out;
    assert_true(image_alloc(&wide, width, in->height, "test", NULL) &&
                image_alloc(&out, width, height, "test", NULL));
    for (size_t y = 0; y < in->height; y++)
        for (size_t c = 0; c < 3; c++)
            plain_line(wide.rgb + y * width * 3 + c, in->rgb + y * in->width * 3 + c, 3, in->width, width);
    for (size_t x = 0; x < 3 * width; x++)
        plain_line(out.rgb + x, wide.rgb + x, 3 * width, in->height, height);
    image_free(&wide);
    return out;
}

// The global tile's value at (c, y, x): rows first, both sums in float and in order.
static float plain_global(const Image *image, size_t tile, size_t c, size_t y, size_t x) {
    double *down = mem_alloc((image->height + 8) * sizeof *down),
           *across = mem_alloc((image->width + 8) * sizeof *across);
    size_t rows, cols, top = weights_of(down, &rows, y, image->height, tile, triangle, 1),
                       left = weights_of(across, &cols, x, image->width, tile, triangle, 1);
    float sum = 0;
    for (size_t j = 0; j < cols; j++) {
        float column = 0;
        for (size_t i = 0; i < rows; i++)
            column +=
                (float)image->rgb[((top + i) * image->width + left + j) * 3 + c] / 255.0f * (float)down[i];
        sum += column * (float)across[j];
    }
    free(down);
    free(across);
    return sum;
}

static void check_tiles(const float *tiles, const Image *resized, size_t tile) {
    const size_t cols = resized->width / tile, plane = tile * tile;
    for (size_t i = 0; i < 3 * plane; i++)
        if (tiles[i] != plain_global(resized, tile, i / plane, i % plane / tile, i % tile))
            fail_msg("the global tile of %zu x %zu in tiles of %zu is wrong at %zu", resized->width,
                     resized->height, tile, i);
    for (size_t y = 0; y < resized->height; y++)
        for (size_t x = 0; x < resized->width; x++)
            for (size_t c = 0; c < 3; c++) {
                const size_t at =
                    (y / tile * cols + x / tile + 1) * 3 * plane + c * plane + y % tile * tile + x % tile;
                if (tiles[at] != (float)resized->rgb[(y * resized->width + x) * 3 + c] / 255.0f)
                    fail_msg("%zu x %zu in tiles of %zu: wrong at %zu, %zu", resized->width, resized->height,
                             tile, x, y);
            }
}

static void test_every_size(void **state) {
    (void)state;
    static const struct {
        size_t in_width, in_height, tile, cols, rows;
    } cases[] = {{1, 1, 1, 1, 1},     {1, 1, 7, 3, 2},      {5, 3, 16, 2, 2},     {33, 17, 14, 3, 2},
                 {64, 48, 32, 4, 3},  {100, 75, 32, 4, 3},  {640, 9, 8, 5, 1},    {9, 640, 8, 1, 5},
                 {300, 200, 5, 2, 2}, {129, 257, 43, 3, 6}, {800, 600, 37, 2, 2}, {48, 40, 16, 3, 5},
                 {40, 48, 16, 5, 3},  {200, 130, 1, 7, 3},  {90, 90, 2, 45, 45},  {31, 30, 17, 2, 2},
                 {257, 31, 64, 1, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        Error err;
        const size_t tile = cases[i].tile, width = tile * cases[i].cols, height = tile * cases[i].rows;
        Image in = noise(cases[i].in_width, cases[i].in_height, i),
              expected = plain_resize(&in, width, height), out;
        if (!image_resize_bicubic(&out, &in, width, height, &err)) fail_msg("%s", err.text);
        assert_memory_equal(out.rgb, expected.rgb, width * height * 3);
        const size_t values = (cases[i].cols * cases[i].rows + 1) * 3 * tile * tile;
        float *tiles = mem_alloc((values + 1) * sizeof *tiles);
        for (size_t k = 0; k <= values; k++) tiles[k] = NAN;
        if (!image_to_tiles(tiles, &in, width, height, tile, true, &err)) fail_msg("%s", err.text);
        check_tiles(tiles, &expected, tile);
        assert_true(isnan(tiles[values])); // nothing is written behind them
        if (!image_to_tiles(tiles, &expected, width, height, tile, true, &err)) fail_msg("%s", err.text);
        check_tiles(tiles, &expected, tile); // from one that has its size already
        free(tiles);
        image_free(&in), image_free(&expected), image_free(&out);
    }
}

// Black and white next to each other: the sums leave 0 … 255 on both sides.
static void test_clipping(void **state) {
    (void)state;
    Image in = noise(61, 47, 3), out;
    for (size_t i = 0; i < 61 * 47 * 3; i++) in.rgb[i] = in.rgb[i] < 128 ? 0 : 255;
    Image expected = plain_resize(&in, 160, 96);
    assert_true(image_resize_bicubic(&out, &in, 160, 96, NULL));
    assert_memory_equal(out.rgb, expected.rgb, 160 * 96 * 3);
    image_free(&in), image_free(&expected), image_free(&out);
}

static void test_refusals(void **state) {
    (void)state;
    Error err;
    Image small = noise(3, 3, 4), out;
    assert_false(image_resize_bicubic(&out, &small, 0, 5, &err));
    assert_false(image_resize_bicubic(&out, &small, 3, 100000000, &err));
    assert_non_null(strstr(err.text, "at most"));
    char *level = mem_strdup(getenv("VLM_CPU_LEVEL"));
    setenv("VLM_CPU_LEVEL", "sse9", 1);
    assert_false(image_resize_bicubic(&out, &small, 5, 5, &err));
    assert_non_null(strstr(err.text, "\"sse9\""));
    setenv("VLM_CPU_LEVEL", level, 1);
    free(level);
    image_free(&small);
}

// What a resize says that it holds is what the heap grows by. (The sanitizers' heap tells nothing.)
static void test_memory(void **state) {
    (void)state;
    static const size_t sizes[][4] = {{1920, 1080, 512, 288}, {640, 480, 640, 320}, {301, 999, 64, 960}};
    for (size_t i = 0; i < 3; i++) {
        Resizer r;
        const size_t before = mem_heap(), in_width = sizes[i][0], in_height = sizes[i][1];
        assert_true(resizer_open(&r, (ImageSize){in_width, in_height}, sizes[i][2], sizes[i][3], NULL));
        const size_t grown = mem_heap() - before, said = resizer_bytes(&r);
        if (before > 0 && (grown + 1000 < said || grown > said + 1000))
            fail_msg("%zu bytes, said are %zu", grown, said);
        resizer_close(&r);
    }
}

static int run(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_size),
        cmocka_unit_test(test_clipping),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv) {
    (void)argc;
    return run_at_each_level(argv, run);
}
