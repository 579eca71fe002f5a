"""Run trained models over many molecules."""

# Defaults, kept here so that the help of a command, which shows them, need not import torch.
DEFAULT_CHECKPOINT = "mm-deacon-mini"
DEFAULT_FOR_PROPERTIES = "infomax-3d-descriptors-mini"
DEFAULT_FOR_CONFORMERS = "uni-mol-mini"
DEFAULT_FOR_WRITING = "x-mol-mini"
WINDOW = 8192  # molecules sorted together
BATCH_TOKENS = 4096  # with this window 2 % of the tokens of ZINC molecules are padding, with 8,192 they are 6 %
