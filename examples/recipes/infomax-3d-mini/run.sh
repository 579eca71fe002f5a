#!/usr/bin/env bash
# Make infomax-3d-mini, from data to checkpoint; a run that was stopped continues.
# OPTIONS go to `hf-molrep pretrain`, behind those of the recipe.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash $0 DATA OUTPUT [OPTIONS]" >&2; exit 2; }
recipe=$(cd "$(dirname "$0")" && pwd)
data=${1%/} output=${2%/} python=${PYTHON:-python}
prepared=$output-data

if [ ! -f "$prepared/exclusions.json" ]; then # written last
  # QM9 without the molecules that the benchmark fine-tunes and measures on
  HF_MOLREP_DATA=$data PYTHONPATH="$recipe/../../..${PYTHONPATH:+:$PYTHONPATH}" \
    "$python" -m benchmarks.qm9 --write-pretraining "$prepared/qm9"
  "$python" "$recipe/../prepare_conformers.py" --geometries "$prepared/qm9/molecules.parquet" \
    --smiles "$data/pretrain/zinc250k.parquet" "$data/pretrain/chembl_validation.parquet" --molecules 4500 \
    --exclude "$data/moleculenet/benchmark_blocks.parquet" "$prepared/qm9/held_out.parquet" --out "$prepared"
fi

"$python" -m hf_molrep.cli pretrain infomax_3d --train_data "$prepared/train.parquet" \
  --validation_data "$prepared/validation.parquet" --config "$recipe/config.json" --output_dir "$output" \
  $(cat "$recipe/options.args") "${@:3}"
