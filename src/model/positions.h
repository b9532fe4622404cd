// Carrying a table of learned positions over to another grid of patches.
#pragma once
#include <stdbool.h>
#include <stddef.h>

// The side of a square grid of n patches; 0 when n is no square.
size_t positions_side(size_t n);
// in [side_in², C] becomes out [side_out², C]: bicubic (a = -0.75) or bilinear, corners not aligned, no
// antialiasing, as torch.nn.functional.interpolate does it for SigLIP (transformers,
// interpolate_pos_encoding).
void positions_interpolate(float *out, size_t side_out, const float *in, size_t side_in, size_t C,
                           bool bicubic);
