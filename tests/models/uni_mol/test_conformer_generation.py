"""Uni-Mol's conformer generation: the model and its loss."""

import argparse

import numpy as np
import pytest
import torch
from huggingface_hub.errors import StrictDataclassClassValidationError

from hf_molrep import (
    AutoModelForConformerGeneration,
    UniMolConformerCollator,
    UniMolFeatureExtractor,
    UniMolForConformerGeneration,
    UniMolForPreTraining,
)
from hf_molrep.losses import conformer_losses, kabsch_rotation
from hf_molrep.models.uni_mol.conversion_uni_mol import convert, convert_model
from tests.models.laws.checks import draw_weights, quiet_loading, rotation
from tests.models.laws.hooks import GOLDENS
from tests.models.uni_mol.test_uni_mol import SMALL, original_state
from tests.models.uni_mol.tiny import atoms_and_coordinates, tiny_config

MOLECULES = ["CCO", "CC(=O)Oc1ccccc1C(=O)O", "CN1CCC[C@H]1c1cccnc1", "C#N"]


def build(**options) -> UniMolForConformerGeneration:
    """Gaussians as wide as trained ones: those of random width can be narrower than float32 is exact."""
    model = draw_weights(UniMolForConformerGeneration(tiny_config(num_recycles=3, **options)))
    pair_embedding = model.uni_mol.pair_embedding
    with torch.no_grad():
        pair_embedding.means.copy_(torch.linspace(0, 6, 16)[None])
        pair_embedding.stds.abs_().add_(0.5)
        pair_embedding.mul.mul_(0.1).add_(1.0)
        pair_embedding.bias.mul_(0.1)
    return model.eval()


def rows(molecules=MOLECULES, starts: int = 3, targets: int = 2) -> list[dict]:
    """Molecules with several starting conformers and references drawn near them."""
    rng = np.random.default_rng(0)
    found = []
    for row_id, smiles in enumerate(molecules):
        z, pos = atoms_and_coordinates(smiles)
        pos = pos + 0.3 * rng.standard_normal((starts, len(z), 3))
        (feature,) = UniMolFeatureExtractor(hydrogens="none").featurize({"z": [z], "pos": [pos]})
        target = pos[0] + 0.3 * rng.standard_normal((targets, len(z), 3))
        rmsd = rng.uniform(0.1, 2.0, targets * starts).astype(np.float32)
        found.append(feature | {"target_pos": target.astype(np.float32).ravel(), "rmsd": rmsd, "row_id": row_id})
    return found


def collator(**options) -> UniMolConformerCollator:
    return UniMolConformerCollator(UniMolFeatureExtractor(hydrogens="none"), **options)


def batch(molecules=MOLECULES, **options) -> dict[str, torch.Tensor]:
    return collator(**options)(rows(molecules))


# ---- the model


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
@torch.no_grad()
def test_equivariance(dtype, tolerance):
    """Coordinates turn, move and are mirrored with the molecule; distances do not change."""
    model, inputs = build().to(dtype), batch()
    del inputs["target_pos"]
    inputs["pos"] = inputs["pos"].to(dtype)
    expected = model(**inputs)
    real = inputs["attention_mask"].bool()
    assert expected.coordinates.dtype == dtype
    assert (expected.coordinates - inputs["pos"])[real].abs().max() > 0.01, "the head does something"
    torch.testing.assert_close(expected.distances, expected.distances.transpose(1, 2), atol=tolerance, rtol=0)
    rng = np.random.default_rng(0)
    for reflect in (False, True):
        matrix, shift = rotation(rng, reflect).to(dtype), torch.randn(3, dtype=dtype)
        moved = model(**{**inputs, "pos": inputs["pos"] @ matrix.T + shift})
        turned = expected.coordinates @ matrix.T + shift
        torch.testing.assert_close(moved.coordinates[real], turned[real], atol=tolerance, rtol=0)
        torch.testing.assert_close(moved.distances, expected.distances, atol=tolerance, rtol=0)


@torch.no_grad()
def test_padding_does_not_matter():
    model, inputs = build(), batch()
    together = model(**inputs)
    for row, smiles in enumerate(MOLECULES):
        length = int(inputs["attention_mask"][row].sum())
        one = {name: inputs[name][row : row + 1, :length] for name in ("input_ids", "pos")}
        alone = model(**one)
        torch.testing.assert_close(together.coordinates[row, :length], alone.coordinates[0], atol=1e-5, rtol=0)
        torch.testing.assert_close(
            together.distances[row, :length, :length], alone.distances[0], atol=1e-5, rtol=0, msg=smiles
        )
        assert not together.coordinates[row, length:].any()
        assert not together.distances[row, length:].any()


