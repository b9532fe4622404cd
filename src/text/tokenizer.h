// Hugging Face fast tokenizers from tokenizer.json: byte-level BPE with added and special tokens.
#pragma once
#include "base/vec.h"
#include "config/fields.h"

typedef struct Tokenizer Tokenizer;

// path: a folder with tokenizer.json (and tokenizer_config.json), the file itself, or a .gguf file that
// carries a byte-level BPE tokenizer. extra_tokens are added as special tokens behind the file's own, in
// their order (nanoVLM: get_tokenizer); an entry whose text is already a token keeps its id. May be NULL. A
// Tokenizer is constant after loading: any number of threads may use it.
bool tokenizer_load(Tokenizer **t, const char *path, const TokenMap *extra_tokens, Error *err);
void tokenizer_free(Tokenizer *t);
size_t tokenizer_vocab_size(const Tokenizer *t);                   // highest id + 1, added tokens included
int32_t tokenizer_token_id(const Tokenizer *t, const char *token); // -1 when there is none
int32_t tokenizer_eos_id(const Tokenizer *t); // <|im_end|> by tokenizer_config.json; also the pad token
// The Jinja text of chat_template.jinja or of tokenizer_config.json beside it; NULL when there is none.
const char *tokenizer_chat_template(const Tokenizer *t);
// How many tokens its post-processor would put around a single text (Llama 3: <|begin_of_text|>).
size_t tokenizer_tokens_around(const Tokenizer *t);
// The token that its post-processor puts in front of a text (Llama 3: <|begin_of_text|>); -1: none.
int32_t tokenizer_first_id(const Tokenizer *t);
// Whether a text is always cut between this character and the token behind it, so that both sides can be
// encoded alone.
bool tokenizer_cuts_before(const Tokenizer *t, const char *token, char before);
// The id of an extra token by its name ("image_token", "global_image_token", "r1c1"), -1 when there is none.
int32_t tokenizer_extra_id(const Tokenizer *t, const char *name);
const char *tokenizer_extra_text(const Tokenizer *t, const char *name); // its text, NULL when there is none
// Appends the ids of text (special tokens inside it are recognised, nothing is added around it).
void tokenizer_encode(const Tokenizer *t, const char *text, size_t size, Int32Vec *ids);
// Appends the raw bytes of the tokens to out; not yet checked as UTF-8 (a token may hold half a character).
void tokenizer_decode_bytes(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special,
                            CharVec *out);
// The text, with U+FFFD for each maximal invalid part, as Hugging Face's decode; with
// clean_up_tokenization_spaces in tokenizer_config.json it takes out spaces before marks and contractions.
// Caller frees.
char *tokenizer_decode(const Tokenizer *t, const int32_t *ids, size_t n, bool skip_special);
