// nanoVLM's balanced greedy knapsack (data/advanced_datasets.py: _balanced_greedy_knapsack), by itself.
#pragma once
#include "data/packer.h"

// items: n of them, sorted longest first (stably). bag_of[i] becomes the number of the knapsack of item i:
// the least loaded one in which it fits (ties: the lowest number), else a new one, whatever its size. Starts
// with ceil(total / limits->length) + delta knapsacks; returns how many there are in the end.
size_t nanovlm_knapsacks(size_t *bag_of, const PackItem *items, size_t n, const PackLimits *limits,
                         size_t delta);
