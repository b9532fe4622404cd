#!/usr/bin/env python3
"""One epoch through nanoVLM's own loader, built as its train.py builds it; prints one JSON object.

Runs in the environment that nanoVLM runs in. Of the settings only those that bench/data.py varies are arguments.
"""
import argparse
import itertools
import json
import os
import random
import resource
import sys
import time
import warnings

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # as train.py
os.environ.setdefault("HF_HUB_OFFLINE", "1")
warnings.filterwarnings("ignore")


def parse():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    p.add_argument("--nanovlm", required=True, help="checkout of nanoVLM")
    p.add_argument("--data", required=True, help="folder of Parquet files")
    p.add_argument("--tokenizer", required=True, help="folder of the tokenizer")
    p.add_argument("--cache", required=True, help="folder for what `datasets` writes")
    p.add_argument("--workers", type=int, default=3)
    p.add_argument("--stream", action="store_true", help="train.py's stream_dataset")
    p.add_argument("--config", default="{}", help="JSON: fields of VLMConfig and TrainConfig to change")
    return p.parse_args()


args = parse()
sys.path.insert(0, args.nanovlm)

import datasets  # noqa: E402
import numpy  # noqa: E402
import torch  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from data.advanced_datasets import ConstantLengthDataset  # noqa: E402
from data.collators import VQACollator  # noqa: E402
from data.datasets import VQADataset  # noqa: E402
from data.processors import get_image_processor, get_tokenizer  # noqa: E402
from models.config import TrainConfig, VLMConfig  # noqa: E402


def configs():
    vlm, train = VLMConfig(lm_tokenizer=args.tokenizer), TrainConfig()
    for name, value in json.loads(args.config).items():
        setattr(vlm if hasattr(vlm, name) else train, name, value)
    return vlm, train


def rows():
    data = datasets.load_dataset(args.data, "default", streaming=args.stream, cache_dir=args.cache)["train"]
    # Files that `datasets` did not write lack its note that a struct of bytes and path is a picture.
    data = data.cast_column("images", datasets.Sequence(datasets.Image()))
    return data if args.stream else data.shuffle(seed=0)


def seed_worker(_):
    seed = torch.initial_seed() % 2**32
    numpy.random.seed(seed)
    random.seed(seed)


def loader(vlm, train):
    tokenizer = get_tokenizer(vlm.lm_tokenizer, vlm.vlm_extra_tokens, vlm.lm_chat_template)
    processor = get_image_processor(vlm.max_img_size, vlm.vit_img_size, vlm.resize_to_max_side_len)
    samples = VQADataset(rows(), tokenizer, processor, vlm.mp_image_token_length, train.relevance_min_rating,
                         train.image_correspondence_min_rating, train.visual_dependency_min_rating,
                         train.formatting_min_rating)
    packs = ConstantLengthDataset(samples, infinite=False, max_sample_length=train.max_sample_length,
                                  seq_length=vlm.lm_max_length, num_of_sequences=train.batch_size * 4, queue_size=8,
                                  max_images_per_example=train.max_images_per_example,
                                  max_images_per_knapsack=train.max_images_per_knapsack)
    generator = torch.Generator()
    generator.manual_seed(0)
    return DataLoader(packs, batch_size=train.batch_size, collate_fn=VQACollator(tokenizer, vlm.lm_max_length),
                      num_workers=args.workers, pin_memory=True, persistent_workers=False, drop_last=True,
                      worker_init_fn=seed_worker, generator=generator)


def cpu_seconds():
    own, children = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def main():
    torch.manual_seed(0)
    random.seed(42)  # data/advanced_datasets.py does so when it is imported
    vlm, train = configs()
    batches_of = loader(vlm, train)
    result = dict.fromkeys(("batches", "tokens", "trained_tokens", "images", "tiles", "positions"), 0)
    cpu, wall = cpu_seconds(), time.perf_counter()
    batches = iter(batches_of)
    for batch in batches:
        result["batches"] += 1
        result["tokens"] += int(batch["attention_mask"].sum())
        result["trained_tokens"] += int((batch["labels"] != -100).sum())
        result["positions"] += batch["input_ids"].numel()
        for picture in itertools.chain.from_iterable(batch["images"]):
            result["images"] += 1
            result["tiles"] += len(picture)
    del batches  # ends the workers, whose processor time counts only then
    result.update(wall_seconds=time.perf_counter() - wall, cpu_seconds=cpu_seconds() - cpu)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
