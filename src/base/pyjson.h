// Python's way of writing JSON and floats, which config.json and run names follow to the byte.
#pragma once
#include <jansson.h>
#include <stdio.h>

// json.dumps(value, indent=indent) with ensure_ascii=True; indent < 0: one line, ", " and ": " as separators.
// Caller frees.
char *pyjson_dump(const json_t *value, int indent);
// The same and a line's end to a stream; gives up the reference to the value.
void pyjson_print(FILE *out, json_t *value, int indent);
// repr(float): the shortest digits that read back as the same double, "1e-05", "0.00512", "1e+16", "5.0",
// "nan", "inf".
void py_repr_double(char text[32], double value);
