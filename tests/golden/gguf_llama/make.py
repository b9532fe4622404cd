#!/usr/bin/env python3
"""Makes the reference files of tests/test_gguf_llama.c: small Llama models of transformers (4.57), converted to GGUF by
llama.cpp's own converter (the folder of convert_hf_to_gguf.py is the argument), with torch 2 and the gguf package that lies beside it.

    make.py LLAMA_CPP_FOLDER        (run in this folder)

A case is a folder: model.gguf, expected.safetensors (the values under transformers' names, through the file's quantisation)
and config.json as transformers has it."""

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from transformers import LlamaConfig, LlamaForCausalLM

sys.path[:0] = [sys.argv[1], f"{sys.argv[1]}/gguf-py"]
import gguf  # noqa: E402
from conversion.llama import LlamaModel  # noqa: E402

LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 64}  # fmt: skip
CASES = {
    "tied_f32": ("ALL_F32", {"num_key_value_heads": 2}),
    "untied_q8_0": ("MOSTLY_Q8_0", {"num_key_value_heads": 1, "tie_word_embeddings": False, "num_hidden_layers": 1}),
    "llama3_bf16": ("MOSTLY_BF16", {"num_key_value_heads": 4, "rope_scaling": LLAMA3, "rope_theta": 500000.0}),
}
TYPES = {"Q8_0": gguf.GGMLQuantizationType.Q8_0, "BF16": gguf.GGMLQuantizationType.BF16}


def expected(weight, name):
    """What the converter keeps of a matrix; vectors stay F32."""
    kind = TYPES.get(name.split("_", 1)[1].upper())
    if kind is None or weight.ndim < 2:
        return weight
    return gguf.quants.dequantize(gguf.quants.quantize(weight, kind), kind).reshape(weight.shape)


def make(name, file_type, fields):
    torch.manual_seed(len(name))
    base = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
            "vocab_size": 40, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 100000.0,
            "tie_word_embeddings": True}  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**{**base, **fields}))
    with torch.no_grad():
        for p in model.parameters():
            p.normal_()
    folder = Path(name)
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / name  # the converter writes its name into general.name
        model.save_pretrained(source)
        converter = LlamaModel(source, gguf.LlamaFileType[file_type], folder / "model.gguf")
        converter.set_vocab = lambda: None
        converter.write()
        shutil.copy(source / "config.json", folder / "config.json")
    state = {k: v.detach().numpy().astype(np.float32) for k, v in model.state_dict().items()}
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    save_file({k: np.ascontiguousarray(expected(v, name)) for k, v in state.items()}, folder / "expected.safetensors")


for name, (file_type, fields) in CASES.items():
    make(name, file_type, fields)
