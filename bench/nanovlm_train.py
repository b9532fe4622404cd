#!/usr/bin/env python3
"""A training run of nanoVLM itself, its train.py from the data to the last update; prints one JSON object.

Nothing of it is replaced but what stands in the way of a short run on one machine: files that `datasets` did not write
need to be told which column is a picture, and PyTorch of late refuses a mask beside is_causal, which nanoVLM passes
together. The mask is then left out (--mask none), which is the faster way through PyTorch; only padding sees more by it.
Time counts from the begin of forward number --skip (of the loop in train.py) to the begin of the last, waiting for data
included, and so do the tokens. bench/train.py runs this."""
import argparse
import importlib.machinery
import json
import os
import sys
import time
import types

os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("HF_HUB_OFFLINE", "1")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanovlm", required=True, help="a checkout of nanoVLM")
    p.add_argument("--data", required=True, help="folder of Parquet files")
    p.add_argument("--config", required=True, help="JSON: fields of VLMConfig and TrainConfig to change")
    p.add_argument("--skip", type=int, default=3, help="updates before time counts")
    p.add_argument("--threads", type=int, default=0, help="0: PyTorch's own choice")
    p.add_argument("--mask", choices=("none", "given"), default="none", help="what attention gets")
    return p.parse_args()


def processor_seconds(pid="self"):
    """Of a process and all that it started, whether they have ended or not."""
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    seconds = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")
    for task in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{task}/children") as f:
            seconds += sum(processor_seconds(child) for child in f.read().split())
    return seconds


def watched(model_class, marks, mask):
    """The model with a mark at each forward in training: clocks, and the batch's tokens and targets."""
    class Watched(model_class):
        def forward(self, input_ids, images, attention_mask=None, targets=None):
            if self.training:
                marks.append((time.perf_counter(), processor_seconds(), int(attention_mask.sum()),
                              int((targets != -100).sum()), input_ids.numel(), sum(map(len, images))))
            return super().forward(input_ids, images, attention_mask if mask == "given" else None, targets)
    return Watched


def prepare(a, marks):
    sys.path.insert(0, a.nanovlm)
    try:
        import wandb  # noqa: F401
    except ImportError:
        sys.modules["wandb"] = types.ModuleType("wandb")
        sys.modules["wandb"].__spec__ = importlib.machinery.ModuleSpec("wandb", None)  # accelerate looks for it
    import datasets
    import torch
    import train
    if a.threads:
        torch.set_num_threads(a.threads)

    def load(path, name, **options):
        rows = datasets.load_dataset(path, "default", **options)["train"]
        return {"train": rows.cast_column("images", datasets.Sequence(datasets.Image()))}

    train.load_dataset = load
    train.VisionLanguageModel = watched(train.VisionLanguageModel, marks, a.mask)
    return train


def configs(train, a):
    from models.config import TrainConfig, VLMConfig
    vlm = VLMConfig(vlm_load_backbone_weights=False, hf_repo_name=None)
    of_run = TrainConfig(log_wandb=False, use_lmms_eval=False, eval_in_epochs=False, train_dataset_path=a.data,
                         train_dataset_name=("default",))
    for name, value in json.loads(a.config).items():
        setattr(vlm if hasattr(vlm, name) else of_run, name, value)
    return of_run, vlm


def main():
    a, marks = arguments(), []
    train = prepare(a, marks)
    import torch
    torch.manual_seed(0)
    sys.stdout, out = sys.stderr, sys.stdout  # train.py prints as it goes
    train.train(*configs(train, a))
    first, last, counted = marks[a.skip], marks[-1], marks[a.skip:-1]
    sums = [sum(mark[i] for mark in counted) for i in range(2, 6)]
    print(json.dumps(dict(zip(("tokens", "targets", "positions", "images"), sums), batches=len(counted),
                          wall_seconds=last[0] - first[0], cpu_seconds=last[1] - first[1], torch=torch.__version__,
                          threads=torch.get_num_threads())), file=out)


if __name__ == "__main__":
    main()
