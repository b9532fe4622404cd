#!/usr/bin/env python3
"""Small tokenizers built as those of well-known models are, and what the tokenizers library makes of texts with them.

    scripts/make_tokenizer_variants.py tests/golden/tokenizer_variants              writes all of it
    scripts/make_tokenizer_variants.py --rows 5000 FOLDER                           rows.jsonl into FOLDER, for its tokenizer.json

Needs tokenizers 0.22 and transformers 4. A folder has tokenizer.json, tokenizer_config.json and rows.jsonl, a line a text:
[text, ids, decoded without special tokens]. Beside the folders, word.json has the ranges of code points that an added token
with single_word may not touch, and nfc.jsonl lines [text, text in NFC].
"""
import argparse
import json
import os
import random
import unicodedata

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers, Regex
from transformers import PreTrainedTokenizerFast

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
ANYTHING = r" ?\S+|\s+"
TRAINING = """The quick brown fox jumps over the lazy dog; it doesn't matter, we've seen that they'll return in 2024 or 1999.
Der schnelle braune Fuchs springt über den faulen Hund. Où est la bibliothèque ? L'élève a déjà mangé.
def main(argc, argv):\n    return [x ** 2 for x in range(10)]  # comment\n\n| a | b |\n|---|---|\n| 1.5 | 20 |\n
床前明月光，疑是地上霜。 吾輩は猫である。名前はまだ無い。 안녕하세요 세계. مرحبا بالعالم في هذا اليوم. नमस्ते दुनिया, हिन्दी में लिखा है।
สวัสดีชาวโลก Привет, мир! Καλημέρα κόσμε. 😀 👍🏽 👩‍👩‍👧 🇩🇪 123456 123456 12345 1234 1\'\u017fx 1\'\u017fx don't\n\n don't\n\n user assistant the the the and and of of to to in in
"""
WORDS = [
    "1'\u017fx", "<r>    x", "<r>  ", " <r> <lr>    y", "\u00e9 cafe e\u0301 caf", "the", " the", "user", "assistant", "don't", "WE'LL", "I'M", "'s", "'S", "'\u017f", "'ve", "'RE", "12345", "3.14159", "1\u0661\u0662\u0663", "\u00bd\u2167",
    "<|im_start|>", "<|im_end|>", "<|im_", "<|endoftext|>", "<w>", "<l>", "<r>", "<n>", "<lr>", "caf\u00e9", "cafe\u0301", "\u1ebf", "e\u0302\u0301", "A\u030a", "\u212b", "\u0915\u093c", "\u0958",
    "\u1112\u1161\u11ab", "\ud55c", "\uac00\u11a8", "\u304b\u3099", "\u30cf\u309a", "q\u0323\u0307", "q\u0307\u0323", "\u0e33", "\u0e19\u0e49\u0e33", "\u0628\u0650\u0651", "\u0628\u0651\u0650", "\u4e2d\u6587", "\u65e5\u672c\u8a9e", "\uf900",
    "\U0002f800", "\U0001f600", "\U0001f44d\U0001f3fd", "\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f1e9\U0001f1ea", "\u2764\ufe0f", "\u200b", "\ufeff", "\u00a0", "\u3000", "\u2028", "\u0085", "\u180e",
    "\r\n", "\n", "\n\n", "\t", "  ", "    ", " \n", "\r", "\x0b", "\x00", "\x7f", "...", "!?", "--", "||", "def f(x):\n    return x", "_", "__init__", "http://a.b/c?d=e&f", "$\\frac{1}{2}$",
]
SCRIPTS = [(0x20, 0x7F), (0xA0, 0x250), (0x300, 0x370), (0x370, 0x530), (0x590, 0x700), (0x900, 0xE00), (0xE00, 0xF00), (0x1100, 0x1200), (0x1E00, 0x2000), (0x2000, 0x2070),
           (0x2100, 0x2300), (0x3040, 0x3100), (0x4E00, 0xA000), (0xAC00, 0xD7A4), (0xF900, 0xFB50), (0x1D100, 0x1D200), (0x1F300, 0x1F700), (0x300, 0x3000), (0x10000, 0x20000)]


def random_text(rng):
    out = []
    for _ in range(rng.randrange(1, 14)):
        kind = rng.randrange(4)
        if kind < 2:
            out.append(rng.choice(WORDS))
        elif kind == 2:
            first, end = rng.choice(SCRIPTS)
            out.extend(chr(rng.randrange(first, end)) for _ in range(rng.randrange(1, 8)))
        else:
            out.append(rng.choice([" ", " ", "\n", "  ", "a", "B", "7"]))
    return "".join(c for c in "".join(out) if not 0xD800 <= ord(c) < 0xE000)


def byte_level(regex, **fields):
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=regex, **fields)


def by_pattern(pattern):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(pattern), "isolated"), byte_level(False)])


def trained(pre_tokenizer, normalizer=None, **model):
    tokenizer = Tokenizer(models.BPE(**model))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=700, initial_alphabet=sorted(alphabet), show_progress=False)
    tokenizer.train_from_iterator([TRAINING], trainer)
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    return tokenizer


