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

# Two trainings at a time, seeds 0 and 1, one core each: the second one's output goes to a log.
train_pair() {
  local to=$1 system=$2; shift 2
  local -a command=(sclmkb-train jscc --preset "$preset" --system "$system" --corpus "$folder/corpus" "$@")
  local -a first=("${command[@]//SEED/0}" --seed 0 --out "$folder/$to/seed-0")
  local -a second=("${command[@]//SEED/1}" --seed 1 --out "$folder/$to/seed-1")
  printf '$ %s &   # output in %s\n' "${second[*]}" "$folder/logs/$system-1.log"
  OMP_NUM_THREADS=1 "${second[@]}" >"$folder/logs/$system-1.log" 2>&1 &
  local other=$!
  OMP_NUM_THREADS=1 run "${first[@]}"
  wait "$other" || { tail -n 3 "$folder/logs/$system-1.log" >&2; exit 2; }
}

# A system keeps the picture encoder of its seed's backbone, so it has less to learn (docs/adr/0013).
train_system() {
  local system=$1; shift
  local -a steps=()
  if [ "$preset" = demo ]; then steps=(--set num_steps=300); fi
  train_pair "jscc/$system" "$system" --csi "$folder/csi" --media-from "$folder/backbone/seed-SEED" "${steps[@]}" "$@"
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

title 'JSCC: a retrieval backbone, then five systems that keep it, two seeds each'
train_pair backbone backbone --csi-source perfect --set link.channel=none
train_system sc-lmkb      --csi-source predicted --predicted "$folder/predicted" --sdg "$folder/sdg"
train_system without-sdg  --csi-source predicted --predicted "$folder/predicted"
train_system without-cdg  --csi-source stale     --sdg "$folder/sdg"
train_system without-both --csi-source stale
train_system perfect-csi  --csi-source perfect   --sdg "$folder/sdg"

title 'Evaluation: mAP and Rank@k over SNR'
run sclmkb-eval run --preset "$preset" --checkpoints "$folder/jscc" --corpus "$folder/corpus" --csi "$folder/csi" \
  --predicted "$folder/predicted" --out "$folder/eval"

title 'Report'
run sclmkb-eval report --preset "$preset" --eval "$folder/eval" --corpus "$folder/corpus" --sdg "$folder/sdg" \
  --predicted "$folder/predicted" --out "$folder/report.html"
printf '\nDone in %s (m:ss). Open %s in a browser.\n' "$(clock)" "$folder/report.html"
