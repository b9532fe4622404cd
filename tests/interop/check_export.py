#!/usr/bin/env python3
"""vlm export --to hf against transformers: the whole model and both parts give the reference's outputs.

    check_export.py --vlm BINARY --golden FOLDER [--work FOLDER]

FOLDER/model/* are checkpoints with inputs and logits; each that can be exported is exported, loaded with
transformers and run on the same token ids and tiles. Prints the greatest difference of each comparison, relative to the
reference in L2, and fails beyond the tolerance of the dtype or when nothing was compared.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import torch
from report import compared, exit_status, relative
from safetensors.torch import load_file
from transformers import (AutoImageProcessor, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer,
                          SiglipVisionModel)

# float32: eps 1.2e-7, as for every other float32 implementation of the reference (tests/golden). The 16-bit formats: a
# model of rounded weights, computed in float32; relative rounding 2^-11 and 2^-8 a weight, through all layers.
TOLERANCE = {"f32": 1e-5, "f16": 5e-3, "bf16": 4e-2}


def report(what, got, want, tolerance):
    compared(f"export: {what}", relative(got, want), tolerance)


def export(args, case, out, *more):
    command = [args.vlm, "export", "--checkpoint", case, "--lm_tokenizer", os.path.join(args.golden, "model/tokenizer"),
               "--out", out, *more]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        print(f"{os.path.basename(case):44} not exported: {done.stderr.strip().splitlines()[-1]}")
    return done.returncode == 0


def tiles_of(batch, ids, config):
    """The tiles as [B, most tiles of a row, 3, H, W]; rows with fewer are filled with zeros, as the processor does."""
    images, B = batch.get("images"), ids.shape[0]
    if images is None or images.numel() == 0:
        return None
    token = config.image_token_id
    length = (images.shape[-1] // config.vision_config.patch_size // config.scale_factor) ** 2
    counts = [(row == token).sum().item() // length for row in ids]
    out = torch.zeros(B, max(counts), *images.shape[1:])
    at = 0
    for b, n in enumerate(counts):
        out[b, :n] = images[at:at + n]
        at += n
    # what the image processor's mean does to a tile that is black altogether
    for b, n in enumerate(counts):
        out[b, :n] -= 1e-30
    return out


def run_whole(folder, batch):
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32).eval()
    ids = batch["input_ids"].long()
    mask = batch["attention_mask"].long()
    pixels = tiles_of(batch, ids, model.config)
    # nanoVLM's positions count the padding
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    with torch.no_grad():
        return model(input_ids=ids, attention_mask=mask, position_ids=positions, pixel_values=pixels).logits, mask.bool()


def check_whole(args, case, work):
    name = os.path.basename(case)
    batch, forward = load_file(f"{case}/batch.safetensors"), load_file(f"{case}/forward.safetensors")
    for dtype in ("f32", "f16", "bf16"):
        folder = f"{work}/{name}-{dtype}"
        if not export(args, case, folder, "--to", "hf", "--type", dtype):
            return
        logits, real = run_whole(folder, batch)
        report(f"{name}: logits, {dtype}", logits[real], forward["logits"][real], TOLERANCE[dtype])
    black = dict(batch)
    if "images" in batch and batch["images"].numel():
        black["images"] = torch.zeros_like(batch["images"])
        assert torch.isfinite(run_whole(f"{work}/{name}-f32", black)[0]).all()
    tokenizer = AutoTokenizer.from_pretrained(f"{work}/{name}-f32")
    config = json.load(open(f"{case}/config.json"))
    for text in config["vlm_extra_tokens"].values():
        assert len(tokenizer.encode(text)) == 1, f"{text} is no single token"
    assert tokenizer.convert_tokens_to_ids(config["vlm_extra_tokens"]["image_token"]) == \
        json.load(open(f"{work}/{name}-f32/config.json"))["image_token_id"]
    AutoImageProcessor.from_pretrained(f"{work}/{name}-f32")


def check_parts(args, case, work):
    name = os.path.basename(case)
    batch, forward = load_file(f"{case}/batch.safetensors"), load_file(f"{case}/forward.safetensors")
    if batch.get("images") is not None and batch["images"].numel():
        if export(args, case, f"{work}/{name}-vision", "--to", "hf", "--part", "vision"):
            tower = SiglipVisionModel.from_pretrained(f"{work}/{name}-vision").eval()
            with torch.no_grad():
                hidden = tower(pixel_values=batch["images"]).last_hidden_state
            report(f"{name}: vision encoder", hidden, forward["vision_encoder"], TOLERANCE["f32"])
    if export(args, case, f"{work}/{name}-decoder", "--to", "hf", "--part", "decoder"):
        decoder = AutoModelForCausalLM.from_pretrained(f"{work}/{name}-decoder").eval()
        mask = batch["attention_mask"]
        positions = torch.arange(mask.shape[1]).expand_as(mask)
        with torch.no_grad():
            logits = decoder(inputs_embeds=forward["decoder.input"], attention_mask=mask.long(),
                             position_ids=positions).logits
        real = mask.bool()
        report(f"{name}: decoder", logits[real], forward["logits"][real], TOLERANCE["f32"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlm", required=True)
    parser.add_argument("--golden", required=True)
    parser.add_argument("--work", help="folder for the exported files; none: a temporary one")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or temporary
        for name in sorted(os.listdir(f"{args.golden}/model")):
            case = f"{args.golden}/model/{name}"
            if not os.path.exists(f"{case}/batch.safetensors"):
                continue
            meta = json.load(open(f"{case}/meta.json"))
            config = json.load(open(f"{case}/config.json"))
            if meta.get("vision_only"):
                continue
            if load_file(f"{case}/batch.safetensors")["input_ids"].shape[1] > config["lm_max_position_embeddings"]:
                print(f"{name:44} left out: longer than lm_max_position_embeddings, where transformers does not rescale")
                continue
            check_whole(args, case, work)
            check_parts(args, case, work)
    return exit_status()


if __name__ == "__main__":
    sys.exit(main())
