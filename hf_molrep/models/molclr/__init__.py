"""MolCLR (Wang et al., NMI 2022): contrastive pre-training of graph neural networks."""

from typing import TYPE_CHECKING

from ...lazy import method_names

if TYPE_CHECKING:
    from .collation_molclr import *
    from .configuration_molclr import *
    from .feature_extraction_molclr import *
    from .modeling_molclr import *
else:
    __getattr__, __dir__ = method_names(__name__)
