#!/usr/bin/env python3
"""vlm export --to gguf against llama.cpp: the text model's logits, the vectors of a picture, and the logits behind a
prompt with a picture that llama.cpp's multimodal part (mtmd) put together itself.

    check_gguf.py --vlm BINARY --tokenizer FOLDER

The checkpoint is a small random one made here, with the tokenizer of FOLDER. The reference is transformers on what
vlm export --to hf --type f32 writes of it. Prints the greatest difference of each comparison, relative in L2.
"""
import argparse
import ctypes
import json
import subprocess
import sys
import tempfile

import gguf
import llama_cpp
import llama_cpp.mtmd_cpp as mtmd
import numpy as np
import torch
from report import compared, exit_status, relative
from safetensors.torch import save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

# Of float32 eps 1.2e-7. Of other types: rounding of weights and, in llama.cpp, of activations (F16 2^-11, BF16 2^-8, Q8_0
# 1/254 of a block's largest), through all layers. Pictures in f32: llama.cpp rounds pixels, the patches' kernel and GELU to
# half precision (ggml_conv_2d, ggml_vec_gelu_f32) whatever the file's type. The reference does the same here: without, it
# is 2.8e-4 away, with it 5e-6. A value that rounds to the other side moves by 4.9e-4 of itself, so a tenth of that is
# allowed.
TEXT = {"f32": 2e-5, "f16": 5e-3, "bf16": 4e-2, "q8_0": 6e-2}
PICTURE = {"f32": 5e-5, "f16": 6e-3, "bf16": 4e-2, "q8_0": 6e-2}
WIDTH, INTER, LAYERS, HEADS, KV_HEADS = 64, 96, 2, 4, 2
TILE, PATCH, SHUFFLE = 32, 4, 2


def report(what, got, want, tolerance):
    compared(f"gguf: {what}", relative(got, want), tolerance)


def half(x):
    return x.half().float()


class HalfGelu(torch.nn.Module):
    def forward(self, x):
        return half(torch.nn.functional.gelu(half(x), approximate="tanh"))


def round_as_llama_cpp(reference):
    vision = reference.model.vision_model
    patches = vision.embeddings.patch_embedding
    patches.register_forward_pre_hook(lambda module, inputs: (half(inputs[0]),))
    patches.weight.data = half(patches.weight.data)
    for layer in vision.encoder.layers:
        layer.mlp.activation_fn = HalfGelu()


