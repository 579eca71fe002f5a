"""
Pre-train MM-Deacon on SMILES-IUPAC pairs. The shipped `mm-deacon-mini` comes from

    python examples/prepare_iupac_pairs.py ../shared/data/iupac/smiles_iupac_pairs.parquet \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet --out iupac_pairs
    python examples/pretrain_mm_deacon.py --train_data iupac_pairs/train.parquet \
        --validation_data iupac_pairs/validation.parquet --config examples/mm_deacon_mini.json \
        --output_dir runs/mm-deacon-mini $(cat examples/mm_deacon_mini.args)

It resumes by itself when it was stopped; several processes: `torchrun --nproc_per_node 2` in place of `python` (the
batch is then that of all processes, negatives included). `--train_data` takes a Parquet or CSV file, a folder of
them or a dataset on the Hub, with the columns `smiles` and `iupac_name`; `--help` lists every option.
"""

from hf_molrep.training.pretraining import main

if __name__ == "__main__":
    main("mm_deacon")
