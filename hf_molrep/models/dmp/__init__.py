"""DMP (Zhu et al., KDD 2023): SMILES and graph as two views of one molecule."""

from typing import TYPE_CHECKING

from ...lazy import method_names

if TYPE_CHECKING:
    from .collation_dmp import *
    from .configuration_dmp import *
    from .modeling_dmp import *
    from .processing_dmp import *
else:
    __getattr__, __dir__ = method_names(__name__)
