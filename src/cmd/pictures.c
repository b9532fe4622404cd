#include "cmd/pictures.h"

#include <stdlib.h>

bool pictures_add(Pictures *p, const Session *s, const char *path, Error *err) {
    if (s->decoder_alone)
        return error_set(err,
                         "%s: %s is a decoder alone and sees no pictures; give a vision-language checkpoint",
                         path, s->path);
    p->items = mem_resize(p->items, (p->count + 1) * sizeof *p->items);
    if (!picture_load(&p->items[p->count], path, &s->config, err)) return false;
    p->count++;
    return true;
}

void pictures_free(Pictures *p) {
    for (size_t i = 0; i < p->count; i++) picture_free(&p->items[i]);
    free(p->items);
    *p = (Pictures){0};
}
