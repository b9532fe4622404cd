// `vlm version`: what this program was built from and which instructions it uses here.
#include "base/log.h"
#include "cmd/cmd.h"
#include "config/fields.h"
#include "format/arrow.h"
#include "ops/cpu/cpu.h"

#include <stdio.h>
#include <string.h>

#include <cairo.h>
#include <dnnl.h>
#include <gif_lib.h>
#include <jpeglib.h>
#ifdef VLM_MPI
#include <mpi.h>
#endif
#include <png.h>
#ifdef VLM_TIFF
#include <tiffio.h>
#endif
#include <webp/decode.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define TEXT(x)        #x
#define TEXT_OF(macro) TEXT(macro)

static void print_row(const char *name, const char *value) {
    printf("%-14s %s\n", name, value);
}

static const char *mpi_version(void) {
#ifdef VLM_MPI
    static char text[MPI_MAX_LIBRARY_VERSION_STRING];
    int n;
    MPI_Get_library_version(text, &n); // allowed before MPI_Init
    text[strcspn(text, ",\n")] = 0;
    return text;
#else
    return "not built in; ranks meet through sockets";
#endif
}

static void print_libraries(void) {
    char text[64];
    print_row("Arrow", arrow_version());
    const dnnl_version_t *dnnl = dnnl_version();
    snprintf(text, sizeof text, "%d.%d.%d", dnnl->major, dnnl->minor, dnnl->patch);
    print_row("oneDNN", text);
    print_row("libjpeg-turbo", TEXT_OF(LIBJPEG_TURBO_VERSION));
    print_row("libpng", png_get_libpng_ver(NULL));
    int webp = WebPGetDecoderVersion();
    snprintf(text, sizeof text, "%d.%d.%d", webp >> 16, webp >> 8 & 0xff, webp & 0xff);
    print_row("libwebp", text);
    snprintf(text, sizeof text, "%d.%d.%d", GIFLIB_MAJOR, GIFLIB_MINOR, GIFLIB_RELEASE);
    print_row("giflib", text);
#ifdef VLM_TIFF
    print_row("libtiff",
              sscanf(TIFFGetVersion(), "LIBTIFF, Version %63[0-9.]", text) == 1 ? text : "built in");
#else
    print_row("libtiff", "not built in");
#endif
    pcre2_config(PCRE2_CONFIG_VERSION, text);
    print_row("PCRE2", text);
    print_row("jansson", jansson_version_str());
    print_row("cairo", cairo_version_string());
}

int cmd_version(int argc, char **argv) {
    Error err;
    if (!flags_parse(NULL, 0, argc, argv, NULL, &err)) {
        log_error("%s", err.text);
        return EXIT_USAGE;
    }
    print_row("vlm", VLM_VERSION);
    print_row("compiler", VLM_COMPILER);
    print_row("build type", VLM_BUILD_TYPE);
    Backend *be;
    const bool has_cpu = backend_cpu_create(&be, 0, &err);
    print_row("cpu", has_cpu ? be->detail : err.text);
    if (has_cpu) backend_destroy(be);
    print_row("CUDA", "not built in");
    print_row("MPI", mpi_version());
    print_libraries();
    const bool written = output_flush(&err);
    if (!written) log_error("%s", err.text);
    return written && has_cpu ? EXIT_DONE : EXIT_FAILED;
}
