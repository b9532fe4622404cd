#!/usr/bin/env python3
"""`vlm memory` beside what `vlm train` takes: the peak of resident memory (ru_maxrss) of real runs.

    python bench/memory.py --vlm build/release/vlm

Each row is a run of a few updates on the data of `vlm synth` (or --data). Predicted is what `vlm memory` says for the
same flags and the most tiles and targets that a batch of the run had, which the run tells at its end. Worst last."""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
COMMON = ("--gradient_accumulation_steps 1 --eval_interval 5 --max_training_steps {steps} --stats_log_interval 100000 "
          "--keep_checkpoints 1 --lm_tokenizer {tokenizer} --train_dataset_path {data} --threads 1").split()
SMALL = "--lm_base_vocab_size 512 --lm_vocab_size 578 --batch_size 1"  # with the small tokenizer
KINDS = ["", "--dtype f32", "--recompute none", "--recompute attention", "--recompute block", "--moments bf16",
         "--moments int8", "--save_in_background false", "--val_size 0", "--lora_rank 8", "--freeze vision_encoder.*",
         "--num_workers 1", "--attention full", "--threads 2", "--packing nanovlm", "--stream_dataset true",
         "--dtype f32 --recompute block --moments int8 --save_in_background false"]
RANKS = ["--zero 0", "--zero 1"]
SMALL_KINDS = ["", "--dtype f32", "--recompute block", "--moments int8 --save_in_background false", "--lora_rank 8"]


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--vlm", default=os.path.join(HERE, "../build/release/vlm"), help="our program")
    p.add_argument("--tokenizer", default=os.path.join(HERE, "../assets/tokenizer"), help="folder")
    p.add_argument("--data", help="folder of Parquet files instead of the synthetic set")
    p.add_argument("--steps", type=int, default=12, help="updates of a run of tiny; small takes a third")
    p.add_argument("--only", default="", help="only rows with this text")
    p.add_argument("--json", help="file for all figures")
    return p.parse_args()


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def rank_environment(rank, ranks, port):
    if ranks == 1:
        return None
    return {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}


def train(a, flags, folder, ranks):
    """Peak in MiB of rank 0 and what the run says of it: planned MiB, tiles and targets of the largest batch."""
    port = 20000 + os.getpid() % 20000 + len(os.listdir(folder))
    command = [a.vlm, "train", *flags, "--vlm_checkpoint_path", folder, "--run_name", f"run{len(os.listdir(folder))}"]
    started = []
    for rank in range(ranks):
        with open(os.path.join(folder, f"log{rank}.txt"), "w") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=rank_environment(rank, ranks, port)))
    _, status, usage = os.wait4(started[0].pid, 0)
    started[0].returncode = status
    others = [p.wait() for p in started[1:]]
    with open(os.path.join(folder, "log0.txt")) as log:
        text = log.read()
    said = re.search(r"planned were ([\d.]+) for batches of (\d+) tiles and (\d+) targets", text)
    if status or any(others) or not said:
        sys.exit(f"{' '.join(command)}\nended with {status}:\n{text[-3000:]}")
    return usage.ru_maxrss / 1024, float(said[1]), int(said[2]), int(said[3])


def predict(a, flags, ranks, tiles, targets):
    fields = json.loads(run([a.vlm, "memory", *flags, "--json", "--tiles", "1"]))
    batch = fields["batch_size"]
    return json.loads(run([a.vlm, "memory", *flags, "--json", "--ranks", str(ranks), "--tiles", str(tiles / batch),
                           "--targets", str((targets + 0.5) / batch / fields["positions"])]))


def cases(a):
    for preset, extra, kinds, steps in (("tiny", "", KINDS + RANKS, a.steps), ("small", SMALL, SMALL_KINDS, a.steps // 3)):
        for kind in kinds:
            name = f"{preset} {kind}".strip()
            if a.only in name:
                yield name, f"--preset {preset} {extra} {kind}".split(), steps, 2 if kind in RANKS else 1


def measure(a, data, folder):
    rows = []
    for name, flags, steps, ranks in cases(a):
        common = [f.format(steps=steps, tokenizer=a.tokenizer, data=data) for f in COMMON]
        own = [f for f in flags if f.startswith("--")]
        kept = [w for i in range(0, len(common), 2) if common[i] not in own for w in common[i:i + 2]]
        peak, said, tiles, targets = train(a, kept + flags, folder, ranks)
        plan = predict(a, kept + flags, ranks, tiles, targets)
        rows.append(dict(name=name, predicted=plan["total"], said=said, measured=peak, ratio=plan["total"] / peak,
                         tiles=tiles, targets=targets, plan=plan))
        print(f"{name}: {plan['total']:.1f} MiB, measured {peak:.1f}", file=sys.stderr, flush=True)
    return sorted(rows, key=lambda r: abs(r["ratio"] - 1))


def main():
    a = parse()
    with tempfile.TemporaryDirectory() as folder:
        data = a.data
        if not data:
            run([a.vlm, "synth", "--out", os.path.join(folder, "synth"), "--rows", "4000", "--test_rows", "0",
                 "--shards", "4"])
            data = os.path.join(folder, "synth", "train")
        runs = os.path.join(folder, "runs")
        os.mkdir(runs)
        rows = measure(a, data, runs)
    print(f"{'configuration':64}{'tiles':>6}{'predicted':>11}{'measured':>10}{'ratio':>8}")
    for r in rows:
        print(f"{r['name']:64}{r['tiles']:6}{r['predicted']:11.1f}{r['measured']:10.1f}{r['ratio']:8.3f}")
    if a.json:
        with open(a.json, "w") as f:
            json.dump(rows, f, indent=1)


if __name__ == "__main__":
    main()