def test_original():
    """
    `goldens/uni_mol_conformers.npz` holds what the public code gives (deepmodeling/Uni-Mol 90f52c4,
    `unimol/models/conf_gen.py` and `unimol/losses/conf_gen.py`, on the modules of Uni-Core ace6fae) for the weights of
    `original_state`, 4 recycles: coordinates and distances of each molecule alone, as padding moves the original's
    coordinates; the two losses of a padded batch of them; gradients of the sum of both.
    """
    golden = {key: torch.from_numpy(value) for key, value in np.load(GOLDENS / "uni_mol_conformers.npz").items()}
    state = original_state("uni_mol/", **SMALL)
    model = convert_model({f"unimol.{name}": value for name, value in state.items()})
    assert isinstance(model, UniMolForConformerGeneration)
    ids = golden["input_ids"].long()
    real = ids != 0
    output = model(ids, golden["pos"], real.long(), target_pos=golden["target_pos"])
    torch.testing.assert_close(output.coordinates, golden["coordinates"], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(output.distances, golden["distances"], atol=2e-5, rtol=1e-5)
    for name in ("coordinate", "distance"):
        torch.testing.assert_close(output.losses[name], golden[name], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.loss, golden["coordinate"] + golden["distance"], atol=1e-5, rtol=1e-5)
    output.loss.backward()
    backbone = model.uni_mol
    for name, parameter in {
        "kernel": backbone.pair_embedding.dense.bias,
        "qkv": backbone.layers[0].attention.qkv_proj.bias,
        "norm": backbone.embedding_norm.weight,
        "embeddings": backbone.token_embeddings.weight,
    }.items():
        torch.testing.assert_close(parameter.grad, golden[f"gradient_{name}"], atol=1e-4, rtol=1e-4)


def test_recycling_is_several_passes():
    """One pass is the encoder as it is; each further one begins with the norm of the embeddings."""
    model = build()
    inputs = batch()
    arguments = inputs["input_ids"], inputs["pos"], inputs["attention_mask"]
    backbone = model.uni_mol
    with torch.enable_grad():
        once, pair, _ = backbone.encode(*arguments)
        states = backbone.embedding_norm(once) * inputs["attention_mask"][..., None]
        for layer in backbone.layers:
            states, pair = layer(states, pair)
        twice, pair_twice, _ = backbone.encode(*arguments, passes=2)
    torch.testing.assert_close(twice, states)
    torch.testing.assert_close(pair_twice, pair)
    with torch.no_grad():  # where pairs are changed in place
        again, pair_again, _ = backbone.encode(*arguments, passes=2)
    torch.testing.assert_close(again, states.detach(), atol=1e-5, rtol=0)
    real = inputs["attention_mask"].bool()[:, None, None].expand_as(pair)
    torch.testing.assert_close(pair_again[real], pair.detach()[real], atol=1e-5, rtol=0)


@pytest.mark.parametrize("recycles", [1, 3])
def test_every_parameter_has_a_gradient(recycles):
    model = build()
    model.config.num_recycles = recycles
    model.train()(**batch()).loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    assert all(gradient is not None and gradient.isfinite().all() for gradient in gradients.values())
    without = {name for name, gradient in gradients.items() if not gradient.any()}
    last = "uni_mol.layers.1."
    unused = {"uni_mol.final_norm.weight", "uni_mol.final_norm.bias"}
    if recycles == 1:  # nothing comes after what the last layer does to the states
        unused |= {name for name in gradients if name.startswith((f"{last}up", f"{last}down", f"{last}mlp"))}
        unused |= {f"{last}attention.out_proj.weight", f"{last}attention.out_proj.bias"}
    assert without == unused


def test_gradient_checkpointing():
    inputs, found = batch(), []
    for checkpointing in (False, True):
        model = build().train()
        if checkpointing:
            enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
            enable()
        model(**inputs).loss.backward()
        found.append(model.uni_mol.token_embeddings.weight.grad)
    torch.testing.assert_close(*found)


def test_saved_and_loaded(tmp_path):
    model, inputs = build(), batch()
    model.save_pretrained(tmp_path)
    loaded = AutoModelForConformerGeneration.from_pretrained(tmp_path)
    assert isinstance(loaded, UniMolForConformerGeneration)
    with torch.no_grad():
        assert torch.equal(loaded(**inputs).coordinates, model(**inputs).coordinates)


def test_starts_from_pre_training(tmp_path):
    """Backbone and both heads come from pre-training; what is left over is no surprise."""
    pre_trained = draw_weights(UniMolForPreTraining(tiny_config()))
    pre_trained.save_pretrained(tmp_path)
    with quiet_loading():
        model, info = UniMolForConformerGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    expected = pre_trained.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in model.state_dict().items())


