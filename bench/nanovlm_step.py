"""Training steps of nanoVLM itself on random data, as `vlm bench step` does them: forward, backward, clipping to
norm 1, AdamW and zeroed gradients. Prints one JSON object; bench/compare.py runs it.

The data: random tokens, the tiles' image tokens from the fourth position on, the last tokens of each sequence as
targets, pixels in [0, 1). The collator's attention mask is all ones when nothing is padded. PyTorch of late
refuses a mask beside is_causal, which nanoVLM passes together; --mask auto then leaves the mask out: it hides nothing,
so the result is the same, and PyTorch's attention is at its fastest without."""
import argparse
import contextlib
import json
import resource
import statistics
import sys
import time

STARTED = time.time()
SIZES = {
    "full": {},
    "small": dict(vit_hidden_dim=384, vit_inter_dim=1536, vit_img_size=256, vit_n_heads=6, vit_n_blocks=8,
                  lm_hidden_dim=384, lm_inter_dim=1024, lm_n_heads=6, lm_n_kv_heads=2, lm_n_blocks=8,
                  mp_image_token_length=16),
    "tiny": dict(vit_hidden_dim=128, vit_inter_dim=512, vit_patch_size=8, vit_img_size=64, vit_n_heads=4,
                 vit_n_blocks=4, lm_hidden_dim=192, lm_inter_dim=512, lm_n_heads=6, lm_n_kv_heads=2, lm_n_blocks=6,
                 lm_base_vocab_size=320, lm_vocab_size=386, mp_pixel_shuffle_factor=2, mp_image_token_length=16),
}
IMAGE_TOKEN = 5


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanovlm", required=True, help="a checkout of nanoVLM")
    p.add_argument("--preset", choices=SIZES, default="small")
    p.add_argument("--batch", type=int, default=1)
    p.add_argument("--seq", type=int, default=1024)
    p.add_argument("--tiles", type=int, default=4, help="of a sequence")
    p.add_argument("--targets", type=float, default=0.3)
    p.add_argument("--dtype", choices=("bf16", "f32"), default="bf16")
    p.add_argument("--steps", type=int, default=3)
    p.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    p.add_argument("--mask", choices=("auto", "ones", "none"), default="auto")
    p.add_argument("--compile", action="store_true")
    return p.parse_args()


def build(a):
    import torch
    import models.vision_language_model as vlm
    from models.config import VLMConfig

    class Tokenizer:  # the model asks it for nothing else
        image_token_id = IMAGE_TOKEN

    vlm.get_tokenizer = lambda *_, **__: Tokenizer()
    config = VLMConfig()
    for name, value in SIZES[a.preset].items():
        setattr(config, name, value)
    config.lm_max_length = a.seq
    model = vlm.VisionLanguageModel(config, load_backbone=False)
    groups = ((model.MP, 5e-3), (model.vision_encoder, 5e-5), (model.decoder, 5e-5))
    optimizer = torch.optim.AdamW([dict(params=list(m.parameters()), lr=lr) for m, lr in groups])
    return config, model, optimizer


def batch(a, config):
    import torch
    image_tokens, targets = a.tiles * config.mp_image_token_length, int(a.seq * a.targets)
    if 3 + image_tokens > a.seq:
        sys.exit(f"{a.tiles} tiles do not fit into {a.seq} tokens")
    ids = torch.randint(10, config.lm_vocab_size, (a.batch, a.seq))
    ids[:, 3:3 + image_tokens] = IMAGE_TOKEN
    labels = torch.full_like(ids, -100)
    labels[:, a.seq - targets:] = ids[:, a.seq - targets:]
    pixels = torch.rand(a.batch * a.tiles, 3, config.vit_img_size, config.vit_img_size)
    return ids, labels, pixels


class Stepper:
    def __init__(self, a):
        import torch
        self.config, self.model, self.optimizer = build(a)
        self.forward = torch.compile(self.model) if a.compile else self.model
        self.ids, self.labels, self.pixels = batch(a, self.config)
        self.mask = None if a.mask == "none" else torch.ones_like(self.ids)
        self.mask_may_go = a.mask == "auto"
        bf16 = a.dtype == "bf16"
        self.precision = lambda: torch.autocast("cpu", torch.bfloat16) if bf16 else contextlib.nullcontext()

    def loss(self):
        with self.precision():
            return self.forward(self.ids, [self.pixels], attention_mask=self.mask, targets=self.labels)[1]

    def first_loss(self):
        try:
            return self.loss()
        except RuntimeError as error:
            if not (self.mask_may_go and self.mask is not None and "is_causal" in str(error)):
                raise
            self.mask = None
            return self.loss()

    def step(self, first=False):
        """Seconds of the whole step, of its update and of processor time, and the loss."""
        import torch
        begin, cpu = time.perf_counter(), time.process_time()
        loss = self.first_loss() if first else self.loss()
        loss.backward()
        update = time.perf_counter()
        torch.nn.utils.clip_grad_norm_([p for g in self.optimizer.param_groups for p in g["params"]], 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        end = time.perf_counter()
        return end - begin, end - update, time.process_time() - cpu, loss.item()


def main():
    a = arguments()
    sys.path.insert(0, a.nanovlm)
    import torch
    if a.threads:
        torch.set_num_threads(a.threads)
    torch.manual_seed(0)
    stepper = Stepper(a)
    start_up = time.time() - STARTED
    first = stepper.step(first=True)[0]
    steps = [stepper.step() for _ in range(a.steps)]
    least = min(s[0] for s in steps)
    print(json.dumps(dict(
        preset=a.preset, dtype=a.dtype, compile=a.compile, torch=torch.__version__, threads=torch.get_num_threads(),
        params=sum(p.numel() for p in stepper.model.parameters()), batch=a.batch, seq=a.seq, tiles=a.batch * a.tiles,
        mask="none" if stepper.mask is None else "ones", first=first, step_min=least,
        step_median=statistics.median(s[0] for s in steps), step_cpu_min=min(s[2] for s in steps),
        optimizer=min(s[1] for s in steps), start_up=start_up, loss=steps[-1][3], tokens_per_s=a.batch * a.seq / least,
        peak_rss_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)))


if __name__ == "__main__":
    main()
