"""What a model computes on a CPU a few molecules at a time is what it computes of the whole batch."""

import pytest
import torch

from hf_molrep import (
    UniMolConformerCollator,
    UniMolDataCollator,
    UniMolFeatureExtractor,
    UniMolForConformerGeneration,
    UniMolForPreTraining,
    UniMolForPropertyPrediction,
    UniMolModel,
)
from hf_molrep.models.uni_mol import modeling_uni_mol as module
from tests.models.laws.checks import draw_weights
from tests.models.uni_mol.test_conformer_generation import rows as conformer_rows
from tests.models.uni_mol.tiny import atoms_and_coordinates, tiny_config

MOLECULES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "C#N", "CN1CCC[C@H]1c1cccnc1", "O"]


EXTRACTOR = UniMolFeatureExtractor(hydrogens="none")


def features() -> list[dict]:
    z, pos = zip(*map(atoms_and_coordinates, MOLECULES), strict=True)
    return [feature | {"row_id": row} for row, feature in enumerate(EXTRACTOR.featurize({"z": z, "pos": pos}))]


def plain() -> dict:
    return dict(EXTRACTOR.pad(features()))


def with_targets() -> dict:
    return UniMolDataCollator(EXTRACTOR, mask_probability=0.4)(features())


def with_references() -> dict:
    return UniMolConformerCollator(EXTRACTOR)(conformer_rows())


CASES = {
    "model": (UniMolModel, plain),
    "properties": (UniMolForPropertyPrediction, lambda: plain() | {"labels": torch.arange(5.0)[:, None]}),
    "pre-training": (UniMolForPreTraining, with_targets),
    "conformers": (UniMolForConformerGeneration, with_references),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("masked", [True, False])
def test_parts_give_what_the_whole_batch_gives(name, masked, monkeypatch):
    model_class, make = CASES[name]
    model, batch = draw_weights(model_class(tiny_config(kernel_init="uniform"))).eval(), make()
    if not masked:  # nothing is padded: molecules of one size
        batch = {key: value[:1].repeat(5, *[1] * (value.dim() - 1)) for key, value in batch.items()}
        longest = int(batch.pop("attention_mask")[0].sum())
        batch = {key: value if key == "labels" else value[:, :longest] for key, value in batch.items()}
    calls = []
    encode = module.UniMolModel.encode
    monkeypatch.setattr(module.UniMolModel, "encode", lambda self, *a, **k: calls.append(a) or encode(self, *a, **k))
    found = {}
    for tokens in (10**9, 20):
        monkeypatch.setattr(module, "CPU_TOKENS", tokens)
        calls.clear()
        model.zero_grad()
        output = model(**batch)
        output = output.to_tuple()
        flat = [t for value in output for t in (value.values() if isinstance(value, dict) else [value])]
        sum(value.float().square().mean() for value in flat).backward()
        found[tokens] = (flat, [parameter.grad.clone() for parameter in model.parameters()], len(calls))
    (whole, gradients, once), (parts, gradients_of_parts, several) = found.values()
    assert (once, several > 1) == (1, True)
    for one, other in zip(whole, parts, strict=True):
        if one.dim() > 1 and one.shape[:2] == batch["input_ids"].shape and masked:
            real = batch["attention_mask"].view(*one.shape[:2], *[1] * (one.dim() - 2))
            one, other = one * real, other * real  # states of padding mean nothing
        torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)
    if name != "model" or not masked:
        for one, other in zip(gradients, gradients_of_parts, strict=True):
            torch.testing.assert_close(other, one, atol=1e-4, rtol=1e-4)
