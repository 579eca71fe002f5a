"""What the configurations of all methods share."""

import json
from pathlib import Path

import pytest

from hf_molrep import METHODS, checkpoint_path
from hf_molrep.configuration import check_fields


@pytest.mark.parametrize(
    "name", ["graphmvp-mini", "grover-mini", "infomax-3d-mini", "mm-deacon-mini", "molclr-gin-mini", "uni-mol-mini"]
)
def test_saved_configurations_have_known_fields(name):
    """What a config.json holds, and what `to_dict` gives, passes; nested configurations too."""
    saved = json.loads(Path(checkpoint_path(name), "config.json").read_text())
    config_class = METHODS[saved["model_type"]].config
    check_fields(config_class, saved)
    check_fields(config_class, config_class.from_pretrained(checkpoint_path(name)).to_dict())
    check_fields(config_class, {"num_labels": 3, "dtype": "float32", "attn_implementation": "eager"})


def test_unknown_fields_are_refused():
    with pytest.raises(ValueError, match="MolCLRConfig has no field 'gnn_typ'; did you mean 'gnn_type'"):
        check_fields(METHODS["molclr"].config, {"num_layers": 2, "gnn_typ": "gcn"})
    with pytest.raises(ValueError, match=r"GroverConfig has no field 'zzz'$"):
        check_fields(METHODS["grover"].config, {"zzz": 1})
    mm_deacon = METHODS["mm_deacon"].config
    check_fields(mm_deacon, {"smiles_config": {"num_hidden_layers": 2}})
    with pytest.raises(ValueError, match="MMDeaconSmilesConfig has no field 'num_hiden_layers'; did you mean"):
        check_fields(mm_deacon, {"smiles_config": {"num_hiden_layers": 2}})