def test_released_files(tmp_path):
    """Files of the original's conformer generation, with what pre-training may have left in them."""
    state = {f"unimol.{name}": value for name, value in original_state("a/", **SMALL).items()}
    file = tmp_path / "qm9_220908.pt"
    torch.save({"args": argparse.Namespace(lr=1e-4), "model": state}, file)
    out = tmp_path / "out"
    convert(file, out)
    assert UniMolFeatureExtractor.from_pretrained(out).hydrogens == "none"
    model, info = AutoModelForConformerGeneration.from_pretrained(out, output_loading_info=True)
    assert not any(info.values())
    assert torch.equal(model.distance_head.dense.weight, state["unimol.dist_head.dense.weight"])
    assert model.coordinate_head.norm is None


def test_refused():
    with pytest.raises(StrictDataclassClassValidationError, match="num_recycles must be 1 or more"):
        tiny_config(num_recycles=0)
    inputs = batch()
    with pytest.raises(ValueError, match="each row is one conformer"):
        build()(inputs["input_ids"], inputs["pos"][:, None], inputs["attention_mask"])


def test_overfits():
    """Four molecules, one start and one reference each: nearer to the reference than the start is."""
    torch.manual_seed(0)
    config = tiny_config(num_recycles=2, kernel_init="uniform", initializer_range=0.15)
    model = UniMolForConformerGeneration(config).train()
    inputs = collator()(rows(starts=1, targets=1))
    atoms = inputs["input_ids"] > 2
    start = conformer_losses(inputs["pos"], torch.cdist(inputs["pos"], inputs["pos"]), inputs["target_pos"], atoms)
    optimizer = torch.optim.Adam(model.parameters(), lr=4e-3)
    for _ in range(600):
        output = model(**inputs)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert output.losses["coordinate"] < 0.7 * start["coordinate"], output.losses
    assert output.losses["distance"] < 0.7 * start["distance"], output.losses


# ---- the loss


