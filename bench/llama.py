#!/usr/bin/env python3
"""Prefill and decode speed of vlm and llama.cpp on the same GGUF file, in turn, on one and two threads.

    python bench/llama.py --vlm build/release/vlm --gguf FILE --weights bf16 [--prompt_tokens 64] [--tokens 32]

--weights is what vlm keeps the matrices in (f32, bf16, q8_0); give the file of the same type, so that both read as much
memory a token. Each side's fastest of --repeats counts; both are measured anew in each round, so that a disturbance hits
both. Times are of the processor, over the threads. llama.cpp's is that of its eval, without sampling. Needs llama-cpp-python.
"""
import argparse
import json
import subprocess
import time

import llama_cpp

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--vlm", required=True)
parser.add_argument("--gguf", required=True)
parser.add_argument("--weights", default="f32")
parser.add_argument("--prompt_tokens", type=int, default=64)
parser.add_argument("--tokens", type=int, default=32)
parser.add_argument("--repeats", type=int, default=3)
parser.add_argument("--threads", default="1,2")
args = parser.parse_args()


def ours(threads):
    line = [args.vlm, "bench", "decode", "--checkpoint", args.gguf, "--weights", args.weights, "--threads", str(threads),
            "--prompt_tokens", str(args.prompt_tokens), "--tokens", str(args.tokens), "--repeats", "1", "--json"]
    result = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return result["prefill_tokens_per_second"], result["decode_tokens_per_second"]


def theirs(model, threads):
    ids = [(7 * i) % 1000 + 100 for i in range(args.prompt_tokens)]
    model.reset()
    start = time.process_time()
    model.eval(ids)
    middle = time.process_time()
    for i in range(args.tokens):
        model.eval([100 + i])
    end = time.process_time()
    return args.prompt_tokens * threads / (middle - start), args.tokens * threads / (end - middle)


print(f"{args.gguf}, vlm's weights {args.weights}, {args.prompt_tokens} + {args.tokens} tokens")
print(f"{'threads':>7} {'':10} {'prefill/s':>10} {'decode/s':>10}")
for threads in map(int, args.threads.split(",")):
    model = llama_cpp.Llama(args.gguf, n_ctx=args.prompt_tokens + args.tokens, n_threads=threads, n_threads_batch=threads,
                            verbose=False)
    theirs(model, threads)  # what happens only once
    best = {"vlm": [0.0, 0.0], "llama.cpp": [0.0, 0.0]}
    for _ in range(args.repeats):
        for name, speeds in (("vlm", ours(threads)), ("llama.cpp", theirs(model, threads))):
            best[name] = [max(a, b) for a, b in zip(best[name], speeds)]
    model.close()
    for name, (prefill, decode) in best.items():
        print(f"{threads:7d} {name:10} {prefill:10.1f} {decode:10.1f}")
