"""
Tokens of DMP: the regular expression of Schwaller et al., `SMILES </s>` without `<s>` (Zhu et al. 2023, its code DVMP).

Special tokens have the ids 0 to 3, `[MASK]` the last one, as fairseq gives them. The original's dictionary (`dict.txt`,
2,348 tokens) is not part of this package: `TOKENS` are ours, with the original's ids where its paper trail names them
(`c` 4 ... `F` 15, `Cl` 19, `[C@@H]` 21, `.` 25, `Br` 28, `[Na+]` 48, `[Cl-]` 49). With these, a bracket atom outside of
the vocabulary is spelled in characters; with a dictionary of the original it is unknown.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

from .fast import MODEL_MAX_LENGTH, PRINTABLE_ASCII
from .smiles_atom import SCHWALLER_REGEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
MASK = "[MASK]"

TOKENS = (
    *("c", "C", "(", ")", "1", "O", "=", "2", "N", "n", "3", "F", "S", "-", "#", "Cl", "[C@H]", "[C@@H]", "4", "[nH]"),
    *("s", ".", "o", "/", "Br", "5", "[N+]", "[O-]", "\\", "[C@]", "[C@@]", "I", "[NH+]", "[NH2+]", "[NH3+]", "6", "P"),
    *("B", "[n+]", "[Si]", "[2H]", "7", "8", "9", "[Na+]", "[Cl-]", *(f"%{number}" for number in range(10, 100))),
    *("[125I]", "[13C@@H]", "[13C@H]", "[13CH2]", "[13CH3]", "[13CH]", "[13C]", "[13cH]", "[13c]", "[14C]"),
    *("[15n]", "[18F]", "[3H]", "[Ag+]", "[Ag]", "[Al+3]", "[Al]", "[As]", "[B-]", "[BH]", "[B]", "[Ba+2]"),
    *("[Be+2]", "[Bi]", "[Br+2]", "[Br-]", "[Br]", "[C+]", "[C-]", "[CH2-]", "[CH2]", "[CH3-]", "[CH3]"),
    *("[CH]", "[C]", "[Ca+2]", "[Cd+2]", "[Cd]", "[Cl+2]", "[Cl+3]", "[Cl]", "[Co+2]", "[Co+3]", "[Co]"),
    *("[Cr+2]", "[Cr+3]", "[Cr]", "[Cu+2]", "[Cu]", "[F-]", "[F]", "[Fe+2]", "[Fe+3]", "[Fe]", "[Ga]"),
    *("[GeH3]", "[GeH]", "[Ge]", "[H+]", "[H-]", "[HH]", "[Hg+2]", "[Hg+]", "[Hg]", "[I+]", "[I-]", "[IH2]"),
    *("[I]", "[In]", "[K+]", "[Li+]", "[Mg+2]", "[Mn+2]", "[Mn]", "[Mo]", "[N-]", "[N@+]", "[N@@+]", "[NH-]"),
    *("[NH4+]", "[NH]", "[N]", "[Na]", "[Ni+2]", "[Ni]", "[O+]", "[O-2]", "[OH+]", "[OH-]", "[OH]", "[O]"),
    *("[P+]", "[P-]", "[P@@]", "[P@]", "[PH+]", "[PH2+]", "[PH]", "[P]", "[Pb+2]", "[Pb]", "[Pd+2]", "[Pd]"),
    *("[Pt+2]", "[S+]", "[S-]", "[S@+]", "[S@@+]", "[S@@]", "[S@]", "[SH-]", "[S]", "[Sb+3]", "[Sb-]"),
    *("[Sb]", "[Se]", "[SiH2]", "[SiH3]", "[SiH]", "[Sn+2]", "[Sn+]", "[Sn]", "[Sr+2]", "[Te]", "[Ti]"),
    *("[Tl]", "[U]", "[V]", "[W]", "[Zn+2]", "[Zn]", "[c]", "[n-]", "[nH+]", "[o+]", "[se]"),
    *PRINTABLE_ASCII,
)
"""
Tokens from id 4 on: atoms, bonds, rings and branches; the bracket atoms that five or more of 780,000 molecules of ZINC,
ChEMBL, GEOM-Drugs and PubChem have; and all characters of printable ASCII, so that every SMILES can be spelled.
"""


def read_dictionary(path: str | Path) -> tuple[str, ...]:
    """
    Read the tokens of a dictionary of fairseq, a token and its count in each line.

    Raises:
        ValueError: a line is of another form, or a token appears twice.
    """
    rows = [line.rsplit(" ", 1) for line in Path(path).read_text(encoding="utf-8").splitlines() if line]
    tokens = tuple(row[0] for row in rows)
    if any(len(row) != 2 or not row[1].isdigit() for row in rows):
        raise ValueError(f"{path} has not a token and its count, with a space between, in each line")
    if len(set(tokens)) < len(tokens):
        raise ValueError(f"{path} has a token twice")
    return tokens


def build_dmp(tokens: Sequence[str] = TOKENS) -> PreTrainedTokenizerFast:
    """
    Make the tokenizer, `SMILES </s>`.

    Args:
        tokens: those from id 4 on; `[MASK]` comes behind them. Repetitions do not count.
    """
    from transformers import PreTrainedTokenizerFast

    words = dict.fromkeys((*SPECIAL_TOKENS, *tokens, MASK))
    vocabulary = {token: index for index, token in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>", ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(rf"{SCHWALLER_REGEX}|(?m:.)"), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 2)])
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        mask_token=MASK,
        padding_side="right",
        clean_up_tokenization_spaces=False,
        model_max_length=MODEL_MAX_LENGTH,
    )


__all__ = ["TOKENS", "build_dmp", "read_dictionary"]
