// What the tests of pictures share: reading an index of files, and pictures of noise.
#pragma once
#include "support/golden.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/random.h"
#include "image/decode.h"
#include "image/image.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static inline const char *text_at(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

// Calls each with every line of a .jsonl file.
static inline void for_each_line(const char *path, void (*each)(const json_t *line)) {
    Error err;
    char *text, *next;
    size_t size, lines = 0;
    if (!file_read(&text, &size, path, &err)) fail_msg("%s", err.text);
    for (char *line = text; line && *line; line = next) {
        next = strchr(line, '\n');
        json_t *value = json_loadb(line, next ? (size_t)(next - line) : strlen(line), 0, NULL);
        if (next) next++;
        if (!value) fail_msg("%s: line %zu is not JSON", path, lines + 1);
        each(value);
        json_decref(value);
        lines++;
    }
    assert_true(lines > 0);
    free(text);
}

// Where tests/interop/odd_pictures.py wrote files, and what Pillow makes of them, to odd.jsonl.
static inline const char *odd_folder(void) {
    const char *folder = getenv("VLM_ODD_PICTURES");
    return folder ? folder : "tests/golden/images";
}

static inline bool load_image(Image *image, const char *path, bool exif, Error *err) {
    char *bytes;
    size_t size;
    *image = (Image){0};
    if (!file_read(&bytes, &size, path, err)) return false;
    bool ok = image_decode(image, bytes, size, exif, err) || error_prefix(err, "%s", path);
    free(bytes);
    return ok;
}

// What becomes of a decoded picture that the rule makes smaller; others stay. image is taken over.
static inline Image made_smaller(Image image, ImageSize target) {
    Error err;
    Image out;
    if (target.width * target.height >= image.width * image.height) return image;
    if (!image_resize_bicubic(&out, &image, target.width, target.height, &err)) fail_msg("%s", err.text);
    image_free(&image);
    return out;
}

static inline void expect_same_pixels(const Image *image, const Image *expected, const char *what) {
    if (image->width != expected->width || image->height != expected->height)
        fail_msg("%s: %zu x %zu pixels, expected %zu x %zu", what, image->width, image->height,
                 expected->width, expected->height);
    if (memcmp(image->rgb, expected->rgb, 3 * image->width * image->height))
        fail_msg("%s: other pixels", what);
}

// image_decode_fitted gives what image_decode and then a resize give, or the same error. expected: what
// image_decode gave, without pixels where it gave expected_err; it is taken over.
static inline void expect_fitted_to(Image expected, Error expected_err, const char *bytes, size_t size,
                                    const ResizeRule *rule, bool exif, const char *what) {
    Error err;
    ImageSize target;
    FittedImage f;
    bool ok = image_decode_fitted(&f, bytes, size, &(ImageReading){rule, exif, false}, &err);
    bool expected_ok = expected.rgb != NULL;
    const ImageSize full = {expected.width, expected.height};
    if (expected_ok &&
        !image_target_size(&target.width, &target.height, full.width, full.height, rule, &expected_err)) {
        image_free(&expected);
        expected_ok = false;
    }
    if (f.full.width != full.width || f.full.height != full.height) fail_msg("%s: another size", what);
    if (ok != expected_ok || (!ok && strcmp(err.text, expected_err.text)))
        fail_msg("%s: %s, expected %s", what, ok ? "accepted" : err.text,
                 expected_ok ? "no error" : expected_err.text);
    if (ok) {
        expected = made_smaller(expected, target);
        assert_true(f.target.width == target.width && f.target.height == target.height);
        expect_same_pixels(&f.image, &expected, what);
    }
    assert_true(ok == (f.image.rgb != NULL));
    image_free(&f.image), image_free(&expected);
}

static inline void expect_fitted(const char *bytes, size_t size, const ResizeRule *rule, bool exif,
                                 const char *what) {
    Error err;
    Image whole;
    image_decode(&whole, bytes, size, exif, &err);
    expect_fitted_to(whole, err, bytes, size, rule, exif, what);
}

// A picture of noise, whose pixels are all different as far as possible.
static inline Image noise(size_t width, size_t height, uint64_t seed) {
    Error err;
    Image image;
    if (!image_alloc(&image, width, height, "test", &err)) fail_msg("%s", err.text);
    Random random = random_stream(seed, RANDOM_TEST, 0);
    for (size_t i = 0; i < width * height * 3; i++) image.rgb[i] = (uint8_t)random_u32(&random);
    return image;
}
