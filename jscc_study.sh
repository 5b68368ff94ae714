#!/usr/bin/env bash
# The evidence on retrieval: people, motion and sound, every system beside its controls, three seeds (docs/results.md).
# Every step resumes. The folder of `make demo` has the people, the CSI and the predicted CSI: run that first.
#
#   bash jscc_study.sh [TASK ...]      TASK: people motion sound; left out: all of them
#
# DATA (folder with bandai_motion/ and esc10/, see docs/corpora.md), DEMO (folder of the demo, default artifacts/demo),
# STUDY (default artifacts/jscc-study), SEEDS ("0 1 2"), JOBS (trainings at a time, one core each, 2)
set -euo pipefail
cd "$(dirname "$0")"
demo=${DEMO:-artifacts/demo} study=${STUDY:-artifacts/jscc-study} seeds=${SEEDS:-0 1 2} jobs=${JOBS:-2}
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false
trap 'jobs -p | xargs -r kill -TERM 2>/dev/null || true; wait' EXIT
[ -d "$demo/predicted" ] || { echo "error: no predicted CSI in $demo: run make demo first, or name its folder with DEMO" >&2; exit 2; }

# Wait until fewer than so many trainings run.
until_fewer() {
  while (($(jobs -rp | wc -l) >= $1)); do
    wait -n || { echo "error: a training failed: see $folder/logs" >&2; exit 2; }
  done
}

# train SYSTEM ARGUMENT...: each seed in the background, one core, at most $jobs at a time.
train() {
  for seed in $seeds; do
    until_fewer "$jobs"
    OMP_NUM_THREADS=1 sclmkb-train jscc --preset "$preset" --system "$1" --seed "$seed" --corpus "$folder/corpus" \
      --csi "$demo/csi" --out "$folder/jscc/$1/seed-$seed" --set threads=1 "${@:2}" >"$folder/logs/$1-$seed.log" 2>&1 &
  done
}

systems() {
  local -a predicted=(--csi-source predicted --predicted "$demo/predicted") sdg=(--sdg "$folder/sdg")
  train sc-lmkb "${predicted[@]}" "${sdg[@]}"
  train without-sdg "${predicted[@]}"
  train without-cdg --csi-source stale "${sdg[@]}"
  train without-both --csi-source stale
  train perfect-csi --csi-source perfect "${sdg[@]}"
  # Controls: no link at all; no language model; no filter; no CDFC.
  train no-link --csi-source perfect "${sdg[@]}" --set link.channel=none
  train template "${predicted[@]}" --sdg "$folder/template"
  train unfiltered "${predicted[@]}" "${sdg[@]}" --set captions=all
  train average "${predicted[@]}" "${sdg[@]}" --set fusion=average
}

finish() {
  until_fewer 1
  sclmkb-eval run --checkpoints "$folder/jscc" --corpus "$folder/corpus" --csi "$demo/csi" --predicted "$demo/predicted" \
    --set 'snrs_db=[-15, -10, -5, 0, 5, 10, 15, 20, 25, 30]' --out "$folder/eval"
}

# generate ARGUMENT...: captions by the language model, and by templates.
generate() {
  sclmkb-gen sdg --corpus "$folder/corpus" --out "$folder/sdg" "$@"
  sclmkb-gen sdg --corpus "$folder/corpus" --out "$folder/template" "$@" --set engine=template
}

people() {
  preset=demo
  # What the demo has made is not made again. Its systems keep a backbone and are trained for less: they are no part of this.
  [ -e "$folder/corpus" ] || cp -r "$demo/corpus" "$demo/sdg" "$folder"
  generate --preset demo
  systems
}

# Few captions: several generated ones of each.
motion() {
  preset=bandai-motion
  sclmkb-gen corpus bandai-motion --root "${DATA:?name the folder with bandai_motion/ and esc10/}/bandai_motion" --out "$folder/corpus"
  generate --set num_samples=8 --set vllm.enforce_eager=true --set prompt=motion-1
  systems
}

sound() {
  preset=esc10
  sclmkb-gen corpus esc10 --root "${DATA:?name the folder with bandai_motion/ and esc10/}/esc10" --out "$folder/corpus"
  generate --set num_samples=8 --set vllm.enforce_eager=true --set prompt=audio-1
  systems
}

for task in ${*:-people motion sound}; do
  case $task in
    people | motion | sound) ;;
    *) echo "error: no task '$task': people, motion, sound" >&2; exit 2 ;;
  esac
  folder=$study/$task
  mkdir -p "$folder/logs"
  "$task"
  finish
done
