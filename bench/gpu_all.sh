#!/usr/bin/env bash
# Every question that needs a GPU, in at most eight minutes: bench/gpu_all.sh FOLDER [DATA PART [WEIGHTS]]
#
# Needs torch, torchvision, timm, pandas, scipy, psutil, albumentations and opencv, neither Ray nor MLflow. Tables and logs are
# written to FOLDER. Without DATA the trials on real radiographs are left out. On a machine without a GPU each part runs at a tiny size,
# to see that it works, and its figures mean nothing.
set -u
out=$(realpath "${1:?a folder for the results}"); data=${2:-}; part=${3:-hand}; weights=${4:-}
cd "$(dirname "$0")/.." || exit 1
export PYTHONPATH="$PWD/platform:$PWD"
mkdir -p "$out"
failed=0

if python -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv > "$out/device.csv"
    steps=(); trials=(--budget 150); slower=1
else
    steps=(--full); trials=(--size 80 --epochs 1+1); slower=10
fi
python -c 'import torch, timm; print("torch", torch.__version__, "timm", timm.__version__)' | tee "$out/versions.txt"

part_of() {  # NAME SECONDS COMMAND...: run within a limit, and go on whatever comes of it
    local name=$1 limit=$(($2 * slower)) began=$SECONDS
    shift 2
    timeout --kill-after=5 "$limit" "$@" > "$out/$name.txt" 2> "$out/$name.err" || { failed=1; echo "$name: failed, $out/$name.err"; }
    echo "$name: $((SECONDS - began)) s"
    cat "$out/$name.txt"
}

part_of gpu 90 python -m bench.gpu --json "$out/gpu.json"
part_of gpu_steps 150 python -m bench.gpu_steps "${steps[@]}" --json "$out/gpu_steps.json"
[ -z "$data" ] || part_of gpu_trials 230 python -m bench.gpu_trials --data "$data" --part "$part" ${weights:+--weights "$weights"} "${trials[@]}"
exit $failed
