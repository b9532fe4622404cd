#include "data/picture.h"
#include "base/file.h"

#include <stdlib.h>

static bool decode(Picture *p, const void *bytes, size_t size, const VLMConfig *c, bool exif, bool reduced,
                   Error *err) {
    const ResizeRule rule = {c->max_img_size, c->vit_img_size, c->resize_to_max_side_len};
    FittedImage f;
    bool ok = image_decode_fitted(&f, bytes, size, &(ImageReading){&rule, exif, reduced}, err);
    *p = (Picture){f.image, f.full, f.target.width, f.target.height, f.beside};
    return ok;
}

bool picture_decode(Picture *p, const void *bytes, size_t size, const VLMConfig *c, bool reduced,
                    Error *err) {
    return decode(p, bytes, size, c, true, reduced, err);
}

bool picture_load(Picture *p, const char *path, const VLMConfig *c, Error *err) {
    char *bytes;
    size_t size;
    *p = (Picture){0};
    if (!file_read(&bytes, &size, path, err)) return false;
    bool ok = decode(p, bytes, size, c, false, false, err) || error_prefix(err, "%s", path);
    free(bytes);
    return ok;
}

void picture_free(Picture *p) {
    image_free(&p->image);
    *p = (Picture){0};
}

ImageGrid picture_grid(const Picture *p, size_t tile) {
    return (ImageGrid){p->height / tile, p->width / tile};
}

size_t grid_tiles(ImageGrid grid, bool global) {
    size_t n = grid.rows * grid.cols;
    return n + (global && n > 1);
}

bool picture_tiles(float *out, const Picture *p, size_t tile, bool global, Error *err) {
    return image_to_tiles(out, &p->image, p->width, p->height, tile,
                          global && p->width * p->height > tile * tile, err);
}
