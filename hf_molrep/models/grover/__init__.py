"""GROVER (Rong et al., NeurIPS 2020): message passing inside attention, pre-trained on contexts and motifs."""

from .collation_grover import *
from .configuration_grover import *
from .feature_extraction_grover import *
from .modeling_grover import *
