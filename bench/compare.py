"""nanoVLM's training step beside ours: bench/nanovlm_step.py and `vlm bench step` in turn, several rounds, and a table
of the ratios ours / nanoVLM in time and peak memory.

    python bench/compare.py --nanovlm DIR [--python PY] [--vlm build/release/vlm] [--compile]

Each line has the least of all rounds' steps and the median of the rounds' medians (by processor time: of their least). Needs a machine with nothing else to
do; --clock cpu compares processor time instead, which others' work lengthens less (with --threads 1)."""
import argparse
import json
import pathlib
import statistics
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
SHAPES = {  # sequences, tokens, tiles of a sequence
    "full": (1, 1024, 4),
    "small": (2, 1024, 8),
    "tiny": (4, 512, 4),
}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--nanovlm", required=True, help="a checkout of nanoVLM")
    p.add_argument("--python", default=sys.executable, help="the Python that nanoVLM runs in")
    p.add_argument("--vlm", default=HERE.parent / "build/release/vlm")
    p.add_argument("--presets", default="full,small,tiny")
    p.add_argument("--dtypes", default="bf16,f32")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--steps", type=int, default=3, help="timed in each round")
    p.add_argument("--threads", type=int, default=0, help="0: each side's own choice")
    p.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    p.add_argument("--recompute", choices=("none", "norms", "attention", "block"), default="norms", help="of vlm's side")
    p.add_argument("--compile", action="store_true", help="torch.compile'd nanoVLM as well")
    p.add_argument("--json", help="file for all figures of all rounds")
    return p.parse_args()


def run(command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def sides(a, preset, dtype):
    """Name and command of what is run for one line of the table: ours first."""
    batch, seq, tiles = SHAPES[preset]
    work = ["--preset", preset, "--dtype", dtype, "--batch", batch, "--seq", seq, "--tiles", tiles, "--steps", a.steps,
            "--threads", a.threads]
    theirs = [a.python, HERE / "nanovlm_step.py", "--nanovlm", a.nanovlm, *work]
    all_sides = {"vlm": [a.vlm, "bench", "step", *work, "--recompute", a.recompute, "--json"], "eager": theirs}
    if a.compile:
        all_sides["compiled"] = theirs + ["--compile"]
    return all_sides


def combine(results, clock):
    """One side's rounds in one."""
    least, median = ("step_min", "step_median") if clock == "wall" else ("step_cpu_min", "step_cpu_min")
    return dict(least=min(r[least] for r in results), median=statistics.median(r[median] for r in results),
                memory=max(r["peak_rss_mb"] for r in results), start_up=min(r["start_up"] for r in results),
                first=min(r["first"] for r in results), last=results[-1])


def print_line(preset, dtype, name, side, ours):
    same = name == "vlm"
    ratio = "" if same else f"{ours['least'] / side['least']:7.3f} {ours['median'] / side['median']:7.3f} " \
                            f"{ours['memory'] / side['memory']:7.3f}"
    share = f"{100 * side['last']['ceiling_share']:5.1f}%" if same else ""
    print(f"{preset:6} {dtype:5} {name:9} {side['least']:9.4f} {side['median']:9.4f} {side['first']:9.2f} "
          f"{side['start_up']:8.2f} {side['memory']:8.0f} {share:>7} {ratio}", flush=True)


def main():
    a, kept = arguments(), []
    print(f"seconds by {a.clock}; ratios are vlm / that line")
    print(f"{'preset':6} {'dtype':5} {'side':9} {'least':>9} {'median':>9} {'first':>9} {'start-up':>8} {'MiB':>8} "
          f"{'ceiling':>7} {'least':>7} {'median':>7} {'memory':>7}")
    for preset in a.presets.split(","):
        for dtype in a.dtypes.split(","):
            commands = sides(a, preset, dtype)
            results = {name: [] for name in commands}
            for _ in range(a.rounds):
                for name, command in commands.items():
                    results[name].append(run(command))
            kept.append(dict(preset=preset, dtype=dtype, results=results))
            lines = {name: combine(r, a.clock) for name, r in results.items()}
            if len({r["params"] for rs in results.values() for r in rs}) != 1:
                sys.exit(f"{preset}: the models differ in size")
            for name, side in lines.items():
                print_line(preset, dtype, name, side, lines["vlm"])
    if a.json:
        pathlib.Path(a.json).write_text(json.dumps(kept, indent=1))


if __name__ == "__main__":
    main()
