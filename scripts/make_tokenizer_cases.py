#!/usr/bin/env python3
"""Writes tests/golden/text/variants.jsonl: what the tokenizers library (pip install tokenizers==0.22.*) makes of texts
with tokenizers that differ from SmolLM2's in one respect each.

    scripts/make_tokenizer_cases.py tests/golden > tests/golden/text/variants.jsonl

A line is one tokenizer: {"name", "tokenizer": the object of tokenizer.json, "rows": [[text, ids, decoded], …]}.
"""
import copy
import json
import sys
import unicodedata

from tokenizers import Tokenizer

GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
OWN_TEXTS = [
    "", "I'LL he'll 12345 67", "the user is the assistant  the\n\nuser", "a<A><AB>b <A>  <AB>\t<A>", " <L> x <L>  <L>y", "<R>  x<R> <R>",
    "<L><R> <L> <R>", "x  <LR>  y<LR>z", "norm <N> and <NA> and <A>N>", "<|im_start|>user\n<A><|im_end|>", "<A<A><AB", "\u00a0<L>\u3000<R>\u2003z",
    "don't 'Re WE'VE", "co\u00e9lor \u4e2d\u6587 color", "x y z q w", "qqq zz qzq", "\U0001f600\U0001f600 \U0001f44d", "a,b;c--d__e", "\u180ea\u180e b\u0085c",
    "under_score CamelCase snake_case", "tab\tand\r\nline\r\n\r\n  end ", "1\u0661\u0662 \u00bd\u2167 3.14", "the the the", " the", "<NA><A><A>!<A>", "12 112 1212x12", "the ", "   ",
]


def byte_level(space=False, regex=True):
    return {"type": "ByteLevel", "add_prefix_space": space, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert}


def sequence(*steps):
    return {"type": "Sequence", "pretokenizers": list(steps)}


def with_steps(base, steps):
    base["pre_tokenizer"] = steps
    return base


def with_model(base, **fields):
    base["model"].update(fields)
    return base


def without_tokens(base, characters):
    """Takes tokens out of the vocabulary, and the merges that need them; ids are given anew."""
    gone = set()
    for token in base["model"]["vocab"]:
        if any(c in token for c in characters):
            gone.add(token)
    kept = [t for t in base["model"]["vocab"] if t not in gone]
    base["model"]["vocab"] = {t: i for i, t in enumerate(kept)}
    base["model"]["merges"] = [m for m in base["model"]["merges"] if not gone & {m[0], m[1], m[0] + m[1]}]
    return base


def with_merge(base, left, right):
    base["model"]["vocab"][left + right] = len(base["model"]["vocab"])
    base["model"]["merges"].append([left, right])
    return base


def with_vocab(base, *tokens):
    for token in tokens:
        base["model"]["vocab"][token] = len(base["model"]["vocab"])
    return base


def with_added(base, *tokens):
    for content, fields in tokens:
        token = {"id": len(base["model"]["vocab"]) + len(base["added_tokens"]) - 3, "content": content, "single_word": False}
        base["added_tokens"].append({**token, "lstrip": False, "rstrip": False, "normalized": False, "special": True, **fields})
    return base


def variants(base):
    new = lambda: copy.deepcopy(base)
    digits = {"type": "Digits", "individual_digits": True}
    plain = byte_level(regex=False)
    yield "gpt2", with_steps(new(), byte_level())
    yield "no_regex", with_steps(new(), plain)
    yield "prefix_space", with_steps(new(), sequence(digits, byte_level(space=True)))
    yield "digit_runs", with_steps(
        with_merge(new(), "1", "2"), sequence({"type": "Digits", "individual_digits": False}, byte_level()))
    yield "gpt2_by_pattern", with_steps(new(), sequence(digits, split({"Regex": GPT2}), plain))
    yield "llama3", with_steps(new(), sequence(split({"Regex": LLAMA3}), plain))
    yield "split_text", with_steps(new(), sequence(split({"String": "e."}), split({"String": " "}), byte_level()))
    yield "split_removed", with_steps(new(), sequence(split({"Regex": r"\s+"}, "Removed"), plain))
    yield "split_inverted", with_steps(new(), sequence(split({"Regex": "[a-z]+"}, "Isolated", True), plain))
    yield "split_kept", with_steps(new(), sequence(split({"Regex": "[a-z ]+"}, "Removed", True), plain))
    yield "not_space", with_steps(new(), sequence(split({"Regex": r"[^\s]+|\S"}), plain))
    yield "words", with_steps(new(), sequence(split({"Regex": r"\w+"}, "Removed"), plain))
    yield "ignore_merges", with_model(with_vocab(new(), "\u0120the\u0120user", "qqq", "\u0120color"), ignore_merges=True)
    yield "vanishing", without_tokens(new(), "qz")
    yield "unknown", with_model(without_tokens(new(), "qz"), unk_token="<|endoftext|>")
    yield "unknown_fused", with_model(without_tokens(new(), "qz"), unk_token="<|endoftext|>", fuse_unk=True)
    # of \u00f0 both bytes have a token, of \u00a3 only the first
    fallback = with_vocab(without_tokens(new(), "qz\u00f0\u00a3"), *[f"<0x{b:02X}>" for b in b"qz\xc3\xb0\xc2"])
    yield "byte_fallback", with_model(fallback, byte_fallback=True)
    yield "added", with_added(
        new(), ("<A>", {}), ("<AB>", {}), ("<A>!", {}), ("<L>", {"lstrip": True}), ("<R>", {"rstrip": True, "special": False}),
        ("<LR>", {"lstrip": True, "rstrip": True}), ("<N>", {"normalized": True, "special": False}),
        ("<NA><A", {"normalized": True}), ("the user", {"normalized": True, "special": False}), ("user\n<A", {}))


def main():
    root = sys.argv[1]
    base = json.load(open(f"{root}/tokenizer/bytes/tokenizer.json"))
    rows = [json.loads(line) for line in open(f"{root}/text/encode.jsonl")]
    texts = OWN_TEXTS + [row["text"] for row in rows if len(row["text"]) <= 60][::7]
    for name, spec in variants(base):
        tokenizer = Tokenizer.from_str(json.dumps(spec))
        out = []
        for text in texts:
            # a pattern's \w and \p go by PCRE2's Unicode version, which may be older than the library's
            if '"Regex"' in json.dumps(spec) and any(unicodedata.category(c) == "Cn" for c in text):
                continue
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            out.append([text, ids, tokenizer.decode(ids, skip_special_tokens=True)])
        print(json.dumps({"name": name, "tokenizer": spec, "rows": out}, separators=(",", ":")))


main()