def with_pattern(tokenizer, pattern):
    """Another pattern than the one it was trained with, so that there are merges that only the pattern prevents."""
    tokenizer.pre_tokenizer = by_pattern(pattern)
    return tokenizer


def with_bos(tokenizer):
    bos = tokenizer.token_to_id("<|endoftext|>")
    template = processors.TemplateProcessing("<|endoftext|> $A", "<|endoftext|> $A $B", [("<|endoftext|>", bos)])
    tokenizer.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return tokenizer


def with_added(tokenizer):
    tokenizer.add_tokens([
        AddedToken("<w>", single_word=True), AddedToken("<l>", lstrip=True), AddedToken("<r>", rstrip=True, normalized=False), AddedToken("<lr>", lstrip=True, rstrip=True, normalized=False),
        AddedToken("<n>", normalized=True), AddedToken("e\u0301 caf", normalized=True), AddedToken("\u212b", normalized=False), AddedToken("user", single_word=True, normalized=False),
        AddedToken("    ", normalized=False), AddedToken("  ", normalized=False),
    ])
    return tokenizer


def variants():
    yield "gpt2", trained(byte_level(True)), {"eos_token": "<|endoftext|>"}
    yield "llama3", with_bos(with_pattern(trained(by_pattern(ANYTHING), ignore_merges=True), LLAMA3 % r"\p{N}{1,3}")), {"eos_token": "<|im_end|>", "clean_up_tokenization_spaces": True}
    yield "qwen2", with_pattern(trained(by_pattern(ANYTHING), normalizers.NFC()), LLAMA3 % r"\p{N}"), {"eos_token": "<|im_end|>"}
    yield "added", with_added(trained(by_pattern(LLAMA3 % r"\p{N}"), normalizers.Sequence([normalizers.NFC()]))), {"eos_token": {"__type": "AddedToken", "content": "<|im_end|>"}}
    yield "other_pattern", trained(by_pattern(r"\p{L}+[\P{L}x]?|[^\p{N}\s]|\p{N}{2}|\W\w?|\S")), {"eos_token": "<|im_end|>"}


def write_rows(folder, count, seed):
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    config = json.load(open(f"{folder}/tokenizer_config.json"))
    fast = PreTrainedTokenizerFast(tokenizer_file=f"{folder}/tokenizer.json", eos_token="<|endoftext|>",
                                   clean_up_tokenization_spaces=config.get("clean_up_tokenization_spaces", False))
    rng = random.Random(seed)
    with open(f"{folder}/rows.jsonl", "w") as out:
        for i in range(count):
            text = WORDS[i] if i < len(WORDS) else random_text(rng)
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            out.write(json.dumps([text, ids, fast.decode(ids, skip_special_tokens=True)], separators=(",", ":")) + "\n")


def ranges(points):
    out = []
    for point in points:
        if out and out[-1][1] == point - 1:
            out[-1][1] = point
        else:
            out.append([point, point])
    return out


def all_characters():
    return (c for c in range(0x110000) if not 0xD800 <= c < 0xE000)


def word_ranges():
    tokenizer = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
    tokenizer.add_tokens([AddedToken("<A>", single_word=True, normalized=False)])
    return ranges(c for c in all_characters() if 1 not in tokenizer.encode(chr(c) + "<A>").ids)


def nfc_lines():
    """Every character that decomposes, its parts, and every mark before and behind others, 40 of them a line."""
    parts = []
    for c in all_characters():
        if 0xAC00 <= c < 0xD7A4 and c % 97:  # Hangul syllables are regular; some of them will do
            continue
        whole = unicodedata.normalize("NFD", chr(c))
        if whole != chr(c):
            parts += [chr(c), whole, chr(c) + "\u0323", whole[:1] + "\u0334" + whole[1:]]
        if unicodedata.combining(chr(c)):
            parts += ["a\u0345" + chr(c), "a" + chr(c) + "\u0334", chr(c) + "\u0301", "\u0301" + chr(c)]
    nfc = normalizers.NFC()
    for i in range(0, len(parts), 40):
        text = "|".join(parts[i:i + 40]).replace("\u0000", "")
        yield [text, nfc.normalize_str(text)]


def write_all(root):
    for name, tokenizer, config in variants():
        folder = f"{root}/{name}"
        os.makedirs(folder, exist_ok=True)
        spec = json.loads(tokenizer.to_str())
        json.dump(spec, open(f"{folder}/tokenizer.json", "w"), separators=(",", ":"))
        json.dump(config, open(f"{folder}/tokenizer_config.json", "w"), indent=1)
        write_rows(folder, 250, 5)
    json.dump(word_ranges(), open(f"{root}/word.json", "w"), separators=(",", ":"))
    with open(f"{root}/nfc.jsonl", "w") as out:
        for line in nfc_lines():
            out.write(json.dumps(line, separators=(",", ":")) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--rows", type=int)
    args = parser.parse_args()
    if args.rows:
        write_rows(args.folder, args.rows, 6)
    else:
        write_all(args.folder)


main()
