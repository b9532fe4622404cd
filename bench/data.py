#!/usr/bin/env python3
"""nanoVLM's loader and `vlm bench data` on the same files, in turn, and how many times faster ours is.

Run it with the Python that nanoVLM runs with:

    python bench/data.py --nanovlm NANOVLM --tokenizer FOLDER --vlm build/release/vlm

Without --data it makes two sets: photo-like JPEGs (bench/make_photos.py), with nanoVLM's default settings, and
`vlm synth`, with small pictures and short sequences. Every figure is the best of --repeats rounds; both sides run one
whole epoch with the same settings.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# Of the synthetic set: pictures of one tile, so that text, packing and the passing of batches count.
SMALL = {"vit_img_size": 64, "max_img_size": 64, "vit_patch_size": 8, "mp_pixel_shuffle_factor": 2,
         "mp_image_token_length": 16, "lm_max_length": 512, "max_sample_length": 512, "batch_size": 4}


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--nanovlm", required=True, help="checkout of nanoVLM")
    p.add_argument("--tokenizer", required=True, help="folder of the tokenizer, for both sides")
    p.add_argument("--vlm", default=os.path.join(HERE, "../build/release/vlm"), help="our program")
    p.add_argument("--data", action="append", default=[], metavar="NAME=FOLDER",
                   help="set of Parquet files instead of the two that are made; several are fine")
    p.add_argument("--rows", type=int, default=300, help="rows of the photo set")
    p.add_argument("--synth_rows", type=int, default=3000, help="rows of the synthetic set")
    p.add_argument("--workers", default="1,3", help="numbers of loader workers to compare with")
    p.add_argument("--repeats", type=int, default=2)
    p.add_argument("--stream", choices=("true", "false"), default="true", help="stream_dataset on both sides")
    p.add_argument("--packing", default="best", help="our packing: best or nanovlm")
    p.add_argument("--config", default="{}", help="JSON: fields of the configuration to change on both sides, in every set")
    p.add_argument("--json", help="file for all figures")
    return p.parse_args()


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout


def make_sets(a, folder):
    photos, synth = os.path.join(folder, "photos"), os.path.join(folder, "synth")
    run([sys.executable, os.path.join(HERE, "make_photos.py"), "--out", photos, "--rows", str(a.rows)])
    run([a.vlm, "synth", "--out", synth, "--rows", str(a.synth_rows), "--test_rows", "0", "--shards", "6"])
    return {"photos": (photos, {}), "synth": (os.path.join(synth, "train"), SMALL)}


def run_nanovlm(a, data, config, workers, folder):
    command = [sys.executable, os.path.join(HERE, "nanovlm_loader.py"), "--nanovlm", a.nanovlm, "--data", data,
               "--tokenizer", a.tokenizer, "--cache", os.path.join(folder, "cache"), "--workers", str(workers),
               "--config", json.dumps(config)]
    return json.loads(run(command + ["--stream"] * (a.stream == "true")).splitlines()[-1])


def run_vlm(a, data, config, workers, _):
    command = [a.vlm, "bench", "data", "--json", "--stages", "false", "--train_dataset_path", data, "--lm_tokenizer",
               a.tokenizer, "--num_workers", str(workers), "--val_size", "0", "--packing", a.packing,
               "--stream_dataset", a.stream]
    for name, value in config.items():
        command += [f"--{name}", str(value).lower() if isinstance(value, bool) else str(value)]
    result = json.loads(run(command))["loader"]
    result["positions"] = result["tokens"] / result["fill"] if result["fill"] else 0
    return result


def count_rows(data):
    import pyarrow.parquet as pq
    return sum(pq.ParquetFile(os.path.join(data, name)).metadata.num_rows
               for name in sorted(os.listdir(data)) if name.endswith(".parquet"))


SIDES = {"nanoVLM": run_nanovlm, "vlm.c": run_vlm}


def measure(a, data, config, workers, folder):
    """Each side's shortest times; the sides take turns so that both meet the same machine."""
    best = {}
    for _ in range(a.repeats):
        for side, function in SIDES.items():
            result = function(a, data, config, workers, folder)
            result["rows"] = count_rows(data)
            for clock in ("wall_seconds", "cpu_seconds"):
                result[clock] = min(result[clock], best.get(side, result)[clock])
            best[side] = result  # what is counted is the same in every round
    return best


def rates(r, clock):
    seconds = r[clock]
    return [r["batches"] / seconds, r["tokens"] / seconds, r["images"] / seconds, r["rows"] / seconds]


def print_table(name, workers, best):
    print(f"\n{name}, {workers} worker{'s' if workers > 1 else ''}: {best['vlm.c']['rows']} rows")
    print(f"  {'':22}{'batches/s':>11}{'tokens/s':>12}{'images/s':>10}{'rows/s':>10}{'fill':>8}{'seconds':>10}")
    for clock, label in (("wall_seconds", "wall time"), ("cpu_seconds", "processor time")):
        for side in SIDES:
            r = best[side]
            batches, tokens, images, rows = rates(r, clock)
            fill = r["tokens"] / r["positions"] if r["positions"] else 0
            print(f"  {side + ', ' + label:22}{batches:11.2f}{tokens:12.0f}{images:10.1f}{rows:10.1f}{fill:8.1%}"
                  f"{r[clock]:10.2f}")
        ratios = [ours / theirs if theirs else 0
                  for ours, theirs in zip(rates(best["vlm.c"], clock), rates(best["nanoVLM"], clock))]
        print(f"  {'ratio':22}{ratios[0]:10.2f}x{ratios[1]:11.2f}x{ratios[2]:9.2f}x{ratios[3]:9.2f}x", flush=True)


def main():
    a = parse()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        given = {name: (data, {}) for name, data in (item.split("=", 1) for item in a.data)}
        for name, (data, config) in (given or make_sets(a, folder)).items():
            for workers in map(int, a.workers.split(",")):
                best = measure(a, data, {**config, **json.loads(a.config)}, workers, folder)
                print_table(name, workers, best)
                results.append({"set": name, "workers": workers, **best})
    if a.json:
        with open(a.json, "w") as f:
            json.dump(results, f, indent=1)


if __name__ == "__main__":
    main()
