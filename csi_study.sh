#!/usr/bin/env bash
# The evidence on CSI prediction: data, every predictor, ablations, the table and the map of a sector.
# Every step resumes. On 2 cores CDG at three seeds takes about 20 minutes, the whole many hours: one LLM4CP takes about 25
# minutes of a core to train.
#
#   bash csi_study.sh [STEP ...]      STEP: data cdg baselines ablations few eval; left out: all of them
#
# STUDY (folder, default artifacts/csi-study), STEPS (optimiser steps, 900), SEEDS ("0 1 2"), JOBS (trainings at a time, 2),
# DROPS (measure on so many drops of each test set; LLM4CP predicts 4 drops a second), TESTS (which test sets, a glob, *)
set -euo pipefail
cd "$(dirname "$0")"
study=${STUDY:-artifacts/csi-study} steps=${STEPS:-900} seeds=${SEEDS:-0 1 2} jobs=${JOBS:-2}
export PATH="$PWD/.venv/bin:$PATH" HF_HUB_OFFLINE=${HF_HUB_OFFLINE:-1} TOKENIZERS_PARALLELISM=false
mkdir -p "$study/logs"
trap 'jobs -p | xargs -r kill -TERM 2>/dev/null || true; wait' EXIT

csi() { sclmkb-gen csi --out "$study/$1" "${@:2}"; }
test_set() { csi "test/$1" --set num_train=25 --set num_val=25 --set "num_test=$2" "${@:3}"; }

data() {
  local both='scenario=[umi-los, umi-nlos]'
  csi train/mixed --set "$both" --set 'speed_kmh=[3, 120]' --set num_train=3000 --set num_val=200 --set num_test=25 --set seed=1
  csi train/fast --set "$both" --set 'speed_kmh=[120, 300]' --set num_train=1000 --set num_val=50 --set num_test=25 --set seed=2
  csi train/umi-los-30 --set scenario=umi-los --set speed_kmh=30 --set num_train=1500 --set num_val=100 --set num_test=25 --set seed=3
  test_set umi-los-30 300 --set scenario=umi-los --set speed_kmh=30 --set seed=11
  test_set uma-nlos-30 300 --set scenario=uma-nlos --set speed_kmh=30 --set seed=12
  test_set umi-los-10-100 300 --set scenario=umi-los --set 'speed_kmh=[10, 100]' --set seed=13
  test_set umi-nlos-30 300 --set scenario=umi-nlos --set speed_kmh=30 --set seed=14
  test_set umi-nlos-10-100 300 --set scenario=umi-nlos --set 'speed_kmh=[10, 100]' --set seed=15
  test_set uma-nlos-10-100 300 --set scenario=uma-nlos --set 'speed_kmh=[10, 100]' --set seed=16
  # Cells that no predictor is trained for: speed, scenario, sampling.
  test_set uma-los-200 100 --set scenario=uma-los --set speed_kmh=200 --set seed=21
  test_set umi-nlos-3 100 --set scenario=umi-nlos --set speed_kmh=3 --set seed=22
  test_set uma-nlos-60-1ms 100 --set scenario=uma-nlos --set speed_kmh=60 --set sample_period_s=0.001 --set seed=23
  # The map of a sector with 100 terminals (Fig. 11 of the paper), in both scenarios.
  for scenario in umi-los uma-nlos; do
    csi "test/map-$scenario" --set "scenario=$scenario" --set speed_kmh=30 --set users=100 --set seed=31
  done
}

# train NAME SEED ARGUMENT...: in the background, one core, at most $jobs at a time, on the sets in $train_sets.
train_sets=(mixed fast)
train() {
  while (($(jobs -rp | wc -l) >= jobs)); do wait -n; done
  local -a data=()
  for set in "${train_sets[@]}"; do data+=(--csi "$study/train/$set"); done
  OMP_NUM_THREADS=1 sclmkb-train cdg "${data[@]}" --out "$study/models/$1/seed-$2" \
    --seed "$2" --set threads=1 --set "num_steps=$steps" "${@:3}" >"$study/logs/${1//\//-}-$2.log" 2>&1 &
}

finish() { while (($(jobs -rp | wc -l) > 0)); do wait -n; done; }

cdg() {
  for seed in $seeds; do train cdg "$seed"; done
  train lmmse 0 --predictor lmmse
  train global-lmmse 0 --predictor global_lmmse
  # The bar of a bank fitted to the very speed and scenario.
  sclmkb-train cdg --predictor lmmse --csi "$study/train/umi-los-30" --out "$study/models/lmmse-umi-los-30/seed-0"
  finish
}

baselines() {
  for seed in $seeds; do
    for kind in gru transformer csi_llm llm4cp; do train "$kind" "$seed" --predictor "$kind"; done
  done
  finish
}

ablations() {
  for seed in $seeds; do
    train backbone-random "$seed" --set model.backbone=random
    train backbone-none "$seed" --set model.backbone=none
    train layers-8 "$seed" --set model.num_layers=8
    train no-array "$seed" --set model.array_weight=0
    train head-direct "$seed" --set model.head=direct
    train no-cross-attention "$seed" --set model.cross_attention=false
    for weight in 0 0.01 1; do train "ce-$weight" "$seed" --set "model.ce_weight=$weight"; done
  done
  finish
}

# 100 drops to learn from, 200 steps: does the language model's pre-training pay there? And the ablations in minutes.
few() {
  csi train/few --set 'scenario=[umi-los, umi-nlos]' --set 'speed_kmh=[3, 120]' --set num_train=100 --set num_val=100 \
    --set num_test=25 --set seed=4100
  train_sets=(few) steps=200
  for seed in $seeds; do
    train few/cdg "$seed"
    for backbone in random none; do train "few/backbone-$backbone" "$seed" --set "model.backbone=$backbone"; done
  done
  for layers in 1 8 30; do train "few/layers-$layers" 0 --set "model.num_layers=$layers"; done
  train few/head-direct 0 --set model.head=direct
  train few/no-cross-attention 0 --set model.cross_attention=false
  train few/no-array 0 --set model.array_weight=0
  for weight in 0 0.01 1; do train "few/ce-$weight" 0 --set "model.ce_weight=$weight"; done
  train_sets=(mixed fast) steps=${STEPS:-900}
  finish
}

eval_() {
  local -a sets=()
  for folder in "$study"/test/${TESTS:-*}; do sets+=(--csi "$folder"); done
  sclmkb-eval csi "${sets[@]}" --checkpoints "$study/models" --out "$study/eval" --set main_system=cdg \
    ${DROPS:+--set "max_drops=$DROPS"}
}

for step in ${*:-data cdg baselines ablations few eval}; do
  case $step in
    data | cdg | baselines | ablations | few) "$step" ;;
    eval) eval_ ;;
    *) echo "error: no step '$step': data, cdg, baselines, ablations, few, eval" >&2; exit 2 ;;
  esac
done
