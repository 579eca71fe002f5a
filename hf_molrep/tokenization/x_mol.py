"""
Tokens of X-MOL: whole bracket atoms, `%NN`, `Cl`, `Br`, single characters (Xue et al. 2022, bm2-lab/X-MOL, Apache-2.0).

Ids 0 to 111 are those of the original's `molecule_dict`. That vocabulary has no `.` and few charged atoms, so that
salts would be unknown there; `EXTENSION` adds them from id 112 on, as the original's extended vocabularies do.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

PAD, CLS, SEP, MASK, UNK = "[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]"
MODEL_MAX_LENGTH = 512

TOKEN = r"\[[^\]]*\]|%[0-9]{2}|[^lr\[%][lr]*|(?m:.)"
"""The original reads characters, and appends `l` and `r` to the token before, whatever it is."""

BASE_VOCABULARY = (
    *(PAD, CLS, SEP, MASK),
    *("#", "%10", "%11", "%12", "%13", "(", ")", "-", "/", *"123456789", "="),
    *("B", "Br", "C", "Cl", "F", "I", "N", "O", "P", "S", "c", "n", "o", "p", "s"),
    *("[17O]", "[18OH]"),
    *("[B-]", "[B@-]", "[B@@-]", "[BH-]", "[BH2-]", "[BH3-]", "[Br+]"),
    *("[C+]", "[C-]", "[C@@H]", "[C@@]", "[C@H]", "[C@]", "[CH-]", "[CH2-]", "[CH2]", "[CH]", "[C]"),
    *("[I+]", "[IH2]"),
    *("[N+]", "[N-]", "[N@+]", "[N@@+]", "[N@@H+]", "[N@H+]", "[NH+]", "[NH]", "[N]"),
    *("[O+]", "[O-]", "[O]"),
    *("[P+]", "[P@+]", "[P@@+]", "[P@@H]", "[P@@]", "[P@H]", "[P@]", "[PH]"),
    *("[S+]", "[S@+]", "[S@@+]", "[S@@H]", "[S@@]", "[S@H]", "[S@]", "[SH3]", "[SH]"),
    *("[Si-]", "[Si]"),
    *("[Sn+2]", "[Sn+3]", "[Sn+]", "[Sn-]", "[SnH2+]", "[SnH2]", "[SnH4+2]", "[SnH6+3]", "[SnH]", "[Sn]"),
    *("[c-]", "[cH-]", "[c]", "[n+]", "[nH]", "[o+]", "[p+]", "[s+]", "[si]"),
    *("\\", UNK),
)
"""Token of each id of the original."""

EXTENSION = (
    *(".", "*", ":", "~", "0", *(f"%{number}" for number in range(14, 30))),
    *("[NH2+]", "[NH3+]", "[NH4+]", "[NH-]", "[OH+]", "[OH-]", "[O-2]", "[nH+]", "[n-]"),
    *("[H]", "[HH]", "[H+]", "[2H]", "[3H]", "[13C]", "[13CH]", "[13CH2]", "[13CH3]", "[13c]", "[13cH]", "[18F]"),
    *("[CH3]", "[OH]", "[B]", "[S-]", "[S]", "[SH+]", "[PH+]", "[PH2]", "[P-]", "[P]"),
    *("[SiH]", "[SiH2]", "[SiH3]", "[Se]", "[se]", "[SeH]", "[Te]", "[As]", "[Sb]", "[Ge]"),
    *("[F]", "[F-]", "[Cl]", "[Cl-]", "[Cl+3]", "[Br]", "[Br-]", "[I]", "[I-]"),
    *("[Li]", "[Li+]", "[Na]", "[Na+]", "[K]", "[K+]", "[Mg]", "[Mg+2]", "[Ca+2]", "[Sr+2]", "[Ba+2]"),
    *("[Al]", "[Al+3]", "[V]", "[Cr]", "[Cr+3]", "[Mn]", "[Mn+2]", "[Fe]", "[Fe+2]", "[Fe+3]", "[Co]", "[Co+2]"),
    *("[Co+3]", "[Ni]", "[Ni+2]", "[Cu]", "[Cu+2]", "[Zn]", "[Zn+2]", "[Ag+]", "[Cd+2]", "[Hg]", "[Hg+2]"),
    *("[Pb]", "[Pb+2]", "[Bi]", "[Pd]", "[Pd+2]", "[Pt]", "[Pt+2]"),
)
"""
Tokens from id 112 on: `.`, wildcard, further bonds and ring numbers, and the bracket atoms that 20 or more of 780,000
molecules of ZINC, ChEMBL, GEOM-Drugs and PubChem have, completed by their common charges.
"""

_TOKEN = re.compile(TOKEN)


def tokens(smiles: str) -> list[str]:
    """Split a SMILES as the tokenizer does."""
    return _TOKEN.findall(smiles)


def build_x_mol(extension: Sequence[str] = EXTENSION) -> PreTrainedTokenizerFast:
    """
    Make the tokenizer, `[CLS] SMILES [SEP]`.

    Args:
        extension: tokens with the ids from 112 on; none: the original's vocabulary.
    Raises:
        ValueError: an entry is in the original's vocabulary, appears twice, or would be read as several tokens.
    """
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: index for index, token in enumerate((*BASE_VOCABULARY, *extension))}
    if len(vocabulary) < len(BASE_VOCABULARY) + len(extension):
        raise ValueError("a token of the extension is in the vocabulary already")
    if split := [token for token in extension if tokens(token) != [token]]:
        raise ValueError(f"{split[0]!r} is not one token of SMILES but {tokens(split[0])}")
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token=UNK))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(TOKEN), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{CLS} $A {SEP}", special_tokens=[(CLS, vocabulary[CLS]), (SEP, vocabulary[SEP])]
    )
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        cls_token=CLS,
        sep_token=SEP,
        bos_token=CLS,
        eos_token=SEP,
        mask_token=MASK,
        unk_token=UNK,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=MODEL_MAX_LENGTH,
    )


# ---- knowledge embeddings

KNOWLEDGE = ("link", "ring", "type")
BONDS, BRANCHES = frozenset(".-:~=/\\#"), frozenset("()")
_SPECIAL, _ATOM, _AROMATIC, _BOND, _RING, _CHARGED, _STEREO, _BRANCH = range(8)


def is_ring_number(token: str) -> bool:
    """Return whether a token opens or closes a ring."""
    return token.isdigit() or (token[0] == "%" and len(token) == 3)


def _type(token: str) -> int:
    if token in BONDS:
        return _BOND
    if token in BRANCHES:
        return _BRANCH
    if is_ring_number(token):
        return _RING
    if "+" in token or "-" in token:
        return _CHARGED
    if "@" in token:
        return _STEREO
    return _AROMATIC if token.strip("[H]") in ("c", "n", "o", "p", "s") else _ATOM


def knowledge_ids(parts: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """
    Compute the ids of the knowledge embeddings, int32 `[tokens]` each, of `[CLS] first [SEP] second [SEP] ...`:

    - `link`: place of the atom that an atom, bond or branch is attached to (of the last atom of the branch for `)`);
      the first atom of a part has its own place.
    - `ring`: for a ring number the place of the atom at the other end of the ring bond; else the own place.
    - `type`: 0 special token, 1 atom, 2 aromatic atom, 3 bond, 4 ring number, 5 charged atom, 6 stereo centre,
      7 branch.

    `[CLS]` has the place 0. As the original computes them (`pt_link_emb.py`), but for what is wrong there: `%15` and
    higher and `0` are ring numbers, `*` is an atom, and `.` and the atom after it are attached to nothing before them.

    Args:
        parts: tokens of each part of a source, see [`tokens`].
    """
    link, ring, kind = [0], [0], [_SPECIAL]
    for part in parts:
        start, last, branches, open_rings = len(link), None, [], {}
        for place, token in enumerate(part, start):
            link.append(place if last is None or token == "." else last)
            ring.append(place)
            kind.append(_type(token))
            if token == "(":
                branches.append(last)
            elif token == ")":
                last = branches.pop()
            elif token == ".":
                last = None
            elif is_ring_number(token):
                if token in open_rings:
                    opened, atom = open_rings.pop(token)
                    ring[opened], ring[place] = last, atom
                else:
                    open_rings[token] = place, last
            elif token not in BONDS:
                last = place
        link.append(len(link))
        ring.append(len(ring))
        kind.append(_SPECIAL)
    return {name: np.array(ids, dtype=np.int32) for name, ids in zip(KNOWLEDGE, (link, ring, kind), strict=True)}


__all__ = ["BASE_VOCABULARY", "EXTENSION", "KNOWLEDGE", "build_x_mol", "knowledge_ids", "tokens"]
