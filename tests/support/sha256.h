// SHA-256 (FIPS 180-4), to compare large results with reference data by their hash.
#pragma once
#include <stddef.h>

void sha256_hex(char hex[65], const void *bytes, size_t size); // 64 lower-case digits and a '\0'
