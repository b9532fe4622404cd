// Where a decoder puts the rows of a picture, from the top: into a picture, or, where the rule makes that
// smaller, into its resize, which keeps only the rows that it mixes. Only image/*.c include this.
#pragma once
#include "image/image.h"
#include "image/resize.h"

// Begins as {.how = …}. What a decoder says: full and, as soon as it knows, orientation; whole and beside.
typedef struct ImageSink {
    const ImageReading *how;
    ImageSize full;  // in the file
    int orientation; // orientation_of; 0: not known, upright
    bool whole;    // the picture is wanted as it is: its rows do not come once and in order, or it is turned
    size_t beside; // bytes taken beside the image: first what the decoder takes, the sink adds what it takes
    Image image;   // what comes of it
    bool resizes;  // whether the rows go through a resize
    Resizer resizer; // if so
    uint8_t *row;    // the row that is to be put into it, for sink_row alone
} ImageSink;

// width x height: as decoded. Errors as of image_alloc.
bool sink_open(ImageSink *s, size_t width, size_t height, const char *format, Error *err);
// Room for row y [width, 3]. A picture that is whole has one for each, and they may be filled in any order.
uint8_t *sink_row(ImageSink *s, size_t y);
void sink_put(ImageSink *s); // the row is filled
void sink_free(ImageSink *s);
