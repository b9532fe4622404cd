#!/usr/bin/env python3
"""vlm import against transformers: a random Idefics3 folder with normalised pixels, imported, exported again and run on
pixels in [0, 1], gives the logits of the folder it came from.

    check_import.py --vlm BINARY --tokenizer FOLDER

What export writes is held against nanoVLM's own logits by check_export.py. The first model's positions are put right
before it runs: transformers 4.57 gives every patch but the first the position of its neighbour.
"""
import argparse
import json
import subprocess
import sys
import tempfile

import torch
from report import compared, exit_status, relative
from transformers import AutoModelForImageTextToText, AutoTokenizer, Idefics3Config, Idefics3ForConditionalGeneration
from transformers.models.idefics3.image_processing_idefics3 import Idefics3ImageProcessor

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 1e-5}  # the weights are rounded before both sides read them
TILE, PATCH, SCALE = 32, 4, 2


def make_folder(folder, tokenizer_folder, dtype, mean, std):
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<fake_token_around_image>", "<image>", "<global-img>",
                                                                "<row_1_col_1>", "<row_1_col_2>"]})
    tokenizer.save_pretrained(folder)
    config = Idefics3Config(
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), scale_factor=SCALE, pad_token_id=2,
        vision_config=dict(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, image_size=TILE,
                           patch_size=PATCH),
        text_config=dict(model_type="llama", hidden_size=48, intermediate_size=64, num_hidden_layers=2, num_attention_heads=6,
                         num_key_value_heads=2, vocab_size=len(tokenizer), rope_theta=20000.0, max_position_embeddings=128,
                         pad_token_id=2))
    model = Idefics3ForConditionalGeneration(config).to(dtype).eval()
    for name, p in model.named_parameters():
        if p.ndim > 1:
            torch.nn.init.normal_(p, std=0.3 / p.shape[-1] ** 0.5 if "norm" not in name else 1)
    model.save_pretrained(folder)
    Idefics3ImageProcessor(size={"longest_edge": TILE}, max_image_size={"longest_edge": TILE}, image_mean=mean,
                           image_std=std).save_pretrained(folder)


def right_positions(model):
    """The table in a grid with one row and column more, in which 4.57's rounding finds the right places."""
    e = model.model.vision_model.embeddings
    n = e.num_patches_per_side
    wide = torch.zeros(n + 1, n + 1, e.position_embedding.weight.shape[1])
    wide[:n, :n] = e.position_embedding.weight.detach().view(n, n, -1)
    e.position_embedding = torch.nn.Embedding.from_pretrained(wide.flatten(0, 1))
    e.num_patches_per_side = n + 1


def logits_of(model, pixels):
    token, count = model.config.image_token_id, (TILE // PATCH // SCALE) ** 2
    ids = torch.tensor([[1, 5] + [token] * count * 2 + [7, 9, 11]])
    with torch.no_grad():
        return model(input_ids=ids, pixel_values=pixels).logits


def check(args, dtype, mean, std):
    with tempfile.TemporaryDirectory() as work:
        make_folder(f"{work}/idefics", args.tokenizer, dtype, mean, std)
        for command in (["import", "--model", f"{work}/idefics", "--out", f"{work}/nano"],
                        ["export", "--checkpoint", f"{work}/nano", "--out", f"{work}/to"]):
            subprocess.run([args.vlm, *command], check=True, capture_output=True)
        config = json.load(open(f"{work}/nano/config.json"))
        assert config["vlm_extra_tokens"] == {"image_token": "<image>", "global_image_token": "<global-img>",
                                              "r1c1": "<row_1_col_1>", "r1c2": "<row_1_col_2>"}, config["vlm_extra_tokens"]
        original = AutoModelForImageTextToText.from_pretrained(f"{work}/idefics", dtype=torch.float32).eval()
        again = AutoModelForImageTextToText.from_pretrained(f"{work}/to").eval()
        right_positions(original)
        pixels = torch.rand(1, 2, 3, TILE, TILE)
        want = logits_of(original, (pixels - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1))
        got = logits_of(again, pixels)
    compared(f"import: {dtype}, mean {mean[0]}, std {std[0]}", relative(got, want), TOLERANCE[dtype])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlm", required=True)
    parser.add_argument("--tokenizer", required=True)
    args = parser.parse_args()
    check(args, torch.float32, [0.5] * 3, [0.5] * 3)
    check(args, torch.float32, [0.481, 0.457, 0.408], [0.268, 0.261, 0.275])
    check(args, torch.bfloat16, [0.5] * 3, [0.5] * 3)
    return exit_status()


if __name__ == "__main__":
    sys.exit(main())
