#!/usr/bin/env bash
# demo.sh [--minutes N]: sets up, builds, and trains a vision-language model from nothing in about N minutes (default 5):
# synthesises pictures with questions, trains preset tiny on them, scores it on pictures it never saw, and lets it answer.
set -euo pipefail
cd "$(dirname "$0")/.."

minutes=5
while [ $# -gt 0 ]; do
    case $1 in
    --minutes) minutes=${2:?"--minutes needs a number"} && shift 2 ;;
    --minutes=*) minutes=${1#*=} && shift ;;
    *) echo "usage: scripts/demo.sh [--minutes N]" >&2 && exit 2 ;;
    esac
done
case $minutes in
'' | *[!0-9.]*) echo "demo.sh: --minutes takes a number, not '$minutes'" >&2 && exit 2 ;;
esac

scripts/build.sh release
vlm=build/release/vlm
out=demo
data=$out/data
say() { printf '\n== %s\n' "$*"; }

say 'A set of pictures with questions (drawn here; nothing is downloaded)'
rm -rf "$out"
$vlm synth --out $data --rows 40000 --test_rows 1500 --samples 1 \
    --kinds colour,shape,count,position --colours 4 --shapes 3 --max_shapes 2 --turns 5 --ground light
sed -n 's/^/  /p' $data/samples/questions.jsonl

# What the short run that measures the pace and the real run share: short sequences and small batches, because a model
# this young gains more from many updates than from large ones.
train() {
    $vlm train --preset tiny --train_dataset_path $data/train --vlm_checkpoint_path $out/runs --num_workers 1 \
        --lm_n_blocks 3 --lm_max_length 108 --max_sample_length 108 --batch_size 4 \
        --lr_mp 3e-4 --lr_vision_backbone 3e-4 --lr_language_backbone 3e-4 "$@"
}

say 'How fast is this machine?'
pace_steps=150
started=$(date +%s%N)
train --run_name pace --max_training_steps $pace_steps --val_size 0 --eval_interval 1000000 2>/dev/null
elapsed_ms=$((($(date +%s%N) - started) / 1000000))
steps=$(awk -v minutes="$minutes" -v ms=$elapsed_ms -v n=$pace_steps 'BEGIN { printf "%d", minutes * 60000 * n / ms }')
echo "$pace_steps steps take $((elapsed_ms / 1000)) s, so $minutes minutes are $steps steps"

say "Training preset tiny from nothing, $steps steps"
train --run_name demo --max_training_steps "$steps" --eval_interval 2000 --log_interval 100
checkpoint=$out/runs/demo/step_$((steps - 1))

say 'Questions about pictures it never saw'
$vlm eval --checkpoint "$checkpoint" --dataset $data/test --questions 5000

picture=$data/samples/00000-0.png
say "Asking about $picture"
python3 - $data/samples/questions.jsonl <<'EOF' | while IFS=$'\t' read -r question truth; do
import json, sys
for question, answer in json.loads(open(sys.argv[1]).readline())["turns"]:
    print(question, answer, sep="\t")
EOF
    printf '  %-44s %-10s (truth: %s)\n' "$question" \
        "$($vlm generate --checkpoint "$checkpoint" --image $picture --prompt "$question" --greedy --max_new_tokens 8)" "$truth"
done
say "Ask yourself: $vlm generate --checkpoint $checkpoint --image $picture --greedy --prompt 'what colour is the circle?'"
