#!/usr/bin/env bash
# Make infomax-3d-descriptors-mini, from data to checkpoint; a run that was stopped continues.
# OPTIONS go to `hf-molrep pretrain`, behind those of the recipe.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash $0 DATA OUTPUT [OPTIONS]" >&2; exit 2; }
recipe=$(cd "$(dirname "$0")" && pwd)
data=${1%/} output=${2%/} python=${PYTHON:-python}
prepared=$output-data

if [ ! -f "$prepared/exclusions.json" ]; then # written last
  "$python" "$recipe/../prepare_mixture.py" "$data" --out "$prepared"
fi

"$python" -m hf_molrep.cli pretrain infomax_3d --train_data "$prepared/train.parquet" \
  --validation_data "$prepared/validation.parquet" --config "$recipe/config.json" --output_dir "$output" \
  $(cat "$recipe/options.args") "${@:3}"
