#include "cmd/cmd.h"

#include <stddef.h>

const Command commands[] = {
    {"train", cmd_train, "train a model on a data set, or go on from a checkpoint"},
    {"generate", cmd_generate, "answer questions about pictures: one, a chat, or a file of them"},
    {"eval", cmd_eval, "exact match of a checkpoint on a test set, beside wrong pictures and guessing"},
    {"export", cmd_export, "a checkpoint in the layout of nanoVLM, transformers or llama.cpp"},
    {"import", cmd_import, "a SmolVLM folder of transformers as a nanoVLM checkpoint"},
    {"synth", cmd_synth, "draw a synthetic data set of pictures with questions and answers"},
    {"data", cmd_data, "look at a data set before training: what is in it, what is dropped, rows as a page"},
    {"memory", cmd_memory, "what training with a configuration takes, without running"},
    {"bench", cmd_bench, "measure a part of the program; `vlm bench` lists the parts"},
    {"forward", cmd_forward, "run a model on tokens and tiles from a file, write its logits"},
    {"inspect", cmd_inspect, "what is in a file or folder of weights, rows or tokens"},
    {"config", cmd_config, "print the configuration that flags, presets and files give"},
    {"version", cmd_version, "version, libraries and instruction level"},
    {"help", cmd_help, "this list, or `vlm help COMMAND`"},
    {NULL, NULL, NULL},
};
