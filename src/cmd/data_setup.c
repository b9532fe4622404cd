#include "cmd/data_setup.h"
#include "base/log.h"
#include "cmd/backbones.h"
#include "cmd/cmd.h"
#include "data/loader.h"

static bool open_setup(DataSetup *s, Error *err) {
    const VLMConfig *vlm = &s->config.vlm;
    const TrainConfig *train = &s->config.train;
    return tokenizer_open(&s->tokenizer, vlm->lm_tokenizer, &vlm->vlm_extra_tokens, err) &&
           sample_rules_init(&s->rules, &s->config, s->tokenizer, err) &&
           dataset_open(&s->data, train->train_dataset_path, &train->train_dataset_name, err);
}

static void close_setup(DataSetup *s) {
    dataset_close(s->data);
    tokenizer_free(s->tokenizer);
    config_free(&s->config);
}

int data_command_run(FieldSet own, int argc, char **argv, DataFunction run) {
    DataSetup s = {0};
    Error err;
    int status = EXIT_USAGE;
    config_init(&s.config);
    fields_set_defaults(own);
    if (config_parse(&s.config, own, argc, argv, &err) && train_config_check(&s.config, &err)) {
        const bool ok = open_setup(&s, &err) && run(&s, own.base, &err) && output_flush(&err);
        status = ok ? EXIT_DONE : EXIT_FAILED;
    }
    if (status != EXIT_DONE) log_error("%s", err.text);
    close_setup(&s);
    fields_free(own);
    return status;
}

bool data_setup_rows(RowStream **rows, DataSetup *s, Error *err) {
    return row_stream_open(rows, s->data, (RowStreamSettings){0}, err);
}

SampleRules data_setup_any_length(TrainConfig *any_length, const DataSetup *s) {
    SampleRules rules = s->rules;
    *any_length = s->config.train;
    if (!rules.truncate) any_length->max_sample_length = SIZE_MAX;
    rules.train = any_length;
    return rules;
}

PackLimits data_setup_limits(const Config *c) {
    return (PackLimits){c->vlm.lm_max_length, c->train.max_images_per_knapsack,
                        loader_max_tiles(c) / c->train.batch_size};
}

size_t data_setup_files(const Dataset *data) {
    size_t files = 0;
    for (size_t i = 0; i < dataset_group_count(data); i++)
        files += i == 0 || dataset_group(data, i)->file != dataset_group(data, i - 1)->file;
    return files;
}
