"""What embeddings distinguish: cosine distance between molecules that differ in one respect only.

    python -m benchmarks.distinguish

The pairs are fixed in `benchmarks/splits/distinguish_pairs.csv`. They were made from real molecules of the IUPAC set
(PubChem; `--rewrite-pairs` makes them again) by one edit each: all stereo centres inverted (enantiomers), all double
bonds inverted (E/Z), a carboxylic acid as sodium salt or an amine as hydrochloride (salts), the same acid or amine
(de)protonated without counter-ion (charge states), one methyl group deuterated (isotopes), the best other tautomer of
RDKit's enumeration (tautomers). For scale: the same molecule as a random SMILES (rewriting), one of the same formula
with another connectivity (isomers), a random other molecule (other molecules).

An edit is *seen* if the cosine distance exceeds 1e-4; a distance of 0 means that the processor or the model discards
the difference. Morgan fingerprints (1 - Tanimoto), with and without chirality, are given for comparison.
"""

import csv
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from benchmarks.harness import checkpoints
from benchmarks.harness.data import data_folder
from benchmarks.harness.report import SPLITS, argument_parser, markdown_table, write_report
from hf_molrep.chem import MoleculeError, canonical_smiles, inchikey_block, molecular_formula, parse, random_smiles
from hf_molrep.chem.fingerprints import morgan_fingerprints
from hf_molrep.inference.checkpoints import resolve_checkpoint

SEEN = 1e-4
ACID, AMINE = "[CX3](=O)[OX2H1]", "[NX3;!$(N-C=[O,S,N]);!$(N-[a]);!$(N-[!#6;!#1]);!$(N-C#N)]-[CX4]"


def _edited(smiles: str, edit: Callable) -> str | None:
    """Return the canonical SMILES after `edit(mol)`; None if the edit does not apply or gives the same molecule."""
    from rdkit import Chem

    mol = Chem.RWMol(parse(smiles))
    if not edit(mol):
        return None
    try:
        result = canonical_smiles(Chem.MolToSmiles(mol))
    except MoleculeError:
        return None
    return result if result != canonical_smiles(smiles) else None


def enantiomer(smiles: str) -> str | None:
    """Invert all tetrahedral centres; None without specified centres, and for meso compounds."""
    from rdkit.Chem import ChiralType

    swapped = {
        ChiralType.CHI_TETRAHEDRAL_CW: ChiralType.CHI_TETRAHEDRAL_CCW,
        ChiralType.CHI_TETRAHEDRAL_CCW: ChiralType.CHI_TETRAHEDRAL_CW,
    }

    def edit(mol) -> bool:
        centres = [atom for atom in mol.GetAtoms() if atom.GetChiralTag() in swapped]
        for atom in centres:
            atom.SetChiralTag(swapped[atom.GetChiralTag()])
        return bool(centres)

    return _edited(smiles, edit)


def turned_over(smiles: str) -> str | None:
    """Exchange E and Z of all specified double bonds; None without one."""
    from rdkit.Chem import BondStereo

    swapped = {
        BondStereo.STEREOE: BondStereo.STEREOZ,
        BondStereo.STEREOZ: BondStereo.STEREOE,
        BondStereo.STEREOCIS: BondStereo.STEREOTRANS,
        BondStereo.STEREOTRANS: BondStereo.STEREOCIS,
    }

    def edit(mol) -> bool:
        bonds = [bond for bond in mol.GetBonds() if bond.GetStereo() in swapped]
        for bond in bonds:
            bond.SetStereo(swapped[bond.GetStereo()])
        return bool(bonds)

    return _edited(smiles, edit)


def charged(smiles: str) -> str | None:
    """Make the first carboxylic acid a carboxylate, else the first aliphatic amine an ammonium; None without both."""
    from rdkit import Chem

    def edit(mol) -> bool:
        acid = mol.GetSubstructMatch(Chem.MolFromSmarts(ACID))
        amine = mol.GetSubstructMatch(Chem.MolFromSmarts(AMINE))
        if not acid and not amine:
            return False
        atom = mol.GetAtomWithIdx(acid[2] if acid else amine[0])
        atom.SetFormalCharge(-1 if acid else 1)
        hydrogens = atom.GetTotalNumHs()
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(hydrogens + (-1 if acid else 1))
        atom.UpdatePropertyCache()
        return True

    return _edited(smiles, edit)


