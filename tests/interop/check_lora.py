#!/usr/bin/env python3
"""Adapters between vlm and the real peft, in both directions, compared by logits; on nanoVLM's model and on Llama's.

    check_lora.py --vlm BINARY --nanovlm DIR --tokenizer FOLDER

peft_loads_ours: vlm trains adapters and the projector for some steps; peft puts them onto nanoVLM's model with the
weights the run began with, and its logits are those of the checkpoint, which holds them merged.
we_load_pefts: peft makes random adapters on nanoVLM's model, and on a LlamaForCausalLM from vlm export; vlm forward
--adapter gives their logits.
"""
import argparse
import subprocess
import sys
import tempfile

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from report import compared, exit_status, forward, inputs_for, relative
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

LIMIT = 1e-5  # of another float32 implementation, as tests/test_model.c has it

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--vlm", required=True)
parser.add_argument("--nanovlm", required=True, help="a checkout of nanoVLM")
parser.add_argument("--tokenizer", required=True, help="folder with tokenizer.json and tokenizer_config.json")
args = parser.parse_args()
sys.path.insert(0, args.nanovlm)
from models.vision_language_model import VisionLanguageModel  # noqa: E402


def logits_of(model, inputs):
    model.eval()
    with torch.no_grad():
        hidden, _ = model(inputs["input_ids"], inputs["images"], attention_mask=None)
        return model.decoder.head(hidden)


def train(folder, name, *flags):
    subprocess.run([args.vlm, "train", "--preset", "tiny", "--train_dataset_path", f"{folder}/rows/train", "--lm_tokenizer",
                    args.tokenizer, "--vlm_checkpoint_path", folder, "--run_name", name, "--val_size", "0", "--dtype", "f32",
                    "--batch_size", "2", "--eval_interval", "1000", *flags], check=True, capture_output=True)


def randomise(model):
    """B begins at 0: without this there would be nothing to compare."""
    torch.manual_seed(5)
    for name, p in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(p, std=0.1)


def make_start(folder):
    """The weights beneath all adapters."""
    subprocess.run([args.vlm, "synth", "--out", f"{folder}/rows", "--rows", "200", "--test_rows", "0"], check=True,
                   capture_output=True)
    train(folder, "base", "--max_training_steps", "1")
    subprocess.run([args.vlm, "export", "--checkpoint", f"{folder}/base/step_0", "--out", f"{folder}/start", "--to", "nanovlm"],
                   check=True, capture_output=True)


def train_adapters(folder, name, *flags):
    train(folder, name, "--config", f"{folder}/start/config.json", "--resume_from_vlm_checkpoint", "true",
          "--vlm_checkpoint_path", f"{folder}/start", *flags)
    return f"{folder}/start/{name}"


def peft_loads_ours(folder, name, rslora):
    out = train_adapters(folder, name, "--max_training_steps", "12", "--lora_rank", "4", "--lr_lora", "0.01", *rslora)
    out += "/step_11"
    plain = VisionLanguageModel.from_pretrained(f"{folder}/start")
    inputs = inputs_for(plain)
    flags = ["--image_token_id", str(plain.tokenizer.image_token_id)]
    before = logits_of(plain, inputs)
    merged = logits_of(VisionLanguageModel.from_pretrained(out), inputs)
    adapted = PeftModel.from_pretrained(plain, out)
    got = logits_of(adapted.base_model.model, inputs)
    assert relative(got, before) > 1e-2, "the adapters change nothing"
    what = "rslora" if rslora else "alpha / r"
    compared(f"lora: peft with our adapters, {what}, and our merged checkpoint in nanoVLM", relative(got, merged), LIMIT)
    compared(f"lora: ours merged by --adapter, {what}", relative(forward(args.vlm, f"{folder}/start", inputs, "--adapter", out,
                                                                          *flags), got), LIMIT)


def we_load_pefts_on_nanovlm(folder):
    model = VisionLanguageModel.from_pretrained(f"{folder}/start")
    inputs = inputs_for(model)
    flags = ["--image_token_id", str(model.tokenizer.image_token_id)]
    targets = ["q_proj", "down_proj", "qkv_proj", "fc2", "out_proj"]
    adapted = get_peft_model(model, LoraConfig(r=6, lora_alpha=9, target_modules=targets))
    randomise(adapted)
    adapted.save_pretrained(f"{folder}/peft")
    got = forward(args.vlm, f"{folder}/start", inputs, "--adapter", f"{folder}/peft", *flags)
    compared("lora: peft's adapters on nanoVLM's model", relative(got, logits_of(adapted.base_model.model, inputs)), LIMIT)
    run = train_adapters(folder, "more", "--max_training_steps", "1", "--lora_rank", "6", "--lora_alpha", "9",
                         "--lora_targets", ",".join(targets), "--lora_adapter", f"{folder}/peft", "--lr_lora", "1e-12",
                         "--lr_mp", "0")
    ours, theirs = load_file(f"{run}/step_0/adapter_model.safetensors"), load_file(f"{folder}/peft/adapter_model.safetensors")
    assert ours.keys() == theirs.keys(), ours.keys() ^ theirs.keys()
    compared("lora: peft's adapters, trained on with no learning rate to speak of",
             max(relative(ours[name], theirs[name]) for name in ours), 1e-6)


def we_load_pefts_on_llama(folder):
    subprocess.run([args.vlm, "export", "--checkpoint", f"{folder}/start", "--out", f"{folder}/llama", "--part", "decoder"],
                   check=True, capture_output=True)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(f"{folder}/llama"),
                           LoraConfig(r=3, lora_alpha=5, target_modules="all-linear", use_rslora=True))
    randomise(model)
    model.save_pretrained(f"{folder}/peft_llama")
    ids = torch.randint(3, 200, (1, 30), generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        want = model.eval()(input_ids=ids).logits
    got = forward(args.vlm, f"{folder}/llama", {"input_ids": ids}, "--adapter", f"{folder}/peft_llama")
    compared("lora: peft's adapters on Llama", relative(got, want), LIMIT)


def main():
    with tempfile.TemporaryDirectory() as folder:
        make_start(folder)
        peft_loads_ours(folder, "plain", [])
        peft_loads_ours(folder, "rslora", ["--lora_rslora"])
        we_load_pefts_on_nanovlm(folder)
        we_load_pefts_on_llama(folder)
    return exit_status()


if __name__ == "__main__":
    sys.exit(main())
