#include "cmd/generate_flags.h"

#define AT(field) offsetof(GenerateFlags, field)
static const Field generate_fields[] = {
    {"checkpoint", FIELD_STRING, AT(checkpoint), NULL, 0, 0, NULL,
     "folder with config.json and model.safetensors, or its name on the Hub (found in the local cache); or, "
     "to answer without pictures, a decoder alone: a .gguf file or a folder with a Llama model"},
    {"hf_model", FIELD_STRING, AT(hf_model), NULL, 0, 0, NULL,
     "the same as a name on the Hugging Face Hub, found in the local cache"},
    {"adapter", FIELD_STRING, AT(adapter), NULL, 0, 0, NULL,
     "folder with PEFT's adapter_config.json and adapter_model.safetensors, merged into the weights"},
    {"lm_tokenizer", FIELD_STRING, AT(lm_tokenizer), NULL, 0, 0, NULL,
     "tokenizer instead of the model's own"},
    {"weights", FIELD_STRING, AT(weights), "f32", 0, 0, WEIGHTS_CHOICES,
     "what weights are kept in; f32 is exact, q8_0 takes about a quarter of it"},
    {"image", FIELD_STRING_REPEATED, AT(image), NULL, 0, 0, NULL, "picture file; may be given several times"},
    {"prompt", FIELD_STRING, AT(prompt), "What is this?", 0, 0, NULL,
     "the question; -: all of standard input"},
    {"prompt_file", FIELD_STRING, AT(prompt_file), NULL, 0, 0, NULL, "a file that holds the question"},
    {"system", FIELD_STRING, AT(system), NULL, 0, 0, NULL, "system message, instead of the template's own"},
    {"plain", FIELD_BOOL, AT(plain), "false", 0, 0, NULL,
     "no chat template: the text of the prompt is continued"},
    {"interactive", FIELD_BOOL, AT(interactive), "false", 0, 0, NULL,
     "a chat: lines of standard input are turns; /help lists commands"},
    {"context", FIELD_SIZE, AT(context), "0", 0, 1e7, NULL,
     "most tokens of a chat, or of a prompt and answer of --batch; 0: as the model was made for, at most "
     "4096"},
    {"batch", FIELD_STRING, AT(batch), NULL, 0, 0, NULL,
     "file of prompts, one JSON object a line: {\"id\", \"prompt\", \"images\": [paths]}"},
    {"out", FIELD_STRING, AT(out), NULL, 0, 0, NULL,
     "where --batch writes its answers, a line each; goes on behind what is there"},
    {"batch_size", FIELD_SIZE, AT(batch_size), "4", 1, 4096, NULL, "prompts of --batch that run together"},
    {"generations", FIELD_SIZE, AT(generations), "1", 1, 1e6, NULL, "answers to print"},
    {"max_new_tokens", FIELD_SIZE, AT(max_new_tokens), "300", 1, 1e6, NULL, "most tokens of one answer"},
    {"stop", FIELD_STRING_REPEATED, AT(stop), NULL, 0, 0, NULL,
     "text that ends the answer and is left out; may be given several times"},
    {"greedy", FIELD_BOOL, AT(greedy), "false", 0, 0, NULL, "always the likeliest token instead of sampling"},
    {"top_k", FIELD_INT, AT(top_k), "50", -1e9, 1e9, NULL,
     "sample from the k likeliest tokens; 0 or less: from all"},
    {"top_p", FIELD_NUMBER, AT(top_p), "0.9", 0, 1, NULL,
     "sample within this cumulative probability; 1: no limit"},
    {"temperature", FIELD_NUMBER, AT(temperature), "0.5", 1e-6, 1e6, NULL,
     "divides the logits before sampling"},
    {"seed", FIELD_U64, AT(seed), "0", 0, 0, NULL, "of the sampling; the same seed gives the same answers"},
    {"threads", FIELD_SIZE, AT(threads), "0", 0, 4096, NULL,
     "threads of the model; 0: one per physical core"},
    {"json", FIELD_BOOL, AT(json), "false", 0, 0, NULL,
     "one JSON object an answer: text, ids, counts, why it ended, speeds"},
    {"logits_out", FIELD_STRING, AT(logits_out), NULL, 0, 0, NULL,
     "safetensors file for the tokens and the logits each was chosen by"},
    {"verbose", FIELD_BOOL, AT(verbose), "false", 0, 0, NULL, "print speeds and memory"},
};
const FieldTable generate_table = {"Generation", generate_fields,
                                   sizeof generate_fields / sizeof *generate_fields};

// ---- flags as the model takes them ----

GenerateOptions generate_options(const GenerateFlags *f, const Session *s, uint64_t seed_offset) {
    return (GenerateOptions){.max_new_tokens = f->max_new_tokens,
                             .greedy = f->greedy,
                             .top_k = f->top_k > 0 ? (size_t)f->top_k : 0,
                             .top_p = f->top_p.value,
                             .temperature = f->temperature.value,
                             .seed = f->seed + seed_offset,
                             .stops = &s->end_of_turn,
                             .n_stops = s->end_of_turn >= 0};
}

size_t generate_context(const GenerateFlags *f, const Session *s) {
    const size_t made_for = s->config.lm_max_position_embeddings;
    if (f->context) return f->context;
    return made_for < 4096 ? made_for : 4096;
}

size_t generate_tiles(const Session *s, size_t positions) {
    return s->decoder_alone ? 0 : positions / s->config.mp_image_token_length;
}
