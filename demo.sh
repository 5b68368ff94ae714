#!/usr/bin/env bash
# The main job, end to end: makes the knowledge base, trains the link, draws the result.
# Every step resumes: interrupt it with Ctrl-C, start it again, and it goes on where it was.
#
#   bash demo.sh [PRESET [FOLDER]]      default: demo, artifacts/PRESET
set -euo pipefail
cd "$(dirname "$0")"
preset=${1:-demo}
folder=${2:-artifacts/$preset}
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false
mkdir -p "$folder/logs"
start=$SECONDS step=0
trap 'jobs -p | xargs -r kill -TERM 2>/dev/null || true; wait' EXIT

clock() { printf '%d:%02d' $((($SECONDS - start) / 60)) $((($SECONDS - start) % 60)); }
title() { step=$((step + 1)); printf '\n[%d/8, %s] %s\n' "$step" "$(clock)" "$1"; }
run() { printf '$ %s\n' "$*"; "$@"; }

# Two trainings at a time, one core each: the second one's output goes to a log.
train_pair() {
  local system=$1; shift
  local -a command=(sclmkb-train jscc --preset "$preset" --system "$system" --corpus "$folder/corpus" --csi "$folder/csi" "$@")
  printf '$ %s --seed 1 --out %s &   # output in %s\n' "${command[*]}" "$folder/jscc/$system/seed-1" "$folder/logs/$system-1.log"
  OMP_NUM_THREADS=1 "${command[@]}" --seed 1 --out "$folder/jscc/$system/seed-1" >"$folder/logs/$system-1.log" 2>&1 &
  local other=$!
  OMP_NUM_THREADS=1 run "${command[@]}" --seed 0 --out "$folder/jscc/$system/seed-0"
  wait "$other" || { tail -n 3 "$folder/logs/$system-1.log" >&2; exit 2; }
}

title 'Corpus: pictures and captions of people'
run sclmkb-gen corpus people-emoji --preset "$preset" --out "$folder/corpus"

title 'SDG: the language model writes more captions, the filter keeps the faithful ones'
run sclmkb-gen sdg --preset "$preset" --corpus "$folder/corpus" --out "$folder/sdg"

title 'CSI: 3GPP channels, noisy history and clean future'
run sclmkb-gen csi --preset "$preset" --scenario umi-los --out "$folder/csi"

title 'CDG, training: the same frozen language model learns to predict CSI'
run sclmkb-train cdg --preset "$preset" --csi "$folder/csi" --out "$folder/cdg"

title 'CDG: predicted CSI'
run sclmkb-gen cdg --preset "$preset" --csi "$folder/csi" --checkpoint "$folder/cdg" --out "$folder/predicted"

title 'JSCC: five systems, two seeds each'
train_pair sc-lmkb      --csi-source predicted --predicted "$folder/predicted" --sdg "$folder/sdg"
train_pair without-sdg  --csi-source predicted --predicted "$folder/predicted"
train_pair without-cdg  --csi-source stale     --sdg "$folder/sdg"
train_pair without-both --csi-source stale
train_pair perfect-csi  --csi-source perfect   --sdg "$folder/sdg"

title 'Evaluation: mAP and Rank@k over SNR'
run sclmkb-eval run --preset "$preset" --checkpoints "$folder/jscc" --corpus "$folder/corpus" --csi "$folder/csi" \
  --predicted "$folder/predicted" --out "$folder/eval"

title 'Report'
run sclmkb-eval report --preset "$preset" --eval "$folder/eval" --corpus "$folder/corpus" --sdg "$folder/sdg" \
  --predicted "$folder/predicted" --out "$folder/report.html"
printf '\nDone in %s (m:ss). Open %s in a browser.\n' "$(clock)" "$folder/report.html"
