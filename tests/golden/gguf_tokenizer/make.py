#!/usr/bin/env python3
"""Makes the reference rows of tests/test_gguf_text.c: what llama.cpp (llama-cpp-python 0.3.36, gguf 0.19.0) makes of texts with
one vocabulary and each pre-tokenizer it has a name for. The vocabulary (tokenizers 0.22) was trained on lines that were not
cut, so that its merges reach over whatever a pre-tokenizer cuts at.

    make.py        (run in this folder, after tests/golden/text)

tokenizer.json is the vocabulary; a line of rows.jsonl is {"text", "ids": {name: ids}}, names with the same ids together."""

import ctypes
import json
import random
import tempfile
import unicodedata

import gguf
from llama_cpp import Llama, llama_cpp
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

NAMES = ["smollm", "starcoder", "refact", "codeshell", "gpt-2", "phi-2", "mpt", "olmo", "llama-bpe", "llama3", "llama-v3",
         "dbrx", "smaug-bpe", "qwen2", "stablelm2", "default"]  # fmt: skip
OWN_TEXTS = ["abc123456def", "1234567", "don't WE'LL I'm", "x  y   z\n\n  q", "!!!...a,b;c", "  \t\n 12 34567", "a\u00a0b", "(1,234.50)",
             "$5+3<=~|`x`", "1\u0661\u0662 \u00bd\u2167 3.14", "tab\tand\r\nline\r\n\r\n  end ", "'S's 'Ll'lL", " \u3000 a", "x=1234;y=56",
             "a qzqz b"]  # fmt: skip

random.seed(1)
texts = [json.loads(line)["text"] for line in open("../text/encode.jsonl")]
# Characters newer than Unicode 14 are of another class in llama.cpp's older tables.
texts = [t for t in texts if "<" not in t and "\0" not in t and len(t) < 80 and all(unicodedata.category(c) != "Cn" for c in t)]
chosen = OWN_TEXTS + random.sample(texts, 50) + [random.choice(texts) + random.choice(OWN_TEXTS) for _ in range(40)]
numbers = [str(random.randrange(10 ** random.randrange(1, 9))) + random.choice([" ", ",", ".", "'s", ""]) for _ in range(3000)]

trained = Tokenizer(models.BPE())
trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
trainer = trainers.BpeTrainer(vocab_size=1100, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False,
                              special_tokens=["<|im_end|>"], max_token_length=12)  # fmt: skip
trained.train_from_iterator(numbers + 40 * chosen, trainer)
tokenizer = json.loads(trained.to_str())
tokenizer["model"]["vocab"]["\u0120qzqz"] = len(tokenizer["model"]["vocab"])  # no merge leads to it: where merges are ignored
tokenizer["model"]["merges"] = [" ".join(m) for m in tokenizer["model"]["merges"]]
json.dump(tokenizer, open("tokenizer.json", "w"), separators=(",", ":"))
vocabulary = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)


@ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)
def quiet(*_):
    pass


llama_cpp.llama_log_set(quiet, None)


def load(pre, path):
    w = gguf.GGUFWriter(path, "llama")
    for add, value in [(w.add_block_count, 1), (w.add_context_length, 64), (w.add_embedding_length, 8),
                       (w.add_feed_forward_length, 8), (w.add_head_count, 2), (w.add_layer_norm_rms_eps, 1e-5),
                       (w.add_tokenizer_model, "gpt2"), (w.add_tokenizer_pre, pre), (w.add_token_list, vocabulary),
                       (w.add_token_types, [3] + [1] * (len(vocabulary) - 1)),
                       (w.add_token_merges, tokenizer["model"]["merges"]), (w.add_eos_token_id, 0)]:  # fmt: skip
        add(value)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    return Llama(path, vocab_only=True, verbose=False)


with tempfile.NamedTemporaryFile(suffix=".gguf") as file, open("rows.jsonl", "w") as rows:
    ids = {}
    for name in NAMES:
        model = load(name, file.name)
        ids[name] = [model.tokenize(t.encode(), add_bos=False, special=True) for t in chosen]
    for i, text in enumerate(chosen):
        groups = {}
        for name in NAMES:
            groups.setdefault(json.dumps(ids[name][i]), []).append(name)
        rows.write(json.dumps({"text": text, "ids": {" ".join(n): json.loads(k) for k, n in groups.items()}}, separators=(",", ":")))
        rows.write("\n")
