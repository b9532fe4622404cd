#!/usr/bin/env python3
"""A training run of nanoVLM and `vlm train` on the same data, in turn: useful tokens a second of both.

    python bench/train.py --nanovlm NANOVLM --vlm build/release/vlm

nanoVLM runs its own train.py (bench/nanovlm_train.py): its data set, packer, collator, DataLoader, model, AdamW and
autocast to BF16. Ours runs with its defaults: best packing, document attention, --dtype auto. Model, batch size, length
of sequences and data are the same on both sides; the data are those of `vlm synth` unless --data says others. Each
figure is the best of --repeats rounds, processor time that of all threads and loader workers. Our wall time is
that of the epochs in the run's log, our processor time the whole program's; nanoVLM's times count from its fourth update on,
so without imports, worker start-up and the first steps."""
import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))


def parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanovlm", required=True, help="checkout of nanoVLM")
    p.add_argument("--vlm", default=os.path.join(HERE, "../build/release/vlm"), help="our program")
    p.add_argument("--preset", default="tiny", choices=("tiny", "small"))
    p.add_argument("--tokenizer", default=os.path.join(HERE, "../assets/tokenizer"), help="folder, for both sides")
    p.add_argument("--data", help="folder of Parquet files instead of the synthetic set")
    p.add_argument("--rows", type=int, default=20000, help="rows of the synthetic set")
    p.add_argument("--steps", type=int, default=40, help="updates of each run")
    p.add_argument("--repeats", type=int, default=2)
    p.add_argument("--threads", type=int, default=0, help="of the operators, on both sides; 0: their own choice")
    p.add_argument("--workers", type=int, default=3, help="of our loader; train.py has 3")
    p.add_argument("--config", default="{}", help="JSON: fields of the configuration to change on both sides")
    p.add_argument("--json", help="file for all figures")
    return p.parse_args()


def run(command, **options):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-3000:]}")
    return done.stdout


def text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def shared_config(a):
    """The preset's fields as our program has them, for both sides."""
    all_fields = json.loads(run([a.vlm, "config", "--all", "true", "--preset", a.preset]))
    fields = {**all_fields["VLMConfig"], **all_fields["TrainConfig"]}
    names = [n for n in fields if n.startswith(("vit_", "mp_", "lr_"))] + [
        "lm_hidden_dim", "lm_inter_dim", "lm_n_heads", "lm_n_kv_heads", "lm_n_blocks", "lm_base_vocab_size",
        "lm_vocab_size", "lm_max_length", "max_img_size", "max_sample_length", "batch_size",
        "gradient_accumulation_steps", "max_grad_norm"]
    chosen = {n: fields[n] for n in names if n != "vit_model_type"}
    chosen.update(lm_tokenizer=os.path.abspath(a.tokenizer), max_training_steps=a.steps, val_size=64,
                  stream_dataset=True, eval_in_epochs=False)
    return {**chosen, **json.loads(a.config)}


def run_nanovlm(a, data, config, *_):
    command = [sys.executable, os.path.join(HERE, "nanovlm_train.py"), "--nanovlm", a.nanovlm, "--data", data,
               "--config", json.dumps(config), "--threads", str(a.threads)]
    return json.loads(run(command).splitlines()[-1])


def children_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def target_share(a, data, config):
    """Targets among our batches' tokens, and how full they are, over a whole epoch."""
    command = [a.vlm, "bench", "data", "--json", "--stages", "false", "--train_dataset_path", data, "--preset", a.preset,
               "--num_workers", str(a.workers)]
    loader = json.loads(run(command + flags(config)))["loader"]
    return loader["trained_tokens"] / loader["tokens"], loader["fill"]


def flags(config):
    return [part for name, value in config.items() for part in (f"--{name}", text(value))]


def run_vlm(a, data, config, folder, share, fill):
    name = f"run{len(os.listdir(folder))}"
    command = [a.vlm, "train", "--preset", a.preset, "--train_dataset_path", data, "--vlm_checkpoint_path", folder,
               "--run_name", name, "--threads", str(a.threads), "--num_workers", str(a.workers)]
    before = children_seconds()
    run(command + flags(config))
    cpu = children_seconds() - before
    with open(os.path.join(folder, name, "log.jsonl")) as log:
        epochs = [line for line in map(json.loads, log) if "epoch_duration" in line]
    seconds = sum(e["epoch_duration"] for e in epochs)
    tokens = sum(e["epoch_duration"] * e["epoch_tokens_per_second"] for e in epochs)
    batches = config["max_training_steps"] * config["gradient_accumulation_steps"]
    return dict(tokens=tokens, targets=tokens * share, positions=tokens / fill, batches=batches, wall_seconds=seconds,
                cpu_seconds=cpu)


SIDES = {"nanoVLM": run_nanovlm, "vlm.c": run_vlm}
RATES = {f"{what}/s, {clock.split('_')[0]}": (what, clock)
         for clock in ("wall_seconds", "cpu_seconds") for what in ("tokens", "targets")}


def measure(a, data, config, folder):
    """Each side's best rates; the sides take turns so that both meet the same machine."""
    best = {side: {} for side in SIDES}
    share, fill = target_share(a, data, config)
    for _ in range(a.repeats):
        for side, function in SIDES.items():
            result = function(a, data, config, folder, share, fill)
            rates = {name: result[what] / result[clock] for name, (what, clock) in RATES.items()}
            rates["fill"] = result["tokens"] / result["positions"]
            for name, rate in rates.items():
                best[side][name] = max(rate, best[side].get(name, 0))
            best[side]["batches"] = result["batches"]
            print(f"{side}: {json.dumps(result)}", file=sys.stderr, flush=True)
    return best


def print_table(best):
    print(f"{'':24}{'nanoVLM':>12}{'vlm.c':>12}{'ratio':>9}")
    for name in [*RATES, "fill"]:
        theirs, ours = best["nanoVLM"][name], best["vlm.c"][name]
        unit = "12.3f" if name == "fill" else "12.0f"
        print(f"{name:24}{theirs:{unit}}{ours:{unit}}{ours / theirs:8.2f}x")


def main():
    a = parse()
    with tempfile.TemporaryDirectory() as folder:
        data = a.data
        if not data:
            run([a.vlm, "synth", "--out", os.path.join(folder, "synth"), "--rows", str(a.rows), "--test_rows", "0",
                 "--shards", "6"])
            data = os.path.join(folder, "synth", "train")
        runs = os.path.join(folder, "runs")
        os.mkdir(runs)
        best = measure(a, data, shared_config(a), runs)
    print_table(best)
    if a.json:
        with open(a.json, "w") as f:
            json.dump(best, f, indent=1)


if __name__ == "__main__":
    main()
