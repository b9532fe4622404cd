"""What the scripts of this folder share: running vlm, and one line a comparison that scripts/interop.sh collects."""
import os
import subprocess
import tempfile

import torch
from safetensors.torch import load_file, save_file

failed, compared_names = [], []


def compared(name, difference, limit):
    """Prints the comparison; a difference that is no number fails like one above the limit."""
    ok = difference <= limit
    compared_names.append(name)
    print(f"RESULT\t{name}\t{difference:.2e}\t{limit:.1e}\t{'ok' if ok else 'FAILED'}", flush=True)
    if not ok:
        failed.append(name)


def exit_status():
    """1 when a comparison failed or none was made."""
    return 1 if failed or not compared_names else 0


def skipped(name, why):
    print(f"RESULT\t{name}\t-\t-\tskipped: {why}", flush=True)


def relative(x, reference):
    """The norm of the difference over the norm of the reference, in double."""
    x, reference = (torch.as_tensor(t).double().flatten() for t in (x, reference))
    return ((x - reference).norm() / reference.norm()).item()


def inputs_for(model, tiles=3, text=20):
    """For a nanoVLM model: random words around the image tokens of some tiles."""
    config, image = model.cfg, model.tokenizer.image_token_id
    generator = torch.Generator().manual_seed(7)
    words = torch.randint(3, 200, (2, text), generator=generator)
    tokens = torch.full((1, tiles * config.mp_image_token_length), image)
    side = config.vit_img_size
    return {"input_ids": torch.cat([words[:1], tokens, words[1:]], 1),
            "images": torch.rand(tiles, 3, side, side, generator=generator)}


def forward(vlm, checkpoint, inputs, *flags):
    """The logits of `vlm forward` for {"input_ids": …, "images": …}."""
    with tempfile.TemporaryDirectory() as folder:
        given, out = os.path.join(folder, "in.safetensors"), os.path.join(folder, "out.safetensors")
        save_file({name: t.contiguous() for name, t in inputs.items()}, given)
        subprocess.run([vlm, "forward", "--checkpoint", str(checkpoint), "--inputs", given, "--out", out, *flags],
                       check=True, stderr=subprocess.DEVNULL)
        return load_file(out)["logits"]
