// A list of strings that it owns; zeroed: empty.
#pragma once
#include <stddef.h>

typedef struct StringList {
    size_t count;
    char **items;
} StringList;

void string_list_add(StringList *list, char *owned);
void string_list_free(StringList *list); // strings and all; the list is empty again