def by_hand(coordinates: np.ndarray, distances: np.ndarray, target: np.ndarray, atoms: np.ndarray) -> dict:
    """Kabsch by quaternions (Horn 1987), one molecule after the other."""
    differences, of_pairs = [], []
    for own, pairs, other, present in zip(coordinates, distances, target, atoms, strict=True):
        own, other, pairs = own[present], other[present], pairs[np.ix_(present, present)]
        own, other = own - own.mean(0), other - other.mean(0)
        s = other.T @ own
        n = np.array(
            [
                [s[0, 0] + s[1, 1] + s[2, 2], s[1, 2] - s[2, 1], s[2, 0] - s[0, 2], s[0, 1] - s[1, 0]],
                [0, s[0, 0] - s[1, 1] - s[2, 2], s[0, 1] + s[1, 0], s[2, 0] + s[0, 2]],
                [0, 0, -s[0, 0] + s[1, 1] - s[2, 2], s[1, 2] + s[2, 1]],
                [0, 0, 0, -s[0, 0] - s[1, 1] + s[2, 2]],
            ]
        )
        w, x, y, z = np.linalg.eigh(n, UPLO="U")[1][:, -1]
        turn = np.array(
            [
                [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
            ]
        )
        differences.append(np.abs(own - other @ turn.T).ravel())
        of_pairs.append(np.abs(pairs - np.linalg.norm(other[:, None] - other[None], axis=-1)).ravel())
    return {"coordinate": np.concatenate(differences).mean(), "distance": np.concatenate(of_pairs).mean()}


def test_loss_by_hand():
    rng = np.random.default_rng(0)
    atoms = np.arange(12)[None] < np.array([12, 7, 5, 4])[:, None]
    atoms[:, 0] = False  # a special token
    target = rng.standard_normal((4, 12, 3))
    coordinates = target @ rotation(rng).numpy().T + 0.3 * rng.standard_normal((4, 12, 3))
    coordinates[1] = -coordinates[1]  # mirrored: there only a proper rotation is right
    distances = rng.uniform(0, 5, (4, 12, 12))
    losses = conformer_losses(*map(torch.from_numpy, (coordinates, distances, target, atoms)))
    for name, expected in by_hand(coordinates, distances, target, atoms).items():
        assert losses[name].item() == pytest.approx(expected, rel=1e-6), name


def test_loss_does_not_see_where_the_target_lies():
    rng = np.random.default_rng(1)
    atoms = torch.ones(2, 6, dtype=torch.bool)
    coordinates, target = torch.from_numpy(rng.standard_normal((2, 2, 6, 3)))
    distances = torch.cdist(target, target)
    losses = conformer_losses(coordinates, distances, target, atoms)
    assert losses["distance"].item() < 1e-6
    moved = conformer_losses(coordinates, distances, target @ rotation(rng).T + 3.0, atoms)
    torch.testing.assert_close(moved["coordinate"], losses["coordinate"])
    mirrored = conformer_losses(target @ rotation(rng, reflect=True).T, distances, target, atoms)
    assert mirrored["coordinate"] > 0.1, "a molecule is not its mirror image"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("shape", ["plane", "line", "two atoms", "one atom"])
def test_flat_molecules(shape, dtype):
    """Fewer than three dimensions leave the rotation undetermined, not the loss."""
    rng = np.random.default_rng(0)
    atoms = {"plane": 5, "line": 4, "two atoms": 2, "one atom": 1}[shape]
    pos = torch.from_numpy(rng.standard_normal((1, atoms, 3))).to(dtype)
    pos[..., 2] = 0
    if shape == "line":
        pos[..., 1] = 0
    pos = pos - pos.mean(dim=1, keepdim=True)
    target = pos @ rotation(rng).to(dtype).T
    turn = kabsch_rotation(target, pos)
    torch.testing.assert_close(torch.linalg.det(turn), torch.ones(1, dtype=dtype))
    torch.testing.assert_close(target @ turn, pos, atol=1e-5, rtol=0)
    coordinates = pos.clone().requires_grad_()
    distances = torch.cdist(pos, pos)
    losses = conformer_losses(coordinates, distances, target + 0.1, torch.ones(1, atoms, dtype=torch.bool))
    assert losses["coordinate"].item() == pytest.approx(0.0, abs=1e-5)
    losses["coordinate"].backward()
    assert coordinates.grad.isfinite().all()


# ---- batches


def test_collator_is_seeded():
    """What a molecule draws depends on seed, epoch and its number alone."""
    everything = rows(starts=8, targets=4)
    one = collator()(everything)
    again = collator()(everything[::-1])
    for row in range(len(everything)):
        length = len(everything[row]["input_ids"])
        for name in ("pos", "target_pos"):
            assert torch.equal(one[name][row, :length], again[name][-1 - row, :length])
    assert not torch.equal(collator(epoch=1)(everything)["pos"], one["pos"])
    assert not torch.equal(collator(seed=1)(everything)["pos"], one["pos"])
    with pytest.raises(ValueError, match="row_id"):
        collator()([{key: value for key, value in everything[0].items() if key != "row_id"}])
    with pytest.raises(ValueError, match="values of rmsd"):
        collator()([everything[0] | {"rmsd": np.ones(3)}])


def test_collator_draws_by_distance():
    """References all alike; of the nearest starting conformers each by its weight; both centred."""
    (row,) = rows(["CCO"], starts=5, targets=2)
    row["rmsd"] = np.array([[0.1, 0.9, 0.5, 2.0, 3.0], [3.0, 3.0, 3.0, 0.2, 0.3]], dtype=np.float32)
    starts, targets = row["pos"].reshape(5, 3, 3), row["target_pos"].reshape(2, 3, 3)
    centred = targets - targets.mean(axis=1, keepdims=True)
    counts = np.zeros((2, 5))
    for epoch in range(2000):
        drawn = collator(nearest=3, epoch=epoch)([row])
        pos, target = drawn["pos"][0, 1:-1].numpy(), drawn["target_pos"][0, 1:-1].numpy()
        of_target = np.abs(centred - target).max(axis=(1, 2)).argmin()
        np.testing.assert_allclose(target, centred[of_target], atol=1e-6)
        counts[of_target, np.abs(starts - pos).max(axis=(1, 2)).argmin()] += 1
    weights = 1 / (row["rmsd"].astype(float) ** 4 + 0.1)
    weights[0, 3:] = weights[1, 1:3] = 0  # beyond the nearest three; of equals the first
    expected = 1000 * weights / weights.sum(axis=1, keepdims=True)
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected + 1)).all()
