"""Symbols of the elements and formulas of atoms, without RDKit."""

import re
from collections.abc import Sequence

import numpy as np

SYMBOLS = re.findall(
    "[*A-Z][a-z]?",
    "*HHeLiBeBCNOFNeNaMgAlSiPSClArKCaScTiVCrMnFeCoNiCuZnGaGeAsSeBrKrRbSrYZrNbMoTcRuRhPdAgCdInSnSbTeIXeCsBaLaCePrNdPmSm"
    "EuGdTbDyHoErTmYbLuHfTaWReOsIrPtAuHgTlPbBiPoAtRnFrRaAcThPaUNpPuAmCmBkCfEsFmMdNoLrRfDbSgBhHsMtDsRgCnNhFlMcLvTsOg",
)
"""By atomic number; 0 is a dummy atom."""


def formula(z: np.ndarray | Sequence) -> str:
    """Write the formula of atoms (atomic numbers `[atoms]`) in Hill order, for example `C2H6O`."""
    counts = {SYMBOLS[number]: count for number, count in zip(*np.unique(z, return_counts=True), strict=True)}
    order = sorted(counts, key=lambda symbol: (symbol not in ("C", "H") or "C" not in counts, symbol))
    return "".join(symbol + (str(counts[symbol]) if counts[symbol] > 1 else "") for symbol in order)
