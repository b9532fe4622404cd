#include "base/string_list.h"
#include "base/memory.h"

#include <stdlib.h>

void string_list_add(StringList *list, char *owned) {
    list->items = mem_resize(list->items, (list->count + 1) * sizeof *list->items);
    list->items[list->count++] = owned;
}

void string_list_free(StringList *list) {
    for (size_t i = 0; i < list->count; i++) free(list->items[i]);
    free(list->items);
    *list = (StringList){0};
}
