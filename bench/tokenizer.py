#!/usr/bin/env python3
"""Tokenizers side by side: the tokenizers library, on one thread, and `vlm bench text` on the same texts.

    bench/tokenizer.py --vlm build/release/vlm --tokenizer FOLDER [--rows 300] [--rounds 5]

Texts are rows of 1 to 10 KB of prose, code, tables, numbers, German, French, Chinese, Japanese, Arabic, Hindi and emoji,
shuffled by a fixed seed. Times are processor time, the fastest of some rounds. Fails when the ids differ. --kind picks one
kind of text instead of the mixture.
"""
import argparse
import json
import os
import random
import subprocess
import tempfile
import time

os.environ.update(TOKENIZERS_PARALLELISM="false", RAYON_NUM_THREADS="1")
from tokenizers import Tokenizer  # noqa: E402 (the two variables count when it is loaded)

WORDS = {
    "english": "the of and to in a is that for it was on are as with his they be at one have this from or had by hot but some what there we can out other were all your when up use how said an each she which their time will way about many then them would write like these her long make thing see him two has look more day could go come did my sound no most number who over know water than call first people may down side been now find picture question answer diagram photograph shows describes background foreground building streets vehicle children yellowish transparent",
    "german": "der die und in den von zu das mit sich des auf für ist im dem nicht ein eine als auch es an werden aus er hat dass sie nach wird bei einer um am sind noch wie einem über einen so zum war haben nur oder aber vor zur bis mehr durch man dann soll größer Straße schön Übung natürlich Wissenschaft Geschwindigkeit Bildverarbeitung zusammengesetzt",
    "french": "de la le et les des en un du une que est pour qui dans a par plus pas au sur ne se ce il sont avec cette être comme où déjà été même après très élève façon français où œuvre aujourd'hui l'image s'agit d'une qu'elle bibliothèque",
}
CODE = """def attention(q, k, v, mask=None):
    scale = 1.0 / math.sqrt(q.shape[-1])
    scores = (q @ k.transpose(-2, -1)) * scale
    if mask is not None:
        scores = scores.masked_fill(mask == 0, float("-inf"))
    return torch.softmax(scores, dim=-1) @ v

for (size_t i = 0; i < n; i++) {
\tif (!ok || a[i] >= 0x7fff) return -1; // never
\tsum += (double)a[i] * b->items[i];
}
SELECT name, COUNT(*) AS n FROM images WHERE width > 1024 GROUP BY name ORDER BY n DESC LIMIT 10;
<div class="row"><img src="https://example.org/a/b?x=1&amp;y=2" alt=""/></div>
"""
CJK = {
    "chinese": "图片中有一个红色的圆形和一只坐在窗台上的猫，背景是城市的夜景。请描述这张照片里的内容并回答下面的问题：表格第二行的数值是多少？根据图表可以看出销售额在逐年增长。",
    "japanese": "この画像には赤い円と窓辺に座っている猫が写っています。背景は都市の夜景です。写真の内容を説明してください。グラフによると、売上は年々増加しています。カタカナとひらがな、漢字が混ざった文章です。",
    "arabic": "تُظهر الصورة دائرة حمراء وقطة تجلس على حافة النافذة، والخلفية هي منظر ليلي للمدينة. صِف محتوى هذه الصورة وأجب عن الأسئلة التالية. يبيّن الرسم البياني أن المبيعات تزداد كل عام. ",
    "hindi": "चित्र में एक लाल वृत्त और खिड़की पर बैठी हुई एक बिल्ली है। पृष्ठभूमि में शहर का रात का दृश्य है। कृपया इस तस्वीर का वर्णन करें और नीचे दिए गए प्रश्नों के उत्तर दें। ",
    "emoji": "😀😂🥰👍🏽👩‍👩‍👧🎉🚀❤️🔥✨🇩🇪🇯🇵🐱🐶🌍☀️⭐️✅❌",
}


