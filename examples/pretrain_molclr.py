"""
Pre-train MolCLR on molecules. The shipped `molclr-gin-mini` comes from

    python examples/prepare_molecules.py ../shared/data/pretrain/zinc250k.parquet \
        ../shared/data/pretrain/chembl_validation.parquet \
        --exclude ../shared/data/moleculenet/benchmark_blocks.parquet --out molecules
    python examples/pretrain_molclr.py --train_data molecules/train.parquet \
        --validation_data molecules/validation.parquet --output_dir runs/molclr-gin-mini \
        $(cat examples/molclr_gin_mini.args)

It resumes by itself when it was stopped; several processes: `torchrun --nproc_per_node 2` in place of `python`.
`--train_data` takes a Parquet or CSV file, a folder of them or a dataset on the Hub, with the column `smiles`.
`--collator '{"augmentation": "subgraph"}'` (or `"mix"`) chooses another augmentation of the paper, `--config FILE` with
`{"gnn_type": "gcn"}` its other encoder, `--processor FOLDER` another feature extractor, for instance one with explicit
hydrogens. `{"objective": "attribute_masking", "feature_dim": null}` or `"context_prediction"` in the configuration are
the objectives of pretrain-gnns. `--help` lists every option.
"""

from hf_molrep.training.pretraining import main

if __name__ == "__main__":
    main("molclr")
