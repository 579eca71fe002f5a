"""Drawings of molecules."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .smiles import parse


def draw_grid(
    smiles: Sequence[str],
    legends: Sequence[str],
    path: str | Path,
    columns: int = 4,
    size: tuple[int, int] = (320, 280),
) -> None:
    """
    Draw molecules in a grid, each with a legend below it, to a PNG file.

    Args:
        size: width and height of one cell, pixels.
    Raises:
        MoleculeError: a SMILES cannot be read.
        ValueError: no molecules, or not one legend for each.
    """
    from rdkit.Chem.Draw import rdMolDraw2D

    if not smiles or len(smiles) != len(legends):
        raise ValueError(f"{len(smiles)} molecules with {len(legends)} legends: needs one for each, and at least one")
    columns = min(columns, len(smiles))
    width, height = size
    drawer = rdMolDraw2D.MolDraw2DCairo(width * columns, height * -(-len(smiles) // columns), width, height)
    drawer.drawOptions().legendFontSize = 18
    drawer.drawOptions().padding = 0.08
    drawer.DrawMolecules([parse(text) for text in smiles], legends=[str(legend) for legend in legends])
    drawer.FinishDrawing()
    Path(path).write_bytes(drawer.GetDrawingText())
