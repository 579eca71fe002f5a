#!/usr/bin/env bash
# Make dmp-mini, from data to checkpoint; a run that was stopped continues.
# OPTIONS go to `hf-molrep pretrain`, behind those of the recipe.
set -euo pipefail
[ $# -ge 2 ] || { echo "usage: bash $0 DATA OUTPUT [OPTIONS]" >&2; exit 2; }
recipe=$(cd "$(dirname "$0")" && pwd)
data=${1%/} output=${2%/} python=${PYTHON:-python}
prepared=$output-data

if [ ! -f "$prepared/exclusions.json" ]; then # written last
  "$python" "$recipe/../prepare_molecules.py" "$data/pretrain/zinc250k.parquet" \
    "$data/pretrain/chembl_validation.parquet" "$data/pretrain/geom_drugs_smiles.parquet" \
    "$data/iupac/smiles_iupac_pairs.parquet" --exclude-source massbank \
    --exclude "$data/moleculenet/benchmark_blocks.parquet" "$data/optimization/graph2graph_eval.parquet" \
    --draw 150000 --out "$prepared"
fi

"$python" -m hf_molrep.cli pretrain dmp --train_data "$prepared/train.parquet" \
  --validation_data "$prepared/validation.parquet" --config "$recipe/config.json" \
  --processor "$recipe/../../../tokenizers/dmp" --output_dir "$output" \
  $(cat "$recipe/options.args") "${@:3}"
