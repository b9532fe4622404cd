#!/usr/bin/env python3
"""Our decoder and llama.cpp on the same GGUF files: logits of several prompts, and greedy text from the F32 file.

    python tests/interop/llama_cpp_logits.py --vlm build/release/vlm --gguf FILE [--types F32,F16,BF16,Q8_0]

FILE of another type than F32 is first decoded by llama.cpp's own quantiser; the other types are made from that, and FILE
itself is compared too. llama.cpp keeps keys and values in F32 here, and computes attention without its F16 shortcut.
Where weights are F32, both must agree as two float32 implementations do. Elsewhere llama.cpp also rounds the activations
to the weights' type, and we do not: so what it differs from itself (this type against F32 of the same values) is the
yardstick, and we must be no further from it than that.
"""
import argparse
import os
import sys
import tempfile

import gguf
import llama_cpp
import numpy as np
import torch
from report import compared, exit_status, forward, relative

PROMPTS = ["The capital of France is Paris, and the river that flows through it",
           "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
           "def fibonacci(n):\n    if n < 2:\n        return n\n    return",
           "Ein Satz auf Deutsch, mit Umlauten: äöü ß €."]
F32_LIMIT = 2e-5

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--vlm", required=True)
parser.add_argument("--gguf", required=True)
parser.add_argument("--types", default="F32,F16,BF16,Q8_0")
args = parser.parse_args()


def quantised(source, type_name, out):
    """llama.cpp's quantiser; from a quantised file it needs to be told that it may."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, {"F32": "LLAMA_FTYPE_ALL_F32", "F16": "LLAMA_FTYPE_MOSTLY_F16",
                                       "BF16": "LLAMA_FTYPE_MOSTLY_BF16"}.get(type_name, "LLAMA_FTYPE_MOSTLY_" + type_name))
    params.allow_requantize = True
    if llama_cpp.llama_model_quantize(source.encode(), out.encode(), params):
        raise RuntimeError(f"llama.cpp could not write {out}")
    return out


def in_f32(source, out):
    """The values of a file, decoded by the gguf package, as F32: what exact arithmetic on this file would see."""
    reader = gguf.GGUFReader(source)
    writer = gguf.GGUFWriter(out, "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
            continue
        kind = field.types[0]
        writer.add_key_value(field.name, field.contents(), kind, field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None)
    for t in reader.tensors:
        writer.add_tensor(t.name, gguf.dequantize(t.data, t.tensor_type).astype(np.float32).reshape(t.shape[::-1]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return out


def load(path):
    return llama_cpp.Llama(path, n_ctx=256, logits_all=True, n_threads=2, verbose=False, type_k=0, type_v=0, flash_attn=False)


def tokens_of(model):
    return [model.tokenize(p.encode(), add_bos=False, special=True) for p in PROMPTS]


def logits_of(model, prompts):
    out = []
    for ids in prompts:
        model.reset()
        model.eval(ids)
        out.append(torch.tensor(model.scores[:len(ids)].copy()))
    return out


def worst(ours, theirs):
    return max(relative(x, y) for x, y in zip(ours, theirs))


def ours_for(path, prompts):
    return [forward(args.vlm, path, {"input_ids": torch.tensor([ids])})[0] for ids in prompts]


def greedy(path, model, n=12):
    """The same tokens at every step, each side's own last logits deciding."""
    ids = tokens_of(model)[0]
    theirs = list(ids)
    ours = list(ids)
    for _ in range(n):
        model.reset()
        model.eval(theirs)
        theirs.append(int(model.scores[len(theirs) - 1].argmax()))
        ours.append(int(forward(args.vlm, path, {"input_ids": torch.tensor([ours])})[0, -1].argmax()))
    print("greedy:", repr(model.detokenize(theirs).decode()))
    compared("llama.cpp, greedy tokens that differ, F32", sum(a != b for a, b in zip(ours, theirs)), 0)


def compare_type(name, path, folder):
    model = load(path)
    prompts = tokens_of(model)
    theirs = logits_of(model, prompts)
    ours = ours_for(path, prompts)
    if name == "F32":
        compared("llama.cpp, logits, F32", worst(ours, theirs), F32_LIMIT)
        greedy(path, model)
        return
    model.close()
    exact = logits_of(load(in_f32(path, os.path.join(folder, "exact.gguf"))), prompts)
    compared(f"llama.cpp, logits, {name}: ours against its F32", worst(ours, exact), F32_LIMIT)
    yardstick = worst(exact, theirs)
    compared(f"llama.cpp, logits, {name}: ours against its own {name}", worst(ours, theirs), yardstick + F32_LIMIT)


with tempfile.TemporaryDirectory() as folder:
    f32 = in_f32(args.gguf, os.path.join(folder, "F32.gguf"))
    compare_type("the file given", args.gguf, folder)
    for name in args.types.split(","):
        path = f32 if name == "F32" else quantised(f32, name, os.path.join(folder, name + ".gguf"))
        compare_type(name, path, folder)
        if path != f32:
            os.remove(path)
sys.exit(exit_status())
