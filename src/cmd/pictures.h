// Pictures of a prompt, from files.
#pragma once
#include "cmd/session.h"

// Zeroed: none yet.
typedef struct Pictures {
    size_t count;
    Picture *items;
} Pictures;
// Free with pictures_free, also after a failure. A decoder alone takes no pictures: an error.
bool pictures_add(Pictures *p, const Session *s, const char *path, Error *err);
void pictures_free(Pictures *p);
