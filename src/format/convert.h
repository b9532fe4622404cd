// Values of the floating dtypes as they lie in files, turned into float.
#pragma once
#include "tensor/dtype.h"

#include <stdbool.h>

bool convert_is_float(Dtype dtype); // F32, F16, BF16 or F64
// count values at any address, aligned or not. dtype must be a floating one. F16 and BF16 are exact, F64 is
// rounded to nearest; infinities and NaN keep what they are.
void convert_to_f32(float *out, Dtype dtype, const void *values, size_t count);
