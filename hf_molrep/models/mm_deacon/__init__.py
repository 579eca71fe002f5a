"""MM-Deacon (Guo et al., ACL 2022): contrastive alignment of SMILES and IUPAC names."""

from typing import TYPE_CHECKING

from ...lazy import method_names

if TYPE_CHECKING:
    from .collation_mm_deacon import *
    from .configuration_mm_deacon import *
    from .modeling_mm_deacon import *
    from .processing_mm_deacon import *
else:
    __getattr__, __dir__ = method_names(__name__)