def make_checkpoint(folder, tokenizer):
    torch.manual_seed(0)
    base = len(AutoTokenizer.from_pretrained(tokenizer))
    extra = {"image_token": "<|image|>", "global_image_token": "<|global_image|>", "r1c1": "<row_1_col_1>"}
    vocab = base + len(extra)
    config = dict(vit_hidden_dim=WIDTH, vit_inter_dim=INTER, vit_patch_size=PATCH, vit_img_size=TILE, vit_n_heads=HEADS,
                  vit_n_blocks=LAYERS, lm_hidden_dim=WIDTH, lm_inter_dim=INTER, lm_re_base=10000,
                  lm_max_position_embeddings=512, lm_base_vocab_size=base, extra_token_amount=len(extra), lm_vocab_size=vocab,
                  lm_n_heads=HEADS, lm_n_kv_heads=KV_HEADS, lm_n_blocks=LAYERS, lm_tokenizer=tokenizer,
                  mp_pixel_shuffle_factor=SHUFFLE, mp_image_token_length=(TILE // PATCH // SHUFFLE) ** 2, max_img_size=TILE,
                  vlm_extra_tokens=extra)
    json.dump(config, open(f"{folder}/config.json", "w"))
    head, kv = WIDTH // HEADS, WIDTH // HEADS * KV_HEADS
    w = {"MP.proj.weight": [WIDTH, WIDTH * SHUFFLE ** 2], "decoder.head.weight": [vocab, WIDTH], "decoder.norm.weight": [WIDTH],
         "vision_encoder.patch_embedding.conv.weight": [WIDTH, 3, PATCH, PATCH],
         "vision_encoder.patch_embedding.conv.bias": [WIDTH],
         "vision_encoder.patch_embedding.position_embedding": [1, (TILE // PATCH) ** 2, WIDTH],
         "vision_encoder.layer_norm.weight": [WIDTH], "vision_encoder.layer_norm.bias": [WIDTH]}
    for i in range(LAYERS):
        v, d = f"vision_encoder.blocks.{i}.", f"decoder.blocks.{i}."
        for name, out, inner in (("attn.qkv_proj", 3 * WIDTH, WIDTH), ("attn.out_proj", WIDTH, WIDTH),
                                 ("mlp.fc1", INTER, WIDTH), ("mlp.fc2", WIDTH, INTER)):
            w[f"{v}{name}.weight"], w[f"{v}{name}.bias"] = [out, inner], [out]
        for name in ("ln1", "ln2"):
            w[f"{v}{name}.weight"], w[f"{v}{name}.bias"] = [WIDTH], [WIDTH]
        for name, out, inner in (("attn.q_proj", WIDTH, WIDTH), ("attn.k_proj", kv, WIDTH), ("attn.v_proj", kv, WIDTH),
                                 ("attn.out_proj", WIDTH, WIDTH), ("mlp.gate_proj", INTER, WIDTH),
                                 ("mlp.up_proj", INTER, WIDTH), ("mlp.down_proj", WIDTH, INTER)):
            w[f"{d}{name}.weight"] = [out, inner]
        w[f"{d}norm1.weight"], w[f"{d}norm2.weight"] = [WIDTH], [WIDTH]
    values = {k: torch.randn(s) * (0.5 / s[-1] ** 0.5 if len(s) > 1 else 0.1) + ("norm" in k or "ln" in k) * (k[-6:] == "weight")
              for k, s in w.items()}
    values["decoder.rotary_embd.inv_freq"] = 1.0 / 10000 ** (torch.arange(0, head, 2).float() / head)
    save_file(values, f"{folder}/model.safetensors", {"decoder.token_embedding.weight": "decoder.head.weight"})


def export(args, checkpoint, out, *more):
    subprocess.run([args.vlm, "export", "--checkpoint", checkpoint, "--out", out, *more], check=True, capture_output=True)


def load(path):
    params = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_load_model_from_file(path.encode(), params)
    assert model, f"llama.cpp cannot load {path}"
    c = llama_cpp.llama_context_default_params()
    c.n_ctx = c.n_batch = c.n_ubatch = 256
    c.type_k = c.type_v = 0  # F32
    c.flash_attn_type = 0
    c.n_threads = c.n_threads_batch = 1
    context = llama_cpp.llama_new_context_with_model(model, c)
    return model, context


def logits_of(context, vocab, ids):
    batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
    batch.n_tokens = len(ids)
    for i, token in enumerate(ids):
        batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
    assert llama_cpp.llama_decode(context, batch) == 0
    rows = [np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, i), (vocab,)).copy() for i in range(len(ids))]
    llama_cpp.llama_batch_free(batch)
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    return np.stack(rows)


def check_text(name, model, context, reference, tokenizer):
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    text = "<|im_start|>user\nHow many circles are there, 3 or 44?<|im_end|>\n<|im_start|>assistant\n"
    ids = tokenizer.encode(text, add_special_tokens=False)
    buffer = (llama_cpp.llama_token * 512)()
    n = llama_cpp.llama_tokenize(llama_cpp.llama_model_get_vocab(model), text.encode(), len(text), buffer, 512, False, True)
    assert list(buffer[:n]) == ids, f"{name}: llama.cpp cuts the text otherwise: {list(buffer[:n])}, {ids}"
    with torch.no_grad():
        want = reference(input_ids=torch.tensor([ids])).logits[0]
    report(f"{name}: text logits", logits_of(context, vocab, ids)[:, :want.shape[1]], want, TEXT[name])


def tokenize(vision, prompt, picture):
    bitmap = mtmd.mtmd_bitmap_init(TILE, TILE, picture.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)))
    chunks = mtmd.mtmd_input_chunks_init()
    text = mtmd.mtmd_input_text(text=prompt.encode(), text_len=len(prompt), add_special=False, parse_special=True) \
        if any(f[0] == "text_len" for f in mtmd.mtmd_input_text._fields_) \
        else mtmd.mtmd_input_text(text=prompt.encode(), add_special=False, parse_special=True)
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(bitmap)
    assert mtmd.mtmd_tokenize(vision, chunks, ctypes.byref(text), bitmaps, 1) == 0
    return chunks


