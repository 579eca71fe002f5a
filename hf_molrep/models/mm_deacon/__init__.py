"""MM-Deacon (Guo et al., ACL 2022): SMILES and IUPAC names, contrastively aligned."""

from .collation_mm_deacon import *
from .configuration_mm_deacon import *
from .modeling_mm_deacon import *
from .processing_mm_deacon import *
