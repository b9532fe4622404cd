"""reference.safetensors: position tables on other grids and scaled rotary frequencies, as transformers makes them.

python make.py reference.safetensors   (transformers 4.57.1, torch 2.15)
"""
import sys

import torch
from safetensors.torch import save_file
from transformers import LlamaConfig, SiglipVisionConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding
from transformers.models.siglip.modeling_siglip import SiglipVisionEmbeddings

out = {}
torch.manual_seed(0)
for side in (3, 8):
    config = SiglipVisionConfig(hidden_size=5, num_attention_heads=1, image_size=4 * side, patch_size=4)
    embeddings = SiglipVisionEmbeddings(config)
    table = torch.randn(side * side, 5)
    embeddings.position_embedding.weight.data.copy_(table)
    out[f"{side}"] = table
    for to in (1, 2, 5, 8, 13):
        with torch.no_grad():
            grid = embeddings.interpolate_pos_encoding(torch.zeros(1, to * to + 1, 5), 4 * to, 4 * to)
        out[f"{side}.{to}.bicubic"] = grid[0].clone()
        grid = torch.nn.functional.interpolate(table.T.reshape(1, 5, side, side), size=(to, to), mode="bilinear",
                                               align_corners=False)
        out[f"{side}.{to}.bilinear"] = grid[0].reshape(5, to * to).T.contiguous()

# Llama 3.2 1B, Llama 3.1 8B, and the older linear scaling, for heads of 64 and 128
llama3 = dict(rope_type="llama3", low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192)
for name, head_dim, theta, scaling in (("llama_3_2", 64, 500000.0, dict(llama3, factor=32.0)),
                                       ("llama_3_1", 128, 500000.0, dict(llama3, factor=8.0)),
                                       ("linear", 64, 10000.0, dict(rope_type="linear", factor=4.0)),
                                       ("default", 64, 100000.0, None)):
    config = LlamaConfig(hidden_size=2 * head_dim, num_attention_heads=2, rope_theta=theta, rope_scaling=scaling,
                         max_position_embeddings=131072)
    out[f"inv_freq.{name}"] = LlamaRotaryEmbedding(config).inv_freq.clone()
save_file(out, sys.argv[1])
