#!/usr/bin/env python3
"""nanoVLM's picture pipeline beside vlm.c's, one thread each, on the same JPEGs of 1600 x 1200.

    cmake --build --preset release --target bench_pictures
    python bench/pictures.py --nanovlm DIR --bench build/release/bench_pictures

Prints milliseconds of processor time per picture and stage (the least over the repeats, averaged over the pictures) and
the ratios. Needs nanoVLM's own requirements (torch, torchvision, pillow) and numpy.
"""
import argparse
import contextlib
import io
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
import torch
from PIL import Image


def photo(rng, width, height):
    """Waves, gradients, blocks and sensor noise."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(3):
        a, b, phase = rng.uniform(40, 120, 2).tolist() + [rng.uniform(0, 6)]
        planes.append(128 + 70 * np.sin(x / a + phase) * np.cos(y / b) + (x - y) * rng.uniform(-0.03, 0.03))
    blocks = rng.normal(0, 10, (height // 8, width // 8, 3)).repeat(8, 0).repeat(8, 1)
    picture = np.stack(planes, -1) + blocks + rng.normal(0, 5, (height, width, 1))
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def least(repeats, work):
    best, result = float("inf"), None
    for _ in range(repeats):
        start = time.process_time()
        result = work()
        best = min(best, time.process_time() - start)
    return best * 1e3, result


def measure_nanovlm(files, repeats):
    from data.processors import get_image_processor

    with contextlib.redirect_stdout(io.StringIO()):
        resize, to_tensor, split = get_image_processor(2048, 512, True).transforms
    rows = []
    for file in files:
        data = file.read_bytes()
        decode, image = least(repeats, lambda: Image.open(io.BytesIO(data)).convert("RGB"))
        resizing, resized = least(repeats, lambda: resize(image))
        floats, tensor = least(repeats, lambda: to_tensor(resized))
        splitting, (tiles, _) = least(repeats, lambda: split(tensor))
        rows.append((decode, resizing, floats, splitting, len(tiles)))
    return np.mean(rows, 0)


def measure_ours(bench, files, repeats):
    out = subprocess.run([bench, str(repeats), *map(str, files)], check=True, capture_output=True, text=True).stdout
    lines = [json.loads(line) for line in out.splitlines()]
    return np.mean([(o["decode_ms"], o["resize_and_split_ms"], o["tiles"]) for o in lines], 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nanovlm", required=True, help="a checkout of nanoVLM")
    parser.add_argument("--bench", required=True, help="the program bench_pictures")
    parser.add_argument("--pictures", type=int, default=4)
    parser.add_argument("--repeats", type=int, default=10)
    a = parser.parse_args()
    sys.path.insert(0, a.nanovlm)
    torch.set_num_threads(1)
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        files = [pathlib.Path(folder) / f"{i}.jpg" for i in range(a.pictures)]
        for file in files:
            photo(rng, 1600, 1200).save(file, quality=90)
        decode, resize, floats, split, tiles = measure_nanovlm(files, a.repeats)
        ours = measure_ours(a.bench, files, a.repeats)
    if tiles != ours[2]:
        sys.exit(f"{tiles} tiles there, {ours[2]} here")
    theirs = resize + floats + split
    level = os.environ.get("VLM_CPU_LEVEL", "best")
    print(f"{a.pictures} JPEGs of 1600 x 1200, {tiles:.0f} tiles, level {level}; ms of processor time per picture")
    print(f"{'stage':32} {'nanoVLM':>9} {'vlm.c':>9} {'ratio':>7}")
    for name, x, y in (("decode", decode, ours[0]), ("resize", resize, None), ("to floats", floats, None),
                       ("split and global tile", split, None), ("resize, to floats, split", theirs, ours[1]),
                       ("all", decode + theirs, ours[0] + ours[1])):
        print(f"{name:32} {x:9.2f} " + (f"{y:9.2f} {x / y:6.1f}x" if y is not None else ""))


if __name__ == "__main__":
    main()
