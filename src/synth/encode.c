#include "synth/synth.h"
#include "image/image.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

typedef struct JpegErrors {
    struct jpeg_error_mgr manager; // first, so that libjpeg's pointer to it is one to this
    jmp_buf leave;
    char text[JMSG_LENGTH_MAX];
} JpegErrors;

static void jpeg_failed(j_common_ptr jpeg) {
    JpegErrors *errors = (JpegErrors *)jpeg->err;
    errors->manager.format_message(jpeg, errors->text);
    longjmp(errors->leave, 1);
}

static bool encode_jpeg(unsigned char **bytes, size_t *n_bytes, const Image *image, Error *err) {
    struct jpeg_compress_struct jpeg;
    JpegErrors errors;
    unsigned long room = 0;
    *bytes = NULL;
    jpeg.err = jpeg_std_error(&errors.manager);
    errors.manager.error_exit = jpeg_failed;
    if (setjmp(errors.leave)) {
        jpeg_destroy_compress(&jpeg);
        free(*bytes);
        return error_set(err, "JPEG: %s", errors.text);
    }
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, bytes, &room);
    jpeg.image_width = (JDIMENSION)image->width;
    jpeg.image_height = (JDIMENSION)image->height;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 92, TRUE);
    jpeg.comp_info[0].h_samp_factor = jpeg.comp_info[0].v_samp_factor =
        1; // small shapes need their whole colour
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < jpeg.image_height) {
        JSAMPROW row = image->rgb + 3 * image->width * jpeg.next_scanline;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    *n_bytes = room;
    return true;
}

bool scene_encode(unsigned char **bytes, size_t *n_bytes, const Scene *p, size_t size, const char *format,
                  Error *err) {
    Image image = {.width = size, .height = size};
    if (!scene_draw(&image.rgb, p, size, err)) return false;
    bool jpeg = !strcmp(format, "jpeg");
    bool ok = jpeg ? encode_jpeg(bytes, n_bytes, &image, err) : image_encode_png(bytes, n_bytes, &image, err);
    free(image.rgb);
    return ok;
}
