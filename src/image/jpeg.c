#include "image/decode.h"

#include <setjmp.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include <jerror.h>

#define MAX_SCANS 500 // a progressive file of a few bytes a scan could otherwise cost minutes

// libjpeg leaves through longjmp on errors; everything that must survive lies here, or in the caller's sink.
typedef struct JpegReader {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_progress_mgr progress;
    jmp_buf leave;
    char message[JMSG_LENGTH_MAX];
} JpegReader;

static _Noreturn void on_error(j_common_ptr info) {
    JpegReader *r = info->client_data;
    info->err->format_message(info, r->message);
    longjmp(r->leave, 1);
}

// libjpeg only warns when the data end too early and fills up with grey; to us that is a broken picture.
// Other warnings (a damaged code, bytes before a marker) are ignored, as Pillow does.
static void on_message(j_common_ptr info, int level) {
    if (level < 0 && info->err->msg_code == JWRN_JPEG_EOF) on_error(info);
}

static void on_progress(j_common_ptr info) {
    JpegReader *r = info->client_data;
    if (r->info.input_scan_number <= MAX_SCANS) return;
    snprintf(r->message, sizeof r->message, "more than %d scans", MAX_SCANS);
    longjmp(r->leave, 1);
}

// One row of CMYK, which Adobe stores inverted, to RGB in Pillow's integer arithmetic.
static void row_from_cmyk(uint8_t *rgb, const uint8_t *cmyk, size_t width) {
    for (size_t x = 0; x < width; x++) {
        const uint8_t *p = cmyk + 4 * x;
        cmyk_to_rgb(rgb + 3 * x, (uint8_t[]){(uint8_t)~p[0], (uint8_t)~p[1], (uint8_t)~p[2], (uint8_t)~p[3]});
    }
}

#define XMP_NAME "http://ns.adobe.com/xap/1.0/" // and a '\0', before the packet in its APP1 marker

static int saved_orientation(const struct jpeg_decompress_struct *info) {
    Metadata m = {0};
    for (jpeg_saved_marker_ptr s = info->marker_list; s; s = s->next) {
        if (s->data_length > 6 && !m.exif && memcmp(s->data, "Exif\0\0", 6) == 0)
            m.exif = s->data, m.exif_size = s->data_length;
        if (s->data_length > sizeof XMP_NAME && memcmp(s->data, XMP_NAME, sizeof XMP_NAME) == 0)
            m.xmp = s->data + sizeof XMP_NAME, m.xmp_size = s->data_length - sizeof XMP_NAME;
    }
    return orientation_of(&m);
}

// The smallest scale that leaves no side below what the rule makes of the full size.
static void reduce(struct jpeg_decompress_struct *info, const ResizeRule *rule) {
    size_t width, height;
    if (!image_target_size(&width, &height, info->image_width, info->image_height, rule, NULL)) return;
    for (unsigned eighths = 8; eighths > 0; eighths--) {
        if ((info->image_width * (size_t)eighths + 7) / 8 < width ||
            (info->image_height * (size_t)eighths + 7) / 8 < height)
            return;
        info->scale_num = eighths, info->scale_denom = 8;
    }
}

// What libjpeg takes: all coefficients of a file of several scans, and a few rows of each component.
static size_t library_bytes(struct jpeg_decompress_struct *info) {
    const bool several = jpeg_has_multiple_scans(info);
    size_t bytes = 0;
    for (int i = 0; i < info->num_components; i++) {
        const jpeg_component_info *c = &info->comp_info[i];
        const size_t across = (size_t)c->h_samp_factor, down = (size_t)c->v_samp_factor,
                     width = (c->width_in_blocks + across - 1) / across * across,
                     height = (c->height_in_blocks + down - 1) / down * down;
        if (several) bytes += width * height * sizeof(JBLOCK);
        bytes += width * DCTSIZE * down * (DCTSIZE + 2); // a row of blocks and what lies around it
        bytes +=
            (size_t)info->output_width * (size_t)info->max_v_samp_factor; // enlarged to the picture's width
    }
    return bytes;
}

static void read_rows(struct jpeg_decompress_struct *info, ImageSink *s) {
    JSAMPROW line = NULL;
    if (info->out_color_space == JCS_CMYK)
        line = info->mem->alloc_large((j_common_ptr)info, JPOOL_IMAGE, (size_t)info->output_width * 4);
    while (info->output_scanline < info->output_height) {
        JSAMPROW rgb = sink_row(s, info->output_scanline);
        jpeg_read_scanlines(info, line ? &line : &rgb, 1);
        if (line) row_from_cmyk(rgb, line, info->output_width);
        sink_put(s);
    }
}

static bool read_pixels(JpegReader *r, ImageSink *s, Error *err) {
    struct jpeg_decompress_struct *info = &r->info;
    bool cmyk = info->jpeg_color_space == JCS_CMYK || info->jpeg_color_space == JCS_YCCK;
    if (info->jpeg_color_space == JCS_UNKNOWN)
        return error_set(err, "JPEG: %d colour components, expected 1, 3 or 4", info->num_components);
    info->out_color_space = cmyk ? JCS_CMYK : JCS_RGB; // gray too becomes RGB
    s->full = (ImageSize){info->image_width, info->image_height};
    if (!image_size_check(s->full.width, s->full.height, "JPEG", err)) return false;
    if (s->how->reduced) reduce(info, s->how->rule);
    jpeg_calc_output_dimensions(info);
    s->beside = library_bytes(info);
    if (!sink_open(s, info->output_width, info->output_height, "JPEG", err)) return false;
    jpeg_start_decompress(info);
    read_rows(info, s);
    jpeg_finish_decompress(info);
    return true;
}

static bool read_jpeg(JpegReader *r, ImageSink *s, const void *bytes, size_t size, Error *err) {
    if (setjmp(r->leave)) return error_set(err, "JPEG: %s", r->message);
    jpeg_create_decompress(&r->info);
    r->info.progress = &r->progress;
    jpeg_mem_src(&r->info, bytes, size);
    jpeg_save_markers(&r->info, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(&r->info, TRUE);
    s->orientation = saved_orientation(&r->info);
    return read_pixels(r, s, err);
}

bool jpeg_decode(ImageSink *s, const void *bytes, size_t size, Error *err) {
    JpegReader r = {0};
    r.info.err = jpeg_std_error(&r.errors);
    r.errors.error_exit = on_error;
    r.errors.emit_message = on_message;
    r.progress.progress_monitor = on_progress;
    r.info.client_data = &r;
    bool ok = read_jpeg(&r, s, bytes, size, err);
    jpeg_destroy_decompress(&r.info);
    return ok;
}
