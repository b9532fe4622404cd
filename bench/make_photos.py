#!/usr/bin/env python3
"""Writes rows with photo-like JPEGs of realistic size in FineVision's schema, for bench/data.py.

Needs numpy, pillow and pyarrow. The same arguments give the same rows.
"""
import argparse
import io
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

SIZES = [(1600, 1200)] * 4 + [(1200, 1600), (1024, 768), (800, 600), (640, 480), (1920, 1080), (500, 900)]
WORDS = ("the a of and in to is with on near behind red blue small large old street sign table window person tree car "
         "two three 17 2024 left right chart value shows which how many what colour does it say because light").split()


def photo(rng, width, height):
    """Smooth structure at several scales, edges, and sensor noise: a JPEG of it is as large as that of a photo."""
    canvas = np.zeros((height, width, 3), np.float32)
    for cells, strength in ((4, 110), (16, 45), (64, 20), (256, 9)):
        coarse = rng.uniform(-1, 1, (cells, cells, 3)).astype(np.float32)
        channels = [Image.fromarray(coarse[..., c]).resize((width, height), Image.BICUBIC) for c in range(3)]
        canvas += strength * np.stack([np.asarray(c) for c in channels], -1)
    for _ in range(12):
        x, y = rng.integers(0, width), rng.integers(0, height)
        canvas[y:y + rng.integers(20, 300), x:x + rng.integers(20, 300)] += rng.uniform(-60, 60, 3)
    canvas += 118 + rng.normal(0, 3, canvas.shape)
    return Image.fromarray(canvas.clip(0, 255).astype(np.uint8))


def encode(image, quality):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=quality)
    return out.getvalue()


def text(rng, low, high):
    return " ".join(rng.choice(WORDS, rng.integers(low, high)))


def make_row(rng, number):
    images = []
    for i in range(1 if rng.random() < 0.7 else 2):
        width, height = SIZES[rng.integers(len(SIZES))]
        images.append({"bytes": encode(photo(rng, width, height), 90), "path": f"{number}_{i}.jpg"})
    turns = [{"user": text(rng, 5, 30) + "?", "assistant": text(rng, 5, 120) + "."} for _ in range(rng.integers(1, 5))]
    fives = [5] * len(turns)
    return {"images": images, "texts": turns, "source": "photos", "relevance_ratings": fives,
            "image_correspondence_ratings": fives, "visual_dependency_ratings": fives, "formatting_ratings": fives}


SCHEMA = pa.schema([
    ("images", pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())]))),
    ("texts", pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))),
    ("source", pa.string()),
] + [(f"{name}_ratings", pa.list_(pa.int64()))
     for name in ("relevance", "image_correspondence", "visual_dependency", "formatting")])


def make(out, rows, shards, seed):
    os.makedirs(out, exist_ok=True)
    for shard in range(shards):
        numbers = range(rows * shard // shards, rows * (shard + 1) // shards)
        table = pa.Table.from_pylist([make_row(np.random.default_rng([seed, n]), n) for n in numbers], SCHEMA)
        pq.write_table(table, os.path.join(out, f"train-{shard:05}-of-{shards:05}.parquet"), row_group_size=32)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--shards", type=int, default=6, help="nanoVLM's workers share out whole files")
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    make(a.out, a.rows, a.shards, a.seed)
