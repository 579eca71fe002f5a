"""MolCLR (Wang et al., NMI 2022): graph neural networks, contrastively pre-trained."""

from .collation_molclr import *
from .configuration_molclr import *
from .feature_extraction_molclr import *
from .modeling_molclr import *
