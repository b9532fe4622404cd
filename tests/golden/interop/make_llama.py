#!/usr/bin/env python3
"""Writes tiny.gguf, a random Llama of two blocks with grouped heads, and llama.safetensors, llama.cpp's logits of it.

    python tests/golden/interop/make_llama.py [FOLDER]

Needs gguf, llama-cpp-python and safetensors; written with gguf 0.19 and llama-cpp-python 0.3.36.
"""
import os
import sys

import gguf
import llama_cpp
import numpy as np
from safetensors.numpy import save_file

V, C, INNER, H, K, BLOCKS = 272, 32, 48, 4, 2, 2
folder = sys.argv[1] if len(sys.argv) > 1 else os.path.dirname(os.path.abspath(__file__))
rng = np.random.default_rng(5)


def byte_alphabet():
    """The texts by which byte-level BPE writes the 256 bytes."""
    plain = [b for b in range(256) if 33 <= b <= 126 or 161 <= b <= 172 or 174 <= b]
    others = [b for b in range(256) if b not in plain]
    return [chr(b) for b in plain] + [chr(256 + i) for i in range(len(others))]


def weight(rows, columns):
    return (rng.standard_normal((rows, columns)) / columns ** 0.5).astype(np.float32)


def norm():
    return (1 + 0.2 * rng.standard_normal(C)).astype(np.float32)


path = os.path.join(folder, "tiny.gguf")
w = gguf.GGUFWriter(path, "llama")
w.add_block_count(BLOCKS), w.add_context_length(128), w.add_embedding_length(C), w.add_feed_forward_length(INNER)
w.add_head_count(H), w.add_head_count_kv(K), w.add_layer_norm_rms_eps(1e-5), w.add_rope_freq_base(10000.0)
w.add_rope_dimension_count(C // H), w.add_vocab_size(V)
tokens = byte_alphabet() + [f"<|{i}|>" for i in range(V - 256)]
w.add_tokenizer_model("gpt2"), w.add_tokenizer_pre("smollm"), w.add_token_list(tokens)
w.add_token_types([1] * 256 + [3] * (V - 256)), w.add_token_merges(["a b"])
w.add_bos_token_id(256), w.add_eos_token_id(257)
w.add_tensor("token_embd.weight", weight(V, C))
w.add_tensor("output_norm.weight", norm())
w.add_tensor("output.weight", weight(V, C))
D = C // H
for i in range(BLOCKS):
    shapes = {"attn_q": (H * D, C), "attn_k": (K * D, C), "attn_v": (K * D, C), "attn_output": (C, C),
              "ffn_gate": (INNER, C), "ffn_up": (INNER, C), "ffn_down": (C, INNER)}
    for name, shape in shapes.items():
        w.add_tensor(f"blk.{i}.{name}.weight", weight(*shape))
    w.add_tensor(f"blk.{i}.attn_norm.weight", norm())
    w.add_tensor(f"blk.{i}.ffn_norm.weight", norm())
w.write_header_to_file(), w.write_kv_data_to_file(), w.write_tensors_to_file(), w.close()

ids = rng.integers(0, V, 24)
model = llama_cpp.Llama(path, n_ctx=64, logits_all=True, n_threads=1, verbose=False, type_k=0, type_v=0, flash_attn=False)
model.eval(ids.tolist())
save_file({"input_ids": ids[None].astype(np.int64), "logits": np.array(model.scores[None, :len(ids)], np.float32)},
          os.path.join(folder, "llama.safetensors"))
