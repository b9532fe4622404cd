#!/usr/bin/env python3
"""`vlm memory` beside what `vlm train` takes, and `vlm bench step`'s plan beside what it took: peaks of resident memory
(VmHWM) of real runs.

    python bench/memory.py --vlm build/release/vlm            # needs numpy, pillow and pyarrow for its data sets

Each row is a run. Predicted is what `vlm memory` says for the same flags and the most tiles and targets that a batch of the
run had, which the run tells at its end. Data sets: `synth` of `vlm synth`; `demo` of scripts/demo.sh; `photos` in Parquet,
JPEGs up to 1920 x 1080 (make_photos.py); `long` texts with small pictures in Arrow. Words with = are set in the environment.
Worst last."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
COMMON = ("--gradient_accumulation_steps 1 --eval_interval {eval} --max_training_steps {steps} --stats_log_interval 100000 "
          "--keep_checkpoints 1 --lm_tokenizer {tokenizer} --train_dataset_path {data} --threads 1").split()
SETS = {"synth": "", "demo": "", "photos": "--val_size 16 --max_img_size 256", "long": "--lm_max_length 2048 --max_sample_length 2048 --val_size 64"}
TINY = ["", "--dtype f32", "--recompute none", "--recompute attention", "--recompute block", "--moments bf16",
        "--moments int8", "--save_in_background false", "--val_size 0", "--lora_rank 8", "--freeze vision_encoder.*",
        "--lr_vision_backbone 0 --cache_vision {folder}/cache", "--num_workers 1", "--num_workers 6", "--attention full",
        "--threads 2", "--threads 2 --dtype f32", "--packing nanovlm", "--stream_dataset true", "--batch_size 1",
        "--batch_size 8 --lm_max_length 256 --max_sample_length 256", "--batch_size 2 --lm_max_length 2048",
        "--gradient_accumulation_steps 3", "--max_tiles 6", "--dtype f32 --recompute block --moments int8",
        "--dtype f32 --lora_rank 8", "--zero 0", "--zero 1", "VLM_CPU_LEVEL=avx512", "VLM_CPU_LEVEL=avx2",
        "VLM_CPU_LEVEL=avx2 --threads 2 --num_workers 1"]
# as in scripts/demo.sh
DEMO = "--lm_n_blocks 3 --lm_max_length 108 --max_sample_length 108 --batch_size 4 --num_workers 1"
SYNTH_DEMO = "--samples 1 --kinds colour,shape,count,position --colours 4 --shapes 3 --max_shapes 2 --turns 5 --ground light"
PHOTOS = ["", "--dtype f32", "--num_workers 1", "--num_workers 6", "--max_img_size 512 --lm_max_length 1024 --max_sample_length 1024", "--threads 2",
          "--recompute block", "--stream_dataset true"]
LONG = ["", "--dtype f32", "--batch_size 1", "--packing nanovlm", "--recompute none"]
SMALL = "--lm_base_vocab_size 512 --lm_vocab_size 578 --batch_size 1"  # with the small tokenizer
SMALL_SYNTH = ["", "--dtype f32", "--recompute none", "--recompute attention", "--recompute block", "--moments bf16",
               "--moments int8 --save_in_background false", "--lora_rank 8", "--freeze vision_encoder.*", "--threads 2"]
SMALL_PHOTOS = ["--max_img_size 512", "--max_img_size 512 --dtype f32"]
SMALL_LARGE_PHOTOS = ["--max_img_size 1024 --lm_max_length 2048"]
FULL = SMALL + " --save_in_background false --vlm_load_backbone_weights false --lm_max_length 1024 --max_sample_length 1024"
# Updates: of photos more than an epoch gives, for its samples wait together at the beginning of the next.
CASES = [("tiny", "", "synth", TINY, 14), ("tiny", DEMO, "demo", ["", "--val_size 0", "--num_workers 3"], 200), ("tiny", "", "photos", PHOTOS, 60), ("tiny", "", "long", LONG, 14),
         ("small", SMALL, "synth", SMALL_SYNTH, 5), ("small", SMALL, "photos", SMALL_PHOTOS, 160),
         ("small", SMALL, "photos", SMALL_LARGE_PHOTOS, 60),
         ("nanovlm-460m", FULL, "photos", ["--max_img_size 512"], 2)]
STEPS = ["--preset tiny", "--preset tiny --dtype f32", "--preset tiny --threads 2", "--preset tiny --dtype f32 --threads 2",
         "--preset tiny --batch 4 --seq 512", "--preset tiny --recompute none", "--preset tiny --recompute block",
         "--preset tiny --moments int8", "--preset tiny --lora_rank 8", "--preset small --batch 2 --tiles 8",
         "--preset small --batch 2 --tiles 8 --dtype f32", "--preset small --batch 2 --tiles 8 --threads 2",
         "--preset small --recompute none", "--preset small --recompute block", "--preset small --tiles 0",
         "--preset small --moments bf16", "--preset small --lora_rank 8", "--preset small --batch 1 --seq 2048 --tiles 16"]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vlm", default=os.path.join(HERE, "../build/release/vlm"), help="our program")
    p.add_argument("--tokenizer", default=os.path.join(HERE, "../assets/tokenizer"), help="folder")
    p.add_argument("--sets", help="folder for the data sets, made there if they are not; else a temporary one")
    p.add_argument("--only", default="", help="only rows whose name matches this regular expression")
    p.add_argument("--json", help="file for all figures, written after each row")
    return p.parse_args()


def is_environment(word):
    return "=" in word and not word.startswith("-")


def environment(words):
    """What of the words is for the environment, with what is there already."""
    return {**os.environ, **dict(w.split("=", 1) for w in words if is_environment(w))}


def without_environment(words):
    return [w for w in words if not is_environment(w)]


def run(words):
    command = without_environment(words)
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(words))
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


# ---- data sets ----

def make_long(out, rows=1500):
    import numpy as np
    import pyarrow as pa
    import make_photos as photos
    os.makedirs(out)
    with pa.OSFile(os.path.join(out, "data-00000-of-00001.arrow"), "wb") as file, \
            pa.ipc.new_stream(file, photos.SCHEMA) as stream:
        for first in range(0, rows, 100):
            made = []
            for number in range(first, first + 100):
                rng = np.random.default_rng([1, number])
                picture = {"bytes": photos.encode(photos.photo(rng, 96, 64), 90), "path": f"{number}.jpg"}
                turns = [{"user": photos.text(rng, 20, 60) + "?", "assistant": photos.text(rng, 60, 300) + "."}
                         for _ in range(rng.integers(1, 4))]
                fives = [5] * len(turns)
                made.append({"images": [picture], "texts": turns, "source": "long", "relevance_ratings": fives,
                             "image_correspondence_ratings": fives, "visual_dependency_ratings": fives,
                             "formatting_ratings": fives})
            stream.write_table(pa.Table.from_pylist(made, photos.SCHEMA))


def make_sets(a, folder):
    paths = {name: os.path.join(folder, name) for name in SETS}
    if not os.path.exists(paths["synth"]):
        run([a.vlm, "synth", "--out", paths["synth"], "--rows", "4000", "--test_rows", "0", "--shards", "4"])
    if not os.path.exists(paths["demo"]):
        run([a.vlm, "synth", "--out", paths["demo"], "--rows", "40000", "--test_rows", "0", *SYNTH_DEMO.split()])
    if not os.path.exists(paths["photos"]):
        run([sys.executable, os.path.join(HERE, "make_photos.py"), "--out", paths["photos"], "--rows", "240", "--shards", "4"])
    if not os.path.exists(paths["long"]):
        make_long(paths["long"])
    return {**paths, **{name: os.path.join(paths[name], "train") for name in ("synth", "demo")}}


# ---- runs ----

def rank_environment(words, rank, ranks, port):
    if ranks == 1:
        return environment(words)
    return {**environment(words), "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def train(a, flags, folder, ranks):
    """What rank 0 says at its end: MiB taken and planned, tiles and targets of the largest batch."""
    name = f"run{len(os.listdir(folder))}"
    port = 20000 + os.getpid() % 20000 + len(os.listdir(folder))
    command = [a.vlm, "train", *without_environment(flags), "--vlm_checkpoint_path", folder, "--run_name", name]
    started = []
    for rank in range(ranks):
        with open(os.path.join(folder, f"{name}.log{rank}"), "w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=rank_environment(flags, rank, ranks, port)))
    failed = [p.wait() for p in started]
    with open(os.path.join(folder, f"{name}.log0")) as log:
        text = log.read()
    said = re.search(r"memory: ([\d.]+) MiB resident.*planned were ([\d.]+) for batches of (\d+) tiles and (\d+) targets", text)
    if any(failed) or not said:
        raise RuntimeError(f"{' '.join(command)}\nended with {failed}:\n{text[-3000:]}")
    return float(said[1]), float(said[2]), int(said[3]), int(said[4])


def predict(a, flags, ranks, tiles, targets):
    fields = json.loads(run([a.vlm, "config", "--all", "true", *flags]))
    batch = fields["TrainConfig"]["batch_size"]
    share = (targets + 0.5) / batch / fields["VLMConfig"]["lm_max_length"]
    return json.loads(run([a.vlm, "memory", *flags, "--json", "--ranks", str(ranks), "--tiles", str(tiles / batch),
                           "--targets", str(share)]))


def measure_run(a, name, flags, folder):
    ranks = 2 if "--zero" in name else 1
    peak, said, tiles, targets = train(a, flags, folder, ranks)
    plan = predict(a, flags, ranks, tiles, targets)
    return dict(name=name, predicted=plan["total"], said=said, measured=peak, tiles=tiles, targets=targets, plan=plan)


def measure_step(a, name, flags, _):
    r = json.loads(run([a.vlm, "bench", "step", "--json", "--steps", "2", "--profile", "0", "--ceiling", "0", *flags]))
    return dict(name=name, predicted=r["planned_rss_mb"], said=0, measured=r["peak_rss_mb"], tiles=0, targets=0)


def joined(common, *more):
    """The flags, each the last time that it is given."""
    given = [w for part in (common, *more) for w in part]
    words = without_environment(given)
    pairs = dict(zip(words[::2], words[1::2]))
    return [w for w in given if is_environment(w)] + [w for pair in pairs.items() for w in pair]


def cases(a, sets, folder):
    for preset, extra, data, kinds, steps in CASES:
        common = [f.format(steps=steps, eval=max(steps // 2, 2), tokenizer=a.tokenizer, data=sets[data]) for f in COMMON]
        for kind in kinds:
            yield (f"{preset}, {data} {kind}".replace("{folder}/", "").strip(), measure_run,
                   joined(common, ["--preset", preset], extra.split(), SETS[data].split(), kind.format(folder=folder).split()))
    for step in STEPS:
        yield f"bench step {step}", measure_step, joined(["--threads", "1"], step.split())


def main():
    a = parse()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sets = make_sets(a, a.sets or os.path.join(folder, "sets"))
        runs = os.path.join(folder, "runs")
        os.mkdir(runs)
        for name, measure, flags in cases(a, sets, folder):
            if not re.search(a.only, name):
                continue
            try:
                row = measure(a, name, flags, runs)
            except RuntimeError as e:
                print(f"{name}: FAILED {e}", file=sys.stderr, flush=True)
                continue
            row["ratio"] = row["predicted"] / row["measured"]
            rows.append(row)
            print(f"{name}: {row['predicted']:.1f} MiB, measured {row['measured']:.1f}, {row['ratio']:.3f}", file=sys.stderr, flush=True)
            if a.json:
                with open(a.json, "w") as f:
                    json.dump(rows, f, indent=1)
    rows.sort(key=lambda r: abs(r["ratio"] - 1))
    print(f"{'configuration':88}{'tiles':>6}{'predicted':>11}{'measured':>10}{'ratio':>8}")
    for r in rows:
        print(f"{r['name']:88}{r['tiles']:6}{r['predicted']:11.1f}{r['measured']:10.1f}{r['ratio']:8.3f}")


if __name__ == "__main__":
    main()
