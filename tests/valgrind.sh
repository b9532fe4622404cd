#!/usr/bin/env bash
# valgrind.sh VLM: very small training runs, one of them from backbones, and a generation under valgrind; any error or leak of ours fails.
set -euo pipefail
vlm=$(realpath "$1")
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$work"' EXIT

check() {
    valgrind -q --error-exitcode=9 --leak-check=full --errors-for-leak-kinds=definite,indirect \
        --show-leak-kinds=definite,indirect --suppressions=tests/valgrind.supp "$vlm" "$@"
}

model=(--vit_n_blocks 1 --lm_n_blocks 1 --vit_hidden_dim 16 --vit_inter_dim 24 --vit_n_heads 2 --lm_hidden_dim 24
    --lm_n_heads 4 --lm_inter_dim 40 --lm_max_length 200 --max_sample_length 200 --batch_size 1 --val_size 4
    --max_training_steps 2 --num_workers 2 --threads 1)

check synth --out "$work" --rows 24 --test_rows 4 --samples 1

from_scratch() {
    check train --preset tiny --train_dataset_path "$work/train" "${model[@]}" --vlm_checkpoint_path "$work" --run_name run
    check generate --checkpoint "$work/run/step_1" --image "$work"/samples/*.png --prompt 'what colour is the circle?' \
        --max_new_tokens 4 --threads 1
    printf '{"prompt": "what?"}\n{\n{"id": 3, "prompt": "which colour?"}\n' >"$work/batch.jsonl"
    check generate --checkpoint "$work/run/step_1" --weights bf16 --batch "$work/batch.jsonl" --out "$work/out.jsonl" \
        --batch_size 2 --max_new_tokens 3 --threads 1
    printf 'what?\n/image nowhere\nand now?\n/clear\n/exit\n' |
        check generate --checkpoint "$work/run/step_1" --weights q8_0 --interactive --max_new_tokens 3 --threads 1 --stop x
    check eval --checkpoint "$work/run/step_1" --dataset "$work/test" --questions 3 --batch_size 2 --max_new_tokens 2 --threads 1
}

from_backbones() {
    check train --preset tiny --train_dataset_path "$work/train" --lm_max_length 200 --max_sample_length 200 --batch_size 1 \
        --val_size 0 --max_training_steps 1 --threads 1 --vlm_load_backbone_weights true --mp_image_token_length 4 \
        --max_img_size 16 --vit_model_type tests/golden/backbones/siglip_full --lm_model_type tests/golden/backbones/llama_sharded \
        --lr_vision_backbone 0 --vlm_checkpoint_path "$work" --run_name backbones
}

from_backbones & # beside the other, or this test runs alone at the end
from_scratch
wait $!
echo "valgrind: clean"
