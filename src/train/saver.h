// Checkpoints with the trainer's state. A folder holds config.json and model.safetensors (nanoVLM's, which
// reads nothing else), run.json (everything the run was told, readable by --config), state-rank0.safetensors
// (moments as "m.<parameter>" and "v.<parameter>", the place in the data as "loader"; with adapters, which
// model.safetensors holds merged, "w.<parameter>" of them and of the matrices beneath) and, written last,
// trainer.json (train/run_state.h). It is moved into place as a whole (model/checkpoint.h).
//
// In the background a save costs training the time of a copy in memory; a thread writes it. There is one at a
// time.
#pragma once
#include "base/vec.h"
#include "train/run_state.h"

#include <pthread.h>
#include <stdatomic.h>

typedef struct SavedTensor {
    char name[88];
    Tensor tensor;  // the trainer's
    char *copy;     // NULL: written directly
    size_t same_as; // the parameter whose copy this is; SIZE_MAX: its own
} SavedTensor;

typedef struct Saver {
    const Trainer *trainer; // borrowed
    SavedTensor *tensors;   // the parameters, then what the state holds
    size_t n_tensors;
    char *memory;       // of all copies; NULL: nothing is copied
    char **m, **v;      // [parameters]: copies of the moments, for what comes from other ranks
    bool in_background; // else saves are written at once
    char *config;       // text of run.json
    size_t keep;        // newest checkpoints that stay; 0: all
    // the save under way
    char *folder, *state, best[32];
    CharVec place;
    pthread_t thread;
    bool is_busy, is_threaded;
    atomic_bool is_done;
    bool ok;
    Error err;
} Saver;

size_t saver_disk_bytes(const Params *p, Dtype moments); // of a folder, but for headers and small files
// Gets the memory for the copy when config says save_in_background.
bool saver_open(Saver *s, const Trainer *trainer, const Config *config, Error *err);
void saver_close(Saver *s); // waits for a save under way
// Begins to save to `folder`, between two updates. `place`: bytes of the loader's state, taken over and
// emptied. None may be under way. Moments that ranks share lie in m and v already (train/moment_shares.h).
// Later the older checkpoints of the folder's parent beyond `keep` are removed, but not
// state->best_checkpoint.
void saver_begin(Saver *s, const char *folder, const RunState *state, CharVec *place);
// Whether a save came to its end (wait: waits for it): then *folder (the caller frees it), *ok and err tell.
bool saver_collect(Saver *s, bool wait, char **folder, bool *ok, Error *err);
