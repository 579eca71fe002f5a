"""Fine-tuning on reference conformers: what is measured, what selects, how it continues, what is refused."""

import dataclasses

import numpy as np
import pytest
import torch

from hf_molrep import (
    UniMolConformerCollator,
    UniMolFeatureExtractor,
    UniMolForConformerGeneration,
    UniMolForPreTraining,
)
from hf_molrep.chem.conformer_clustering import rmsd_in_order
from hf_molrep.data.conformer_pairs import read_molecules
from hf_molrep.training.finetuning import finetune
from hf_molrep.training.reference_conformers import ReferenceConformers
from hf_molrep.training.settings import ConformerSettings, FinetuningSettings
from tests.data.test_conformer_pairs import write_table
from tests.models.uni_mol.tiny import tiny_config
from tests.training.test_finetuning import _StopAt

MOLECULES = {f"molecule {size}": f"OCC1{'C' * (size - 2)}N1" for size in range(3, 9)}
SPLIT = {"train": [0, 1, 2, 3], "valid": [4], "test": [5]}
SETTINGS = ConformerSettings(epochs=3, batch_size=2, pool=3, learning_rate=1e-3, bf16=False)


def save_start(folder, hydrogens: str = "none") -> str:
    torch.manual_seed(0)
    UniMolForPreTraining(tiny_config(num_recycles=2, hydrogens=hydrogens)).save_pretrained(folder)
    UniMolFeatureExtractor(hydrogens=hydrogens).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A table of conformers, and a checkpoint without hydrogens."""
    folder = tmp_path_factory.mktemp("conformers")
    write_table(folder / "table.parquet", MOLECULES)
    save_start(folder / "start")
    return folder


def references(folder, **changes) -> ReferenceConformers:
    molecules = read_molecules(folder / "table.parquet")
    arguments = {"path": folder / "table.parquet", "names": list(molecules), "smiles": list(molecules.values())}
    return ReferenceConformers(**arguments | {"split": SPLIT, "cache": str(folder / "cache")} | changes)


@pytest.fixture(scope="module")
def result(folder):
    return finetune(str(folder / "start"), references(folder), SETTINGS)


def test_the_loss_selects(result):
    assert result.task == "conformer-generation"
    assert isinstance(result.model, UniMolForConformerGeneration)
    assert result.selected_by == "loss"
    by_epoch = {round(record["epoch"]): record["eval_loss"] for record in result.history if "eval_loss" in record}
    assert sorted(by_epoch) == [1, 2, 3]
    assert result.best_epoch == min(by_epoch, key=by_epoch.get)
    assert result.valid_metrics["loss"] == pytest.approx(min(by_epoch.values()), rel=1e-5)
    terms = {key for record in result.history for key in record if key.startswith("loss_")}
    assert terms == {"loss_coordinate", "loss_distance"}
    assert result.settings["metric"] == "loss"


def test_distances_before_and_after(folder, result):
    """Those of heavy atoms, of the pair that the collator draws for the molecule."""
    data = references(folder)
    prepared = data.prepare(result.processor, SETTINGS)
    (row,) = prepared.rows["test"].rows
    batch = UniMolConformerCollator(result.processor, seed=SETTINGS.seed)([row])
    with torch.no_grad():
        moved = result.model.eval()(**batch).coordinates
    target = batch["target_pos"][:, 1:-1].numpy()
    expected = [rmsd_in_order(pos[:, 1:-1].numpy(), target).item() for pos in (batch["pos"], moved)]
    np.testing.assert_allclose(result.test_predictions, [expected], rtol=1e-5)
    assert result.task_names == ["rmsd_start", "rmsd"]
    assert result.test_metrics["rmsd_start"] == pytest.approx(expected[0], rel=1e-5)
    assert result.test_metrics["rmsd"] == pytest.approx(expected[1], rel=1e-5)
    total = result.test_metrics["coordinate"] + result.test_metrics["distance"]
    assert result.test_metrics["loss"] == pytest.approx(total, rel=1e-5)


def test_with_all_hydrogens(folder, tmp_path):
    """The checkpoint says which hydrogens there are; distances are those of heavy atoms."""
    start = save_start(tmp_path / "start", "all")
    settings = dataclasses.replace(SETTINGS, epochs=1)
    data = references(folder)
    prepared = data.prepare(UniMolFeatureExtractor(hydrogens="all"), settings)
    assert all((row["z"] == 1).sum() > 5 for rows in prepared.rows.values() for row in rows.rows)
    result = finetune(start, data, settings)
    assert np.isfinite(result.test_predictions).all()
    heavy = references(folder).prepare(UniMolFeatureExtractor(hydrogens="none"), settings)
    assert len(heavy.rows["test"].rows[0]["z"]) == len(MOLECULES["molecule 8"].replace("1", ""))
    with pytest.raises(ValueError, match="not with polar ones alone"):
        data.prepare(UniMolFeatureExtractor(hydrogens="polar"), settings)


def test_a_killed_run_continues_to_the_same_result(folder, result, tmp_path):
    start, killed = str(folder / "start"), tmp_path / "killed"
    with pytest.raises(KeyboardInterrupt):
        finetune(start, references(folder), SETTINGS, output_dir=killed, callbacks=[_StopAt(3)])
    continued = finetune(start, references(folder), SETTINGS, output_dir=killed, resume=True)
    np.testing.assert_array_equal(result.test_predictions, continued.test_predictions)
    with pytest.raises(ValueError, match="pool was 3 and is 2"):
        finetune(start, references(folder), dataclasses.replace(SETTINGS, pool=2), output_dir=killed, resume=True)


def test_molecules_that_cannot_be_used(folder):
    """Too many atoms, or a name without conformers in the table: left out, with the reason."""
    names, smiles = [*MOLECULES, "missing"], [*MOLECULES.values(), "CCO"]
    data = references(folder, names=names, smiles=smiles, split={**SPLIT, "test": [6, 5]})
    prepared = data.prepare(UniMolFeatureExtractor(hydrogens="none", max_atoms=9), SETTINGS)
    assert set(prepared.failures) == {5, 6}
    assert "max_atoms" in prepared.failures[5].reason
    assert "none of its reference conformers" in prepared.failures[6].reason
    assert len(prepared.rows["test"]) == 0
    assert [row["row_id"] for row in prepared.rows["train"].rows] == SPLIT["train"]


def test_without_validation_the_last_epoch_is_kept(folder):
    split = {"train": [0, 1]}
    tuned = finetune(str(folder / "start"), references(folder, split=split), dataclasses.replace(SETTINGS, epochs=1))
    assert tuned.selected_by == "last epoch"
    assert tuned.valid_metrics == tuned.test_metrics == {}


def test_refused(folder, tmp_path):
    start, data = str(folder / "start"), references(folder)
    with pytest.raises(ValueError, match="conformer-generation takes ConformerSettings, not FinetuningSettings"):
        finetune(start, data, FinetuningSettings())
    with pytest.raises(ValueError, match="the metric of conformer generation is loss, not 'rmse'"):
        finetune(start, data, dataclasses.replace(SETTINGS, metric="rmse"))
    unwatched = references(folder, split={"train": [0]})
    with pytest.raises(ValueError, match="needs a validation part"):
        finetune(start, unwatched, dataclasses.replace(SETTINGS, metric="loss"))
    with pytest.raises(ValueError, match="names molecule 6; there are 6"):
        references(folder, split={"train": [6]})
