// What `vlm data` and `vlm bench data` stand on: a configuration, its tokenizer, the rules that make samples
// of rows, and the data set itself, read row by row in the order of its files.
#pragma once
#include "data/dataset.h"
#include "data/packer.h"
#include "data/row_stream.h"
#include "data/sample.h"

typedef struct DataSetup {
    Config config;
    Tokenizer *tokenizer;
    SampleRules rules; // of config
    Dataset *data;
} DataSetup;

typedef bool (*DataFunction)(DataSetup *s, const void *flags, Error *err);
// A whole command: parses the command line (own: the command's flags beside those of a run), opens tokenizer
// and data set, runs with own.base, says what went wrong, closes all. Returns an exit status.
int data_command_run(FieldSet own, int argc, char **argv, DataFunction run);

// All rows in the order of the files, validation rows among them; caller closes.
bool data_setup_rows(RowStream **rows, DataSetup *s, Error *err);
// The rules with samples of any length kept, so that those that are too long can be measured; but where the
// run would cut them (long_samples truncate), its own. *any_length is theirs as long as they are used.
SampleRules data_setup_any_length(TrainConfig *any_length, const DataSetup *s);
PackLimits data_setup_limits(const Config *config); // what a sequence of the loader may hold
size_t data_setup_files(const Dataset *data);       // files that hold rows
