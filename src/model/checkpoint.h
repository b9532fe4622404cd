// A model folder as nanoVLM saves it: config.json and model.safetensors. The trainer puts its own files
// beside them (train/saver.h).
#pragma once
#include "model/vlm.h"

// Writes the folder under a temporary name, syncs it and moves it into place, so that a kill at any moment
// leaves the old folder or the whole new one. On failure the old one stands and nothing of the new one is
// left.
bool checkpoint_save(const Vlm *m, const char *folder, Error *err);
// The same with other contents: `write` puts the files into the folder it is given. Files of other names than
// a checkpoint's are not removed after a failure.
bool checkpoint_write(const char *folder, bool (*write)(void *context, const char *folder, Error *err),
                      void *context, Error *err);
void checkpoint_remove(
    const char *folder); // a checkpoint's files and, when nothing else is in it, the folder
// What to open for a folder's weights: its model.safetensors, or the folder where an index names shards.
// Caller frees.
bool checkpoint_find_weights(char **path, const char *folder, Error *err);
// Only the weights, into a model of the same configuration.
bool checkpoint_load_weights(Vlm *m, const char *folder, Error *err);
// Into a model with more vocabulary or another grid of patches (params_load_changed).
bool checkpoint_load_changed(Vlm *m, const char *folder, const char *interpolate, uint64_t seed, Error *err);
// The configuration of a folder, over the defaults. config must be initialised.
bool checkpoint_load_config(VLMConfig *config, const char *folder, Error *err);
