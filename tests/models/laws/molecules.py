"""Laws 3, 4, 5 and 10: what the chemistry demands of an embedding, and of bad input."""

import numpy as np
import torch

from hf_molrep.chem.smiles import MoleculeError
from hf_molrep.processing.contract import MoleculeProcessor
from tests.models.laws.checks import require, require_same, rotation
from tests.models.laws.hooks import MethodHooks

BAD_SMILES = {
    "empty": "",
    "white space": " \t ",
    "invalid valence": "CC(C)(C)(C)C",
    "unclosed ring": "C1CC",
    "open branch": "CC(C",
    "not SMILES": "hello world",
    "too long": "C" * 100_000,
    "not a string": None,
}
ODD_SMILES = {
    "one atom": "C",
    "hydrogen": "[H][H]",
    "salt": "[Na+].[Cl-]",
    "charge": "C[N+](C)(C)C",
    "zwitterion": "[NH3+]CC(=O)[O-]",
    "isotope": "[13CH4]",
    "wildcard": "*CC",
    "atom maps": "[CH3:1][OH:2]",
    "metal": "[Fe]",
    "organometallic": "C[Mg]Br",
    "mixture": "CCO.O",
}


class MoleculeLaws(MethodHooks):
    @torch.no_grad()
    def test_law_03_renumbering(self):
        """The order of the atoms does not matter."""
        model = self.build("model")
        expected = model(**self.inputs()).pooler_output
        rng = np.random.default_rng(0)
        for _ in range(3):
            actual = model(**self.renumbered(rng)).pooler_output
            require_same(3, "embedding of renumbered molecules", actual, expected, self.tolerance)

    @torch.no_grad()
    def test_law_04_alone_and_in_a_batch(self):
        """A molecule alone is the same molecule in any batch, at any place."""
        model = self.build("model")
        expected = model(**self.inputs()).pooler_output
        require(4, bool((expected[0] - expected[1]).abs().max() > 100 * self.tolerance), "all molecules look the same")
        alone = torch.cat([model(**self.inputs([smiles])).pooler_output for smiles in self.molecules])
        require_same(4, "alone", alone, expected, self.tolerance)
        turned = model(**self.inputs(self.molecules[::-1])).pooler_output.flip(0)
        require_same(4, "reversed batch", turned, expected, self.tolerance)

    @torch.no_grad()
    def test_law_05_motion(self):
        """Rotation and translation leave the embedding; reflection does what is documented."""
        model = self.build("model")
        expected = model(**self.inputs()).pooler_output
        rng = np.random.default_rng(0)
        for _ in range(3):
            shift = torch.from_numpy(5 * rng.standard_normal(3))
            actual = model(**self.moved(rotation(rng), shift)).pooler_output
            require_same(5, "embedding of turned molecules", actual, expected, self.tolerance)
        mirrored = model(**self.moved(rotation(rng, reflect=True), torch.zeros(3, dtype=torch.float64))).pooler_output
        changes = bool((mirrored - expected).abs().max() > 10 * self.tolerance)
        require(5, changes == self.reflection_changes, f"reflection changes the embedding: {changes}")

    def test_law_10_contract(self):
        """The processor says what it reads, and refuses everything else in words (`processing/contract.py`)."""
        processor = self.processor()
        require(10, isinstance(processor, MoleculeProcessor), "the processor lacks a part of the contract")
        for name, kind in (("pads", bool), ("truncates", bool), ("reports", tuple), ("inputs", tuple)):
            require(10, isinstance(getattr(processor, name), kind), f"{name} is no {kind.__name__}")
        require(10, all(isinstance(names, frozenset) for names in processor.inputs), "inputs are sets of columns")
        fields = processor.config_fields()
        config = self.config()
        require(10, all(hasattr(config, name) for name in fields), f"{sorted(fields)} are not all in the configuration")
        for wrong in ({"no_such_column": ["C"]}, {}, ["C"]):
            try:
                processor.featurize(wrong)
            except MoleculeError:
                require(10, False, f"{wrong!r} is no molecule's fault")
            except ValueError:
                continue
            require(10, False, f"featurize accepts {wrong!r}")
        features = processor.featurize({"smiles": ["CCO", "c1ccccc1"]})
        sizes = [processor.size(feature) for feature in features]
        require(10, all(isinstance(size, int) and size > 0 for size in sizes), f"sizes {sizes}")
        require(10, sizes[0] < sizes[1], "size does not grow with the molecule")
        for name in processor.reports:
            require(10, all(isinstance(feature[name], str) for feature in features), f"no report {name}")

    def test_law_10_bad_smiles(self, capfd):
        """Bad SMILES raise MoleculeError, or stand as such in their place; nothing is printed."""
        processor = self.processor()
        capfd.readouterr()
        for what, bad in BAD_SMILES.items():
            error = None
            try:
                processor(["CCO", bad], return_tensors="pt")
            except MoleculeError as raised:
                error = raised
            require(10, error is not None, f"{what}: accepted")
            require(10, error.smiles == bad and bool(error.reason), f"{what}: error about {error.smiles!r}")
        batch = ["CCO", *BAD_SMILES.values(), "C"]
        results = processor.featurize({"smiles": batch}, on_error="skip")
        kinds = [isinstance(result, MoleculeError) for result in results]
        require(10, kinds == [False, *[True] * len(BAD_SMILES), False], f"skipped places: {kinds}")
        for place, smiles in ((0, "CCO"), (-1, "C")):
            pair = [
                processor.pad([feature]) for feature in (results[place], processor.featurize({"smiles": [smiles]})[0])
            ]
            require_same(10, f"{smiles} between bad ones", *pair)
        printed = capfd.readouterr()
        require(10, not printed.out and not printed.err, f"printed: {printed.out}{printed.err}")

    @torch.no_grad()
    def test_law_10_odd_molecules(self):
        """One atom, salts, charges, isotopes, `*`, metals work, or are refused by name; duplicates are equal."""
        processor, model = self.processor(), self.build("model")
        for what, smiles in ODD_SMILES.items():
            try:
                embedding = model(**processor([smiles], return_tensors="pt")).pooler_output
            except MoleculeError as error:
                require(10, what in self.refuses, f"{what}: refused ({error})")
                require(10, error.smiles == smiles, f"{what}: error about {error.smiles!r}")
            else:
                require(10, what not in self.refuses, f"{what}: should be refused")
                require(10, bool(embedding.isfinite().all()), f"{what}: embedding is not finite")
        first, second = model(**self.inputs(["CCO", "CCO"])).pooler_output
        require_same(10, "duplicate", second, first, self.tolerance)
