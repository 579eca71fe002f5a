"""Uni-Mol (Zhou et al., ICLR 2023): a Transformer over the atoms and pairs of atoms of a conformer."""

from typing import TYPE_CHECKING

from ...lazy import method_names

if TYPE_CHECKING:
    from .collation_uni_mol import *
    from .configuration_uni_mol import *
    from .feature_extraction_uni_mol import *
    from .generation_uni_mol import *
    from .modeling_uni_mol import *
else:
    __getattr__, __dir__ = method_names(__name__)