def salt(smiles: str) -> str | None:
    """Apply [`charged`], and add the counter-ion: sodium or chloride."""
    ion = charged(smiles)
    if ion is None:
        return None
    return canonical_smiles(f"{ion}.{'[Cl-]' if '+' in ion else '[Na+]'}")


def deuterated(smiles: str) -> str | None:
    """Deuterate the first methyl group; None without one."""
    from rdkit import Chem

    def edit(mol) -> bool:
        methyl = mol.GetSubstructMatch(Chem.MolFromSmarts("[CX4;H3]"))
        if not methyl:
            return False
        atom = mol.GetAtomWithIdx(methyl[0])
        atom.SetNoImplicit(True)
        atom.SetNumExplicitHs(0)
        for _ in range(3):
            deuterium = Chem.Atom(1)
            deuterium.SetIsotope(2)
            mol.AddBond(methyl[0], mol.AddAtom(deuterium), Chem.BondType.SINGLE)
        Chem.SanitizeMol(mol)
        return True

    return _edited(smiles, edit)


def tautomer(smiles: str) -> str | None:
    """Return the other tautomer with the highest score of RDKit's enumeration; None if there is only one."""
    from rdkit import Chem
    from rdkit.Chem.MolStandardize.rdMolStandardize import TautomerEnumerator
    from rdkit.rdBase import BlockLogs

    enumerator = TautomerEnumerator()
    enumerator.SetMaxTautomers(50)
    enumerator.SetRemoveSp3Stereo(False)
    enumerator.SetRemoveBondStereo(False)
    block = BlockLogs()
    scores = {
        canonical_smiles(Chem.MolToSmiles(mol)): enumerator.ScoreTautomer(mol)
        for mol in enumerator.Enumerate(parse(smiles))
    }
    del block
    scores.pop(canonical_smiles(smiles), None)
    return max(scores, key=lambda text: (scores[text], text), default=None)


EDITS: dict[str, Callable[[str], str | None]] = {
    "enantiomers": enantiomer,
    "E/Z": turned_over,
    "salts": salt,
    "charge states": charged,
    "isotopes": deuterated,
    "tautomers": tautomer,
}


def make_pairs(smiles: Sequence[str], each: int, seed: int = 0) -> Iterator[tuple[str, str, str]]:
    """
    Make (kind, SMILES, partner's SMILES), `each` of every kind, from one-fragment molecules of 8 to 40 heavy atoms.

    Raises:
        ValueError: too few molecules that a kind of edit applies to.
    """

    rng = np.random.default_rng(seed)
    order = [smiles[place] for place in rng.permutation(len(smiles)) if "." not in smiles[place]]
    suited = (text for text in order if 8 <= parse(text).GetNumHeavyAtoms() <= 40)
    pool = [text for text, _ in zip(suited, range(40 * each), strict=False)]
    for kind, edit in EDITS.items():
        found = 0
        for text in pool:
            if found < each and (partner := edit(text)) is not None:
                yield kind, text, partner
                found += 1
        if found < each:
            raise ValueError(f"only {found} pairs of {kind} among {len(pool)} molecules; {each} are wanted")
    for text in pool[:each]:
        yield "rewriting", text, random_smiles(text, rng)
    first_of: dict[str, tuple[str, str]] = {}
    found = 0
    for text in pool:
        formula, block = molecular_formula(text), inchikey_block(text)
        other, other_block = first_of.setdefault(formula, (text, block))
        if found < each and block != other_block:
            yield "isomers", other, text
            found += 1
    for first, second in zip(pool[:each], pool[each : 2 * each], strict=True):
        yield "other molecules", first, second


