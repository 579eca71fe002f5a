"""X-MOL (Xue et al. 2022): one encoder that reads and writes SMILES."""

from typing import TYPE_CHECKING

from ...lazy import method_names

if TYPE_CHECKING:
    from .collation_x_mol import *
    from .configuration_x_mol import *
    from .modeling_x_mol import *
    from .processing_x_mol import *
else:
    __getattr__, __dir__ = method_names(__name__)
