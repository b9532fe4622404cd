#include "data/picture.h"

static ResizeRule resize_rule(const VLMConfig *c) {
    return (ResizeRule){c->max_img_size, c->vit_img_size, c->resize_to_max_side_len};
}

// full: the size that the resize goes by.
static bool init(Picture *p, Image *image, ImageSize full, const ResizeRule *rule, Error *err) {
    *p = (Picture){.image = *image};
    *image = (Image){0};
    bool ok = image_target_size(&p->width, &p->height, full.width, full.height, rule, err);
    if (ok && p->width * p->height < p->image.width * p->image.height) {
        Image resized;
        p->left = 3 * p->image.width * p->image.height;
        ok = image_resize_bicubic(&resized, &p->image, p->width, p->height, err);
        image_free(&p->image);
        p->image = resized;
    }
    if (!ok) picture_free(p);
    return ok;
}

bool picture_init(Picture *p, Image *image, const VLMConfig *c, Error *err) {
    const ResizeRule rule = resize_rule(c);
    return init(p, image, (ImageSize){image->width, image->height}, &rule, err);
}

bool picture_decode(Picture *p, const void *bytes, size_t size, const VLMConfig *c, bool reduced,
                    Error *err) {
    const ResizeRule rule = resize_rule(c);
    Image image;
    ImageSize full;
    *p = (Picture){0};
    return image_decode_reduced(&image, &full, bytes, size, true, reduced ? &rule : NULL, err) &&
           init(p, &image, full, &rule, err);
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
