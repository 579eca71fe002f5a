"""GROVER (Rong et al., NeurIPS 2020): message passing inside attention, pre-trained on contexts and motifs."""

from typing import TYPE_CHECKING

from ...lazy import method_names

if TYPE_CHECKING:
    from .collation_grover import *
    from .configuration_grover import *
    from .feature_extraction_grover import *
    from .modeling_grover import *
else:
    __getattr__, __dir__ = method_names(__name__)
