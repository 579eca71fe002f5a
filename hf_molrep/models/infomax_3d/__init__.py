"""3D Infomax (Stärk et al., ICML 2022): a graph network that learns what conformers tell."""

from typing import TYPE_CHECKING

from ...lazy import method_names

if TYPE_CHECKING:
    from .collation_infomax_3d import *
    from .configuration_infomax_3d import *
    from .feature_extraction_infomax_3d import *
    from .modeling_infomax_3d import *
else:
    __getattr__, __dir__ = method_names(__name__)
