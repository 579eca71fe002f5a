"""GraphMVP (Liu et al., ICLR 2022): a graph encoder that learns from conformers, which it does without afterwards."""

from typing import TYPE_CHECKING

from ...lazy import method_names

if TYPE_CHECKING:
    from .collation_graphmvp import *
    from .configuration_graphmvp import *
    from .feature_extraction_graphmvp import *
    from .modeling_graphmvp import *
else:
    __getattr__, __dir__ = method_names(__name__)
