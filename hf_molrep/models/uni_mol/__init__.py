"""Uni-Mol (Zhou et al., ICLR 2023): a Transformer over atoms and pairs of atoms of one conformer."""

from .collation_uni_mol import *
from .configuration_uni_mol import *
from .feature_extraction_uni_mol import *
from .generation_uni_mol import *
from .modeling_uni_mol import *
