// Configurations, rows and pictures for the tests of the data room. Static, so that the other tests need not
// link it.
#pragma once
#include "support/folders.h"
#include "support/golden.h"

#include "base/memory.h"
#include "base/random.h"
#include "config/config.h"
#include "format/arrow.h"
#include "image/image.h"
#include "text/tokenizer.h"

#include <dirent.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static inline void expect(bool ok, const Error *err) {
    if (!ok) fail_msg("%s", err->text);
}

static inline void set_text(char **field, const char *value) {
    free(*field);
    *field = mem_strdup(value);
}

// The settings of the reference data set: tokenizer of bytes, 64-pixel pictures in 32-pixel tiles of 4
// tokens.
static inline void data_config(Config *c, const char *path, const char *name) {
    config_init(c);
    c->vlm.vit_img_size = 32;
    c->vlm.max_img_size = 64;
    c->vlm.resize_to_max_side_len = true;
    c->vlm.mp_image_token_length = 4;
    c->vlm.lm_max_length = 256;
    c->train.max_sample_length = 256;
    c->train.batch_size = 2;
    c->train.val_size = 0;
    c->options.num_workers = 0;
    set_text(&c->train.train_dataset_path, path);
    for (size_t i = 0; i < c->train.train_dataset_name.count; i++) free(c->train.train_dataset_name.items[i]);
    c->train.train_dataset_name.items = mem_resize(c->train.train_dataset_name.items, sizeof(char *));
    c->train.train_dataset_name.items[0] = mem_strdup(name);
    c->train.train_dataset_name.count = 1;
}

static inline Tokenizer *data_tokenizer(const Config *c) {
    Error err;
    Tokenizer *t;
    char *path = golden_path("tokenizer/bytes");
    expect(tokenizer_load(&t, path, &c->vlm.vlm_extra_tokens, &err), &err);
    free(path);
    return t;
}

static inline void copy_file(const char *to, const char *from, size_t most_bytes) {
    Error err;
    char *bytes;
    size_t size;
    expect(file_read(&bytes, &size, from, &err), &err);
    expect(file_write_text(to, bytes, size < most_bytes ? size : most_bytes, &err), &err);
    free(bytes);
}

// A small PNG; caller frees.
static inline unsigned char *make_png(size_t *size, size_t width, size_t height, uint64_t seed) {
    Error err;
    unsigned char *bytes;
    Random r = random_stream(seed, RANDOM_TEST, 0);
    Image image = {width, height, mem_alloc(width * height * 3)};
    for (size_t i = 0; i < width * height * 3; i++) image.rgb[i] = (uint8_t)(random_u32(&r) % 9 * 28);
    expect(image_encode_png(&bytes, size, &image, &err), &err);
    image_free(&image);
    return bytes;
}

// A Parquet file of n good rows whose texts begin with their number (counted from `first`); every fourth has
// no picture.
static inline void write_rows(const char *path, size_t first, size_t n, size_t rows_per_group) {
    Error err;
    ParquetWriter *w;
    expect(parquet_create(&w, path, rows_per_group, &err), &err);
    for (size_t i = first; i < first + n; i++) {
        size_t size;
        unsigned char *png = make_png(&size, 8 + i % 40, 8 + i % 23, i);
        char user[32], assistant[128];
        snprintf(user, sizeof user, "%zu?", i);
        snprintf(assistant, sizeof assistant, "%zu %.*s", i, (int)(i * 7 % 60),
                 "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ");
        FineVisionImage image = {png, size, NULL};
        FineVisionTurn turn = {user, assistant, 5, 5, 5, 5};
        FineVisionRow row = {&image, i % 4 != 3, &turn, 1, "test"};
        expect(parquet_write_row(w, &row, &err), &err);
        free(png);
    }
    expect(parquet_finish(w, &err), &err);
}
