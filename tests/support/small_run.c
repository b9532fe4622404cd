#include "support/small_run.h"
#include "support/golden.h"

#include "base/memory.h"

#include <stdlib.h>

int make_small_run_data(size_t rows) {
    make_test_folder(NULL);
    char *line = mem_printf("synth --out %s/data --rows %zu --test_rows 0 --seed 3", test_folder, rows);
    program_expect(line, 0, "", "");
    free(line);
    return 0;
}

char *small_run_line(const char *run, const char *more) {
    char *tokenizer = golden_path("model/tokenizer");
    char *line = mem_printf("train --preset tiny --vit_n_blocks 1 --lm_n_blocks 1 --lm_max_length 128 "
                            "--max_sample_length 128 --batch_size 2 --gradient_accumulation_steps 2 "
                            "--threads 1 --train_dataset_path %s/data/train --vlm_checkpoint_path %s/runs "
                            "--lm_tokenizer %s --run_name %s %s",
                            test_folder, test_folder, tokenizer, run, more);
    free(tokenizer);
    return line;
}

char *small_run_file(const char *run, const char *name) {
    return mem_printf("%s/runs/%s/%s", test_folder, run, name);
}