def read_pairs(file: Path) -> dict[str, list[tuple[str, str]]]:
    """Read the pairs of SMILES of each kind of difference."""
    pairs: dict[str, list[tuple[str, str]]] = defaultdict(list)
    with file.open(newline="") as lines:
        for row in csv.DictReader(lines):
            pairs[row["kind"]].append((row["smiles"], row["partner"]))
    return dict(pairs)


def write_pairs(file: Path, each: int, seed: int) -> None:
    """Make the pairs from the IUPAC set (MIT-licensed collections of PubChem entries) and write them."""
    import pyarrow.parquet as pq

    table = pq.read_table(
        data_folder() / "iupac" / "smiles_iupac_pairs.parquet", columns=["smiles", "source", "primary"]
    )
    rows = table.to_pylist()
    smiles = [row["smiles"] for row in rows if row["primary"] and row["source"] in ("iupac2struct", "pyrfume")]
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w", newline="") as lines:
        writer = csv.writer(lines)
        writer.writerow(["kind", "smiles", "partner"])
        writer.writerows(make_pairs(smiles, each, seed))


def distances(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Compute the cosine distance of corresponding rows, `[pairs]`; exactly 0 for equal rows."""
    first, second = checkpoints.normalised(first.astype(np.float64)), checkpoints.normalised(second.astype(np.float64))
    return ((first - second) ** 2).sum(axis=1) / 2  # = 1 - cosine, without its cancellation


def tanimoto_distances(first: Sequence[str], second: Sequence[str], chirality: bool) -> np.ndarray:
    """Compute 1 - Tanimoto of corresponding Morgan fingerprints (radius 2, 2,048 bits), `[pairs]`."""
    one, two = (morgan_fingerprints(part, include_chirality=chirality).astype(bool) for part in (first, second))
    return 1 - (one & two).sum(axis=1) / np.maximum((one | two).sum(axis=1), 1)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argument_parser(__doc__, "distinguish")
    parser.add_argument("--pairs", type=Path, default=SPLITS / "distinguish_pairs.csv")
    parser.add_argument("--rewrite-pairs", action="store_true", help="make the pairs again and overwrite their file")
    parser.add_argument("--each", type=int, default=100, help="pairs of each kind, when they are made")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(argv)
    import torch

    torch.set_num_threads(args.threads)
    folder = resolve_checkpoint(args.model)
    if args.rewrite_pairs or not args.pairs.is_file():
        write_pairs(args.pairs, args.each, args.seed)
    pairs = read_pairs(args.pairs)
    model, processor = checkpoints.load(folder)
    found = {}
    for kind, members in pairs.items():
        first, second = zip(*members, strict=True)
        (one, _), (two, _) = (checkpoints.embed(model, processor, part, truncation=True) for part in (first, second))
        usable = ~(np.isnan(one).any(axis=1) | np.isnan(two).any(axis=1))
        found[kind] = {
            "embedding": distances(one[usable], two[usable]),
            "morgan": tanimoto_distances(first, second, chirality=False),
            "morgan_chiral": tanimoto_distances(first, second, chirality=True),
        }
    scale = found["other molecules"]["embedding"].mean() if "other molecules" in found else float("nan")
    rows = []
    for kind, values in found.items():
        distance = values["embedding"]
        rows.append(
            [
                kind,
                len(distance),
                f"{distance.mean():.4f} ± {distance.std(ddof=1):.4f}",
                f"{distance.mean() / scale:.2f}",
                f"{(distance > SEEN).mean():.0%}",
                *(
                    f"{values[name].mean():.3f} ({(values[name] > 0).mean():.0%})"
                    for name in ("morgan", "morgan_chiral")
                ),
            ]
        )
    header = ["difference", "pairs", "cosine distance", "of that of other molecules", f"seen (> {SEEN:g})"]
    header += ["Morgan, 1 - Tanimoto (seen)", "Morgan with chirality"]
    text = [
        "# What the embedding distinguishes\n",
        markdown_table(header, rows),
        f"\n- Mean ± standard deviation over the pairs; the processor standardises with `{processor.standardize}`.",
    ]
    raw = {kind: {name: column.tolist() for name, column in values.items()} for kind, values in found.items()}
    write_report(args.name, "\n".join(text), raw, args, folder)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
