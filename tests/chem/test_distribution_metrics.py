"""Metrics of generated molecules, against values worked out by hand."""

import numpy as np
import pytest
from scipy.stats import entropy, gaussian_kde

from hf_molrep.chem.distribution_metrics import (
    KL_DESCRIPTORS,
    DescriptorDistributions,
    MoleculeProfile,
    canonical_or_none,
    distribution_metrics,
    share_without_alerts,
)
from hf_molrep.chem.fingerprints import morgan_fingerprints, tanimoto
from hf_molrep.chem.smiles import MoleculeError

SMILES = ["CCO", "CCN", "c1ccccc1O", "c1ccccc1-c1ccncc1", "CC(=O)Nc1ccc(O)cc1", "C1CCCCC1", "CCCC(=O)OCC"]


def test_shares_of_texts():
    texts = ["OCC", "CCO", "C1CC", "", "CCN", "c1ccccc1O", "CCCl"]
    found = distribution_metrics(texts, {}, training={"CCO", "CCC"}, unique_at=(2, 4, 100))
    assert found["valid"] == pytest.approx(5 / 7)
    assert found["unique@2"] == 1 / 2  # ethanol twice
    assert found["unique@4"] == 3 / 4
    assert "unique@100" not in found
    assert found["novel"] == 3 / 4  # of four different molecules ethanol is known
    assert "novel" not in distribution_metrics(texts, {}, unique_at=())
    with pytest.raises(ValueError, match="none of 2 texts"):
        distribution_metrics(["C1CC", ""], {})


def test_similarities_are_those_of_all_pairs():
    generated, reference = SMILES[:4] + SMILES[:1], SMILES[3:]
    first, second = (morgan_fingerprints(smiles, size=1024) for smiles in (generated, reference))
    found = distribution_metrics(generated, {"Test": MoleculeProfile.of(reference)}, unique_at=())
    assert found["SNN/Test"] == pytest.approx(tanimoto(first, second).max(axis=1).mean())
    pairs = tanimoto(first, first)
    assert found["IntDiv1"] == pytest.approx(1 - pairs.mean())
    assert found["IntDiv2"] == pytest.approx(1 - np.sqrt((pairs**2).mean(axis=1)).mean())


def test_fragments_and_scaffolds_are_counted():
    profile = MoleculeProfile.of(["CCOC(=O)c1ccccc1", "c1ccccc1-c1ccncc1", "c1ccccc1Cc1ccccc1", "c1ccccc1C"])
    # BRICS cuts an ester at both sides of its oxygen; a scaffold of one ring does not count
    assert profile.fragments["[3*]O[3*]"] == 1
    assert profile.scaffolds == {"c1ccc(-c2ccncc2)cc1": 1, "c1ccc(Cc2ccccc2)cc1": 1}
    # ethane and propane have no BRICS bond: counts (2, 1) and (1, 1)
    alkanes = distribution_metrics(["CC", "CC", "CCC"], {"x": MoleculeProfile.of(["CC", "CCC"])}, unique_at=())
    assert alkanes["Frag/x"] == pytest.approx(3 / np.sqrt(5 * 2))
    assert np.isnan(alkanes["Scaf/x"])


def test_a_profile_survives_saving(tmp_path):
    profile = MoleculeProfile.of(SMILES)
    profile.save(tmp_path / "profile.npz")
    loaded = MoleculeProfile.load(tmp_path / "profile.npz")
    np.testing.assert_array_equal(loaded.fingerprints, profile.fingerprints)
    assert loaded.fingerprints.shape == (len(SMILES), 1024)
    assert (loaded.fragments, loaded.scaffolds) == (profile.fragments, profile.scaffolds)
    with pytest.raises(MoleculeError, match="ring 1 not closed"):
        MoleculeProfile.of(["C1CC"])


def test_descriptor_distributions():
    distributions = DescriptorDistributions.of(["C[C@H](N)O", "C[C@@H](N)O", "C1CC", *SMILES], molecules=5)
    assert set(distributions.values) == {*KL_DESCRIPTORS, "internal_similarity"}
    # the first five that are valid and, without stereo marks, different
    taken = ["CC(N)O", *SMILES[:4]]
    assert distributions.values["NumAromaticRings"].tolist() == [0, 0, 0, 1, 2]
    prints = morgan_fingerprints(taken, size=4096)
    pairs = tanimoto(prints, prints)
    np.fill_diagonal(pairs, 0)
    np.testing.assert_allclose(distributions.values["internal_similarity"], pairs.max(axis=1), rtol=1e-6)

    assert distributions.score(distributions) == pytest.approx(1)
    other = DescriptorDistributions.of(SMILES)
    divergences = other.divergences(distributions)
    p, q = distributions.values["MolWt"], other.values["MolWt"]
    points = np.linspace(min(p.min(), q.min()), max(p.max(), q.max()), 1000)
    assert divergences["MolWt"] == pytest.approx(
        entropy(gaussian_kde(p)(points) + 1e-10, gaussian_kde(q)(points) + 1e-10)
    )
    assert other.score(distributions) == pytest.approx(np.mean([np.exp(-value) for value in divergences.values()]))

    drawn = DescriptorDistributions.of(SMILES, molecules=3, seed=0)
    assert len(drawn.values["MolWt"]) == 3
    again = DescriptorDistributions.of(SMILES, molecules=3, seed=0)
    assert drawn.values["MolWt"].tolist() == again.values["MolWt"].tolist()
    with pytest.raises(ValueError, match="two different molecules"):
        DescriptorDistributions.of(["CCO", "OCC"])


def test_alerts_and_texts():
    assert share_without_alerts(["CCO", "O=C1C=CC(=O)C=C1"]) == 1 / 2  # benzoquinone is a PAINS
    with pytest.raises(ValueError, match="no catalogue 'MCF'"):
        share_without_alerts(["CCO"], "MCF")
    assert canonical_or_none("OC[C@H](N)C", stereo=False) == "CC(N)CO"
    assert canonical_or_none("CS(=O)C") == "CS(C)=O"  # as drawn
    assert canonical_or_none("") is None