def check_picture(name, folder, model, context, reference):
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.n_threads, params.print_timings, params.warmup, params.flash_attn_type = False, 1, False, False, 0
    vision = mtmd.mtmd_init_from_file(f"{folder}/mmproj-model-{name}.gguf".encode(), model, params)
    assert vision and mtmd.mtmd_support_vision(vision)
    rng = np.random.default_rng(1)
    picture = rng.integers(0, 256, (TILE, TILE, 3), dtype=np.uint8)
    tile = torch.tensor(picture).permute(2, 0, 1).float()[None, None] / 255
    with torch.no_grad():
        vectors = reference.model.get_image_features(tile)[0]
    marker = mtmd.mtmd_default_marker().decode()
    chunks = tokenize(vision, f"<|im_start|>user\n{marker}What is this?<|im_end|>\n<|im_start|>assistant\n", picture)
    rows = next(t for t in gguf.GGUFReader(f"{folder}/model-{name}.gguf").tensors if t.name == "token_embd.weight")
    table = torch.tensor(gguf.dequantize(rows.data, rows.tensor_type).astype(np.float32).reshape(-1, WIDTH))
    sequence, pieces, pictures = [], [], 0
    for i in range(mtmd.mtmd_input_chunks_size(chunks)):
        chunk = mtmd.mtmd_input_chunks_get(chunks, i)
        if mtmd.mtmd_input_chunk_get_type(chunk) == 0:
            n = ctypes.c_size_t()
            tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(n))
            ids = [tokens[j] for j in range(n.value)]
            assert min(ids) >= 0, f"{name}: llama.cpp found no token for a part of its prompt: {ids}"
            sequence.append(table[ids])
            pieces += ids
            continue
        assert mtmd.mtmd_encode_chunk(vision, chunk) == 0
        n = mtmd.mtmd_input_chunk_get_n_tokens(chunk)
        got = np.ctypeslib.as_array(mtmd.mtmd_get_output_embd(vision), (n * WIDTH,)).reshape(n, WIDTH).copy()
        report(f"{name}: vectors of picture {pictures}", got, vectors, PICTURE[name])
        sequence.append(vectors)
        pieces += ["picture"]
        pictures += 1
    if name == "f32":
        print(f"  llama.cpp's prompt: {pieces}")
    past = llama_cpp.llama_pos()
    assert mtmd.mtmd_helper_eval_chunks(vision, context, chunks, 0, 0, 256, True, ctypes.byref(past)) == 0
    vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    got = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(context, -1), (vocab,)).copy()
    with torch.no_grad():
        hidden = reference.model.text_model(inputs_embeds=torch.cat(sequence)[None]).last_hidden_state[0, -1]
        want = reference.lm_head(hidden)
    report(f"{name}: logits behind a picture", got[:len(want)], want, PICTURE[name])
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_free(vision)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vlm", required=True)
    parser.add_argument("--tokenizer", required=True)
    args = parser.parse_args()
    silent = llama_cpp.llama_log_callback(lambda *_: None)
    llama_cpp.llama_log_set(silent, None)
    if hasattr(mtmd, "mtmd_helper_log_set"):
        mtmd.mtmd_helper_log_set(silent, None)
    llama_cpp.llama_backend_init()
    with tempfile.TemporaryDirectory() as work:
        make_checkpoint(work, args.tokenizer)
        export(args, work, f"{work}/hf", "--to", "hf")
        reference = AutoModelForImageTextToText.from_pretrained(f"{work}/hf").eval()
        round_as_llama_cpp(reference)
        tokenizer = AutoTokenizer.from_pretrained(f"{work}/hf")
        for name in TEXT:
            export(args, work, f"{work}/{name}", "--to", "gguf", "--type", name)
            model, context = load(f"{work}/{name}/model-{name}.gguf")
            check_text(name, model, context, reference, tokenizer)
            check_picture(name, f"{work}/{name}", model, context, reference)
            llama_cpp.llama_free(context)
            llama_cpp.llama_free_model(model)
    return exit_status()


if __name__ == "__main__":
    sys.exit(main())
