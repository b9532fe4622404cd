#include "data/picture.h"

bool picture_init(Picture *p, Image *image, const VLMConfig *c, Error *err) {
    *p = (Picture){.image = *image};
    *image = (Image){0};
    const size_t width = p->image.width, height = p->image.height;
    bool ok = image_target_size(&p->width, &p->height, width, height, c->max_img_size, c->vit_img_size,
                                c->resize_to_max_side_len, err);
    if (ok && p->width * p->height < width * height) {
        Image resized;
        ok = image_resize_bicubic(&resized, &p->image, p->width, p->height, err);
        image_free(&p->image);
        p->image = resized;
    }
    if (!ok) picture_free(p);
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
    return image_to_tiles(out, &p->image, p->width, p->height, tile, global && p->width * p->height > tile * tile, err);
}
