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

// A picture of noise, whose pixels are all different as far as possible.
static inline Image noise(size_t width, size_t height, uint64_t seed) {
    Error err;
    Image image;
    if (!image_alloc(&image, width, height, "test", &err)) fail_msg("%s", err.text);
    Random random = random_stream(seed, RANDOM_TEST, 0);
    for (size_t i = 0; i < width * height * 3; i++) image.rgb[i] = (uint8_t)random_u32(&random);
    return image;
}
