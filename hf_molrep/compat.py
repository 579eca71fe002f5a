"""The only file that imports names which transformers does not promise to keep (5.15 or newer, below 6)."""

from dataclasses import fields

from transformers import initialization as init
from transformers.masking_utils import create_bidirectional_mask
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import CausalLMOutputWithPast
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.models.auto.auto_factory import _BaseAutoModelClass, _LazyAutoMapping, auto_class_update
from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
from transformers.utils.generic import can_return_tuple, merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

# the argument and output that holds keys and values in generation; "past_key_values" in older versions
CACHE = "cache" if "cache" in {field.name for field in fields(CausalLMOutputWithPast)} else "past_key_values"

__all__ = [
    "ALL_ATTENTION_FUNCTIONS",
    "CACHE",
    "CONFIG_MAPPING_NAMES",
    "GradientCheckpointingLayer",
    "_BaseAutoModelClass",
    "_LazyAutoMapping",
    "auto_class_update",
    "can_return_tuple",
    "capture_outputs",
    "create_bidirectional_mask",
    "init",
    "merge_with_config_defaults",
]
