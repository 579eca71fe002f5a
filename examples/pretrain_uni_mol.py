"""
Pre-train Uni-Mol on conformers. The shipped `uni-mol-mini` comes from

    python -m benchmarks.qm9 --write-pretraining qm9_pretraining
    python examples/prepare_conformers.py --geometries qm9_pretraining/molecules.parquet \
        --smiles ../shared/data/pretrain/zinc250k.parquet --molecules 12000 \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet qm9_pretraining/held_out.parquet --out conformers
    python examples/pretrain_uni_mol.py --train_data conformers/train.parquet \
        --validation_data conformers/validation.parquet --config examples/uni_mol_mini.json \
        --output_dir runs/uni-mol-mini $(cat examples/uni_mol_mini.args)

It resumes by itself when it was stopped; several processes: `torchrun --nproc_per_node 2` in place of `python`.
`--train_data` takes a Parquet or CSV file, a folder of them or a dataset on the Hub, with the column `smiles`. Columns
`atomic_numbers` and `coordinates` (angstrom, a flat list; several conformers one after the other) are used where they
are there; else conformers are computed from the SMILES, once, and kept in the cache on disk. `--processor FOLDER` is
another feature extractor, for instance one without hydrogens or with ten conformers. `distance_mean` and
`distance_std` of the configuration are statistics of the data: those of the mini were measured on its own. `--help`
lists every option.
"""

from hf_molrep.training.pretraining import main

if __name__ == "__main__":
    main("uni_mol")