def sentence(rng, kind):
    words = rng.choices(WORDS[kind].split(), k=rng.randrange(5, 25))
    if rng.random() < 0.3:
        words.insert(3, f"({rng.randrange(1, 2100)})" if rng.random() < 0.5 else f"{rng.random() * 1000:.2f}")
    return " ".join(words).capitalize() + rng.choice([". ", "? ", ", ", ".\n", "!\n\n"])


def table(rng):
    width = rng.randrange(2, 6)
    rows = [[rng.choice(WORDS["english"].split()) for _ in range(width)], ["---"] * width]
    rows += [[f"{rng.random() * 10 ** rng.randrange(5):.{rng.randrange(3)}f}%"[: rng.randrange(3, 9)] for _ in range(width)] for _ in range(6)]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n\n"


def numbers(rng):
    return " ".join(str(rng.randrange(10 ** rng.randrange(1, 9))) for _ in range(12)) + "\n"


def part(rng, kind):
    if kind in WORDS:
        return sentence(rng, kind)
    if kind == "code":
        lines = CODE.splitlines(True)
        start = rng.randrange(len(lines) - 3)
        return "".join(lines[start:start + rng.randrange(3, 9)])
    if kind == "table":
        return table(rng)
    if kind == "numbers":
        return numbers(rng)
    text = CJK[kind]
    start = rng.randrange(len(text) // 2)
    return text[start:start + rng.randrange(5, 60)]


KINDS = {"english": 8, "code": 3, "table": 2, "numbers": 1, "german": 2, "french": 2, "chinese": 2, "japanese": 2, "arabic": 1, "hindi": 1, "emoji": 1}


def make_rows(count, kinds, seed=1):
    rng = random.Random(seed)
    rows = []
    for _ in range(count):
        size, text = rng.randrange(1000, 10000), ""
        while len(text.encode()) < size:
            kind = rng.choices(list(kinds), list(kinds.values()))[0]
            text += "".join(part(rng, kind) for _ in range(rng.randrange(1, 5)))
        rows.append(text)
    return rows


def fastest(rounds, work):
    best = None
    for _ in range(rounds):
        begin = time.process_time()
        result = work()
        seconds = time.process_time() - begin
        best = seconds if best is None or seconds < best else best
    return best, result


def hash_ids(encodings):
    value = 0
    for encoding in encodings:
        for token in encoding.ids:
            value = (value * 1000003 + token) & (2**64 - 1)
    return f"{value:016x}"


def run_ours(args, rows):
    with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
        file.flush()
        command = [*args.vlm.split(), "bench", "text", "--tokenizer", args.tokenizer, "--rows", file.name, "--rounds", str(args.rounds)]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlm", required=True)
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kind", choices=KINDS)
    args = parser.parse_args()
    rows = make_rows(args.rows, {args.kind: 1} if args.kind else KINDS)
    size = sum(len(row.encode()) for row in rows)
    ours = run_ours(args, rows)
    tokenizer = Tokenizer.from_file(f"{args.tokenizer}/tokenizer.json")
    single, encodings = fastest(args.rounds, lambda: [tokenizer.encode(row, add_special_tokens=False) for row in rows])
    batch, _ = fastest(args.rounds, lambda: tokenizer.encode_batch(rows, add_special_tokens=False))
    quick, _ = fastest(args.rounds, lambda: tokenizer.encode_batch_fast(rows, add_special_tokens=False))
    rate = size / ours["encode_seconds"] / 1e6
    print(json.dumps({
        "kind": args.kind or "mixed", "bytes": size, "tokens": ours["tokens"], "same_ids": hash_ids(encodings) == ours["ids_hash"],
        "vlm_mb_per_s": round(rate, 2), "decode_mb_per_s": round(size / ours["decode_seconds"] / 1e6, 1),
        "encode_mb_per_s": round(size / single / 1e6, 2), "encode_batch_mb_per_s": round(size / batch / 1e6, 2),
        "encode_batch_fast_mb_per_s": round(size / quick / 1e6, 2), "times_encode": round(single / ours["encode_seconds"], 2),
        "times_best": round(min(single, batch, quick) / ours["encode_seconds"], 2),
    }))
    if hash_ids(encodings) != ours["ids_hash"]:
        raise SystemExit("the ids differ")


main()
