#!/usr/bin/env python3
"""Checkpoints between vlm and the real nanoVLM, in both directions, compared by logits.

    python tests/interop/nanovlm_checkpoints.py --vlm build/release/vlm --nanovlm DIR --tokenizer FOLDER

nanovlm_loads_ours: vlm trains two steps on its synthetic pictures; nanoVLM's from_pretrained loads the folder.
we_load_nanovlms: nanoVLM's save_pretrained, with tied and untied head, its weights in F32 and cast to BF16.
One sentence without padding goes in, so no attention mask is needed, which newer PyTorch refuses beside is_causal.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from report import compared, exit_status, forward, inputs_for, relative

LIMIT = 1e-5  # of another float32 implementation, as tests/test_model.c has it

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--vlm", required=True)
parser.add_argument("--nanovlm", required=True, help="a checkout of nanoVLM")
parser.add_argument("--tokenizer", required=True, help="folder with tokenizer.json and tokenizer_config.json")
args = parser.parse_args()
sys.path.insert(0, args.nanovlm)
from models.config import VLMConfig  # noqa: E402
from models.vision_language_model import VisionLanguageModel  # noqa: E402


def logits_of(model, inputs):
    model.eval()
    with torch.no_grad():
        hidden, _ = model(inputs["input_ids"], inputs["images"], attention_mask=None)
        return model.decoder.head(hidden)  # without targets nanoVLM leaves the head to the caller


def compare(name, model, folder):
    inputs = inputs_for(model)
    flags = ["--image_token_id", str(model.tokenizer.image_token_id)]
    compared(name, relative(forward(args.vlm, folder, inputs, *flags), logits_of(model, inputs)), LIMIT)


def train_ours(folder, tie):
    rows = os.path.join(folder, "rows")
    run = [args.vlm, "synth", "--out", rows, "--rows", "64", "--test_rows", "0"]
    subprocess.run(run, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([args.vlm, "train", "--preset", "tiny", "--train_dataset_path", os.path.join(rows, "train"), "--lm_tokenizer", args.tokenizer,
                    "--max_training_steps", "2", "--batch_size", "1", "--gradient_accumulation_steps", "1",
                    "--val_size", "0", "--lm_tie_weights", tie, "--vlm_checkpoint_path", os.path.join(folder, "runs")],
                   check=True, stdout=subprocess.DEVNULL)
    found = [where for where, _, files in os.walk(os.path.join(folder, "runs")) if "model.safetensors" in files]
    return sorted(found, key=lambda f: os.path.getmtime(os.path.join(f, "model.safetensors")))[-1]


def nanovlm_loads_ours(folder):
    for tie in ("true", "false"):
        part = os.path.join(folder, "tie_" + tie)
        os.makedirs(part)
        checkpoint = train_ours(part, tie)
        compare(f"nanovlm_loads_ours: tied {tie}", VisionLanguageModel.from_pretrained(checkpoint), checkpoint)


def tiny_config(tie):
    sizes = dict(vit_hidden_dim=48, vit_inter_dim=96, vit_n_heads=4, vit_n_blocks=2, vit_img_size=64, vit_patch_size=8,
                 lm_hidden_dim=64, lm_inter_dim=128, lm_n_heads=4, lm_n_kv_heads=2, lm_n_blocks=3,
                 mp_pixel_shuffle_factor=4, mp_image_token_length=4, max_img_size=256)
    config = VLMConfig(**sizes)
    config.lm_tokenizer, config.lm_tie_weights = args.tokenizer, tie
    with open(os.path.join(args.tokenizer, "tokenizer.json")) as f:
        tokenizer = json.load(f)
    highest = max([*tokenizer["model"]["vocab"].values(), *(t["id"] for t in tokenizer["added_tokens"])])
    config.lm_base_vocab_size = highest + 1
    config.lm_vocab_size = config.lm_base_vocab_size + config.extra_token_amount
    return config


def we_load_nanovlms(folder):
    for tie in (True, False):
        for dtype in (torch.float32, torch.bfloat16):
            torch.manual_seed(3)
            model = VisionLanguageModel(tiny_config(tie), load_backbone=False)
            with torch.no_grad():
                for name, p in model.named_parameters():
                    if p.dim() > 1:
                        p.copy_(torch.randn_like(p) / p[0].numel() ** 0.5)
            model.to(dtype)
            name = f"tie_{tie}_{dtype}".lower().replace("torch.", "")
            where = os.path.join(folder, name)
            model.save_pretrained(where)
            # The saved values are exact in F32, in which both compute.
            compare(f"we_load_nanovlms: {name}", VisionLanguageModel.from_pretrained(where).float(), where)


for part in (nanovlm_loads_ours, we_load_nanovlms):
    with tempfile.TemporaryDirectory() as folder:
        part(folder)
sys.exit(exit_status())
