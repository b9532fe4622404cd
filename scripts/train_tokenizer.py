#!/usr/bin/env python3
"""Trains the small byte-level BPE tokenizer of assets/tokenizer on the texts of a data set.

    vlm synth --out demo/data
    scripts/train_tokenizer.py --out assets/tokenizer demo/data/train/*.parquet

A corpus file is Parquet with a column texts (list of {user, assistant}; needs pyarrow), or plain text in which each
turn stands as ChatML does, special tokens written out. The vocabulary is the special tokens, the 256 bytes in their
order, then the merges in theirs. Text is cut at special tokens, digits and by GPT-2's pattern, as the tokenizer does when
it encodes. The same corpus gives the same files.
"""
import argparse
import collections
import json
import os
import re

SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MODEL_MAX_LENGTH = 4096
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CUT = re.compile("(" + "|".join(map(re.escape, SPECIAL)) + ")")
# Letters and numbers by Python's own classes: close enough to count words.
PIECE = re.compile(r"\d|'(?:s|t|re|ve|m|ll|d)| ?[^\W\d_]+| ?(?:[^\s\w]|_)+|\s+(?!\S)|\s+")


def byte_alphabet():
    """The printable character that stands for each byte (GPT-2)."""
    own = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [b for b in range(256) if b not in own]
    return {**{b: chr(b) for b in own}, **{b: chr(256 + i) for i, b in enumerate(others)}}


def chat_texts(path):
    """The ChatML texts of a corpus file."""
    if not path.endswith(".parquet"):
        yield open(path, encoding="utf-8", newline="").read()
        return
    import pyarrow.parquet

    for turns in pyarrow.parquet.read_table(path, columns=["texts"])["texts"].to_pylist():
        for turn in turns or []:
            for role in ("user", "assistant"):
                yield f"<|im_start|>{role}\n{turn[role]}<|im_end|>\n"


def count_pieces(paths):
    pieces = collections.Counter()
    for path in paths:
        for text in chat_texts(path):
            for part in CUT.split(text):
                if part not in SPECIAL:
                    pieces.update(PIECE.findall(part))
    return pieces


def merge_word(word, pair):
    out, i = [], 0
    while i < len(word):
        if word[i : i + 2] == pair:
            out.append(pair[0] + pair[1])
            i += 2
        else:
            out.append(word[i])
            i += 1
    return tuple(out)


def train(pieces, n_merges):
    """The most frequent pair again and again; of equally frequent ones the first in alphabetical order."""
    alphabet = byte_alphabet()
    words = {tuple(alphabet[b] for b in piece.encode()): n for piece, n in sorted(pieces.items())}
    merges = []
    for _ in range(n_merges):
        pairs = collections.Counter()
        for word, n in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += n
        if not pairs:
            raise SystemExit(f"the corpus gives only {len(merges)} merges, {n_merges} are wanted: use a larger one")
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged = collections.Counter()
        for word, n in words.items():
            merged[merge_word(word, best)] += n
        words = dict(merged)
    return merges, words


def added_token(content):
    return {"content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


def tokenizer_json(merges):
    tokens = SPECIAL + [byte_alphabet()[b] for b in range(256)] + [a + b for a, b in merges]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    digits = {"type": "Digits", "individual_digits": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, **added_token(token)} for i, token in enumerate(SPECIAL)],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [digits, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [f"{a} {b}" for a, b in merges],
        },
    }


def tokenizer_config():
    return {
        "add_prefix_space": False,
        "added_tokens_decoder": {str(i): added_token(token) for i, token in enumerate(SPECIAL)},
        "bos_token": SPECIAL[1],
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": False,
        "eos_token": SPECIAL[2],
        "model_max_length": MODEL_MAX_LENGTH,
        "pad_token": SPECIAL[2],
        "tokenizer_class": "PreTrainedTokenizerFast",
        "unk_token": SPECIAL[0],
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, help="folder that tokenizer.json and tokenizer_config.json go to")
    parser.add_argument("--vocab_size", type=int, default=512, help="tokens in all (default 512)")
    parser.add_argument("corpus", nargs="+", help="Parquet files, or text files with ChatML turns")
    args = parser.parse_args()
    n_merges = args.vocab_size - len(SPECIAL) - 256
    pieces = count_pieces(args.corpus)
    merges, words = train(pieces, n_merges)
    os.makedirs(args.out, exist_ok=True)
    for name, value in (("tokenizer.json", tokenizer_json(merges)), ("tokenizer_config.json", tokenizer_config())):
        with open(os.path.join(args.out, name), "w", encoding="utf-8") as file:
            json.dump(value, file, ensure_ascii=False, indent=1)
            file.write("\n")
    n_bytes = sum(len(piece.encode()) * n for piece, n in pieces.items())
    n_tokens = sum(len(word) * n for word, n in words.items())
    print(f"{args.vocab_size} tokens, {n_merges} merges: {n_bytes} bytes in {n_tokens} tokens, {n_bytes / n_tokens:.2f} a token")


main()
