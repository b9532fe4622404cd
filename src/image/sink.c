#include "image/sink.h"
#include "image/decode.h"

#include <stdlib.h>

// libjpeg-turbo writes a row that begins at a multiple of 16 or 32 bytes past the caches, from where the
// resize would have to read it again (a tenth of the time of a picture).
#define UNALIGNED 1

// Whether the rule leaves fewer pixels than width x height. A size that it refuses is an error only of
// pictures that can be decoded.
static bool gets_smaller(ImageSize *to, const ImageSink *s, size_t width, size_t height) {
    const ImageReading *how = s->how;
    if (s->whole || !how->rule || (how->exif && orientation_turns(s->orientation))) return false;
    return image_target_size(&to->width, &to->height, s->full.width, s->full.height, how->rule, NULL) &&
           to->width * to->height < width * height;
}

bool sink_open(ImageSink *s, size_t width, size_t height, const char *format, Error *err) {
    ImageSize to;
    if (!image_size_check(width, height, format, err)) return false;
    s->resizes = gets_smaller(&to, s, width, height);
    if (!s->resizes) return image_alloc(&s->image, width, height, format, err);
    if (!resizer_open(&s->resizer, (ImageSize){width, height}, to.width, to.height, err) ||
        !image_alloc(&s->image, to.width, to.height, "resize", err))
        return false;
    s->row = malloc(UNALIGNED + 3 * width);
    s->beside += resizer_bytes(&s->resizer) + 3 * width;
    return s->row || error_set(err, "%s: no memory for a row of %zu pixels", format, width);
}

uint8_t *sink_row(ImageSink *s, size_t y) {
    return s->resizes ? s->row + UNALIGNED : s->image.rgb + y * s->image.width * 3;
}

void sink_put(ImageSink *s) {
    if (s->resizes) resizer_put_to(&s->image, &s->resizer, s->row + UNALIGNED);
}

void sink_free(ImageSink *s) {
    image_free(&s->image);
    resizer_close(&s->resizer);
    free(s->row);
    s->row = NULL;
}
