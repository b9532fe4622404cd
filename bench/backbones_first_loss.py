#!/usr/bin/env python3
"""Do vlm and nanoVLM start from the same backbones at the same loss?

    backbones_first_loss.py make OUT                       random tiny backbones: OUT/siglip, OUT/llama (bf16, shards)
    vlm train --preset tiny --vlm_load_backbone_weights true --vit_model_type OUT/siglip --lm_model_type OUT/llama
        --lm_tokenizer TOKENIZER --train_dataset_path ROWS --val_size 0 --batch_size 1 --max_training_steps 1
        --eval_interval 1 --lr_mp 1e-30 --lr_vision_backbone 1e-30 --lr_language_backbone 1e-30 --init nanovlm ...
    backbones_first_loss.py compare NANOVLM CHECKPOINT FILE.parquet     step_0 of that run, and its rows (one is enough)

At that learning rate step_0 holds the weights the run began with. nanoVLM (a checkout; with its Python packages) loads the
same folders; every tensor must be the same, and its loss is printed to stand beside the first batch_loss of log.jsonl.
"""
import json
import os
import sys

import torch


def shuffle(model, seed):
    """Weights large enough that every tensor matters."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in model.named_parameters():
            noise = torch.randn(p.shape, generator=generator)
            if name.endswith("bias") or p.dim() == 0:
                p.copy_(0.1 * noise)
            else:
                p.copy_(1 + 0.2 * noise if "norm" in name else noise / p[0].numel() ** 0.5)


def make(out):
    from transformers import LlamaConfig, LlamaForCausalLM, SiglipConfig, SiglipModel
    text = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, vocab_size=40,
                max_position_embeddings=8, bos_token_id=0, eos_token_id=1)
    vision = dict(hidden_size=48, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=64, patch_size=8)
    siglip = SiglipModel(SiglipConfig(text_config=text, vision_config=vision))
    shuffle(siglip, 1)
    siglip.save_pretrained(os.path.join(out, "siglip"))
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=3,
                                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
                                         tie_word_embeddings=True))
    shuffle(llama, 2)
    llama.to(torch.bfloat16).save_pretrained(os.path.join(out, "llama"), max_shard_size="60KB")


def from_folders():
    """nanoVLM asks the Hub for files; answer from the folder that stands where the repository's name would."""
    import huggingface_hub
    from huggingface_hub.utils import EntryNotFoundError

    def download(repo_id, filename, **_):
        path = os.path.join(repo_id, filename)
        if not os.path.exists(path):
            raise EntryNotFoundError(filename)
        return path
    huggingface_hub.hf_hub_download = download


def load_in_nanovlm(checkpoint):
    """nanoVLM's model from the backbones that the checkpoint's config.json names, and the names of what differs."""
    from models.config import VLMConfig
    from models.vision_language_model import VisionLanguageModel
    from safetensors.torch import load_file
    with open(os.path.join(checkpoint, "config.json")) as f:
        saved = json.load(f)
    config = VLMConfig()
    for name, value in saved.items():
        setattr(config, name, value)
    for name in ("vit_hidden_dim", "vit_n_blocks", "lm_hidden_dim", "lm_n_blocks", "lm_inter_dim"):
        setattr(config, name, 1)  # nanoVLM must find these itself
    model = VisionLanguageModel(config, load_backbone=True)
    differing = [name for name, value in saved.items() if getattr(config, name) != value]
    ours = load_file(os.path.join(checkpoint, "model.safetensors"))
    state = {name: ours.get(name, ours["decoder.head.weight"]) for name in model.state_dict()}
    for name, theirs in model.state_dict().items():
        rows = 512 if "token_embedding" in name or "head" in name else None  # the rows behind are drawn
        if not name.startswith("MP.") and not torch.equal(theirs[:rows], state[name][:rows]):
            differing.append(name)
    model.load_state_dict(state)
    return model.eval(), config, differing


def compare(nanovlm, checkpoint, parquet):
    sys.path.insert(0, nanovlm)
    from_folders()
    model, config, differing = load_in_nanovlm(checkpoint)
    from data.collators import VQACollator
    from data.datasets import VQADataset
    from data.processors import get_image_processor, get_tokenizer
    from datasets import Image, Sequence, load_dataset
    tokenizer = get_tokenizer(config.lm_tokenizer, config.vlm_extra_tokens, config.lm_chat_template)
    images = get_image_processor(config.max_img_size, config.vit_img_size, config.resize_to_max_side_len)
    rows = load_dataset("parquet", data_files=parquet, split="train").cast_column("images", Sequence(Image()))
    samples = VQADataset(rows, tokenizer, images, config.mp_image_token_length)
    batch = VQACollator(tokenizer, None)([samples[0]])
    with torch.no_grad():  # one sample needs no mask, which newer PyTorch refuses beside is_causal
        _, loss = model(batch["input_ids"], batch["images"], attention_mask=None, targets=batch["labels"])
    print("differing:", ", ".join(differing) or "nothing")
    print(f"nanoVLM's loss of the first row: {loss.item():.8f}")
    return 1 if differing else 0


if __name__ == "__main__":
    commands = {"make": make, "compare": compare}
    sys.exit(commands[sys.argv[1]](*sys.argv[2:]))
