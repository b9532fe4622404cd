#include "image/decode.h"

#include <webp/demux.h>

// The first frame of the file; its alpha is dropped. An animation is composed as Pillow does, by libwebp's
// decoder.
static bool read_first_frame(Image *image, const WebPData *data, const WebPDemuxer *demuxer, Error *err) {
    size_t width = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_WIDTH),
           height = WebPDemuxGetI(demuxer, WEBP_FF_CANVAS_HEIGHT);
    if (!image_alloc(image, width, height, "WebP", err)) return false;
    WebPAnimDecoderOptions options;
    WebPAnimDecoderOptionsInit(&options);
    options.color_mode = MODE_RGBA;
    WebPAnimDecoder *decoder = WebPAnimDecoderNew(data, &options);
    uint8_t *rgba;
    int time;
    bool ok = decoder && WebPAnimDecoderGetNext(decoder, &rgba, &time);
    for (size_t i = 0; ok && i < width * height; i++)
        for (size_t c = 0; c < 3; c++) image->rgb[3 * i + c] = rgba[4 * i + c];
    WebPAnimDecoderDelete(decoder);
    if (ok) return true;
    image_free(image);
    return error_set(err, "WebP: the file is damaged");
}

bool webp_decode(Image *image, int *orientation, const void *bytes, size_t size, Error *err) {
    WebPData data = {bytes, size};
    WebPDemuxer *demuxer = WebPDemux(&data);
    if (!demuxer) return error_set(err, "WebP: the file is truncated or damaged");
    bool ok = read_first_frame(image, &data, demuxer, err);
    WebPChunkIterator exif = {0}, xmp = {0};
    WebPDemuxGetChunk(demuxer, "EXIF", 1, &exif);
    WebPDemuxGetChunk(demuxer, "XMP ", 1, &xmp);
    *orientation =
        orientation_of(&(Metadata){exif.chunk.bytes, xmp.chunk.bytes, exif.chunk.size, xmp.chunk.size});
    WebPDemuxReleaseChunkIterator(&exif);
    WebPDemuxReleaseChunkIterator(&xmp);
    WebPDemuxDelete(demuxer);
    return ok;
}
