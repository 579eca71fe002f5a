"""Laws 1 and 2: what is saved comes back; what is missing is initialised."""

import math
import re

import torch
from transformers import AutoModel, AutoProcessor

from hf_molrep import AutoModelForMoleculePropertyPrediction
from tests.models.laws.checks import quiet_loading, require, require_same, reseeded_initialisation
from tests.models.laws.hooks import MethodHooks


class SavingLaws(MethodHooks):
    def test_law_01_save_and_load(self, tmp_path):
        """Save -> load through the Auto classes gives the same output bit for bit; sharded; bf16."""
        for kind, auto_class, options, batch in self.cases():
            model = self.build(kind, **options)
            with torch.no_grad():
                expected = model(**batch)
                variants = {"saved": {}, "sharded": {"max_shard_size": "6KB"}}
                for variant, saving in variants.items():
                    folder = tmp_path / kind / variant
                    model.save_pretrained(folder, **saving)
                    if saving:
                        shards = list(folder.glob("*.safetensors"))
                        require(1, len(shards) > 1, f"{kind}: not sharded")
                    loaded, info = auto_class.from_pretrained(folder, output_loading_info=True)
                    require(1, type(loaded) is type(model), f"{auto_class.__name__} gives {type(loaded).__name__}")
                    require(1, not any(info.values()), f"{kind} {variant}: {info}")
                    require(1, not loaded.training, f"{kind} {variant}: loaded in training mode")
                    require_same(1, f"{kind} {variant}", loaded(**batch), expected)
                half = self.build(kind, **options).to(torch.bfloat16)
                half.save_pretrained(tmp_path / kind / "bf16")
                loaded = auto_class.from_pretrained(tmp_path / kind / "bf16")
                require(1, loaded.dtype == torch.bfloat16, f"{kind}: a bf16 checkpoint is loaded as {loaded.dtype}")
                require_same(1, f"{kind} bf16", loaded.state_dict(), half.state_dict())
                wide = auto_class.from_pretrained(tmp_path / kind / "bf16", dtype=torch.float32)
                model.load_state_dict(half.state_dict())
                require_same(1, f"{kind} bf16 as fp32", wide(**batch), model(**batch))

    def test_law_01_pre_trained_into_others(self, tmp_path):
        """What was pre-trained is found again in the model and under the property head, bit for bit."""
        source = self.build("pre-training")
        source.save_pretrained(tmp_path)
        prefix = f"{source.base_model_prefix}."
        weights = source.state_dict()
        with quiet_loading():
            base = AutoModel.from_pretrained(tmp_path).state_dict()
            head = AutoModelForMoleculePropertyPrediction.from_pretrained(tmp_path).state_dict()
        require_same(1, "model from pre-training", base, {name: weights[prefix + name] for name in base})
        inside = {name: value for name, value in head.items() if name.startswith(prefix)}
        require_same(1, "property model from pre-training", inside, {name: weights[name] for name in inside})

    def test_law_01_processor(self, tmp_path, monkeypatch):
        """AutoProcessor gives back a processor of the same class that makes the same batch, and asks nothing."""
        asked = []
        monkeypatch.setattr("builtins.input", lambda *prompt: asked.append(prompt) or "n")
        processor = self.processor()
        self.config().save_pretrained(tmp_path)
        processor.save_pretrained(tmp_path)
        loaded = AutoProcessor.from_pretrained(tmp_path)
        require(1, type(loaded) is type(processor), f"AutoProcessor gives {type(loaded).__name__}")
        require(1, not asked, f"AutoProcessor asks {asked}")
        again = loaded.pad(loaded.featurize({"smiles": self.molecules}))
        require_same(1, "processor", again, self.inputs())

    # ---- 2

    def test_law_02_everything_missing(self):
        """A model loaded from an empty checkpoint equals a freshly built one, buffers and output included."""
        for kind, _, options, batch in self.cases():
            model_class = self.model_class(kind)
            with reseeded_initialisation(), quiet_loading(), torch.no_grad():
                fresh = model_class(self.config(**options)).eval()
                loaded = model_class.from_pretrained(None, config=self.config(**options), state_dict={})
                for what, names in (("parameter", "named_parameters"), ("buffer", "named_buffers")):
                    for name, tensor in getattr(loaded, names)():
                        require(2, tensor.device.type != "meta", f"{kind}: {what} {name} is left on the meta device")
                    if dict(getattr(fresh, names)()):
                        values = [dict(getattr(model, names)()) for model in (loaded, fresh)]
                        require_same(2, f"{kind} {what}", *values)
                require_same(2, f"{kind} output", loaded(**batch), fresh(**batch))

    def test_law_02_some_missing(self):
        """Weights that are missing are drawn as the paper says; no loaded one is touched, not even a neighbour."""
        for kind, _, options, _ in self.cases()[1:]:
            model_class = self.model_class(kind)
            full = self.build(kind, **options)
            state = full.state_dict()
            inside = f"{full.base_model_prefix}."  # under a head the same as under pre-training
            names = [
                name for name, _ in full.named_parameters() if kind == "pre-training" or not name.startswith(inside)
            ]
            for first in range(6):
                missing = names[first::6]
                rest = {name: value for name, value in state.items() if name not in missing}
                given = {name: value.clone() for name, value in rest.items()}  # the model takes the very tensors
                with quiet_loading():
                    model = model_class.from_pretrained(None, config=self.config(**options), state_dict=given)
                loaded = model.state_dict()
                for name in missing:
                    self._require_initial(f"{kind} {name}", name, loaded.pop(name))
                require_same(2, f"{kind} without {', '.join(missing)}", loaded, rest)

    def _require_initial(self, what: str, name: str, value: torch.Tensor) -> None:
        rules = [rule for pattern, rule in self.initial_values.items() if re.search(pattern, name)]
        require(2, bool(rules), f"{what}: initial_values does not say how it is initialised")
        form, number = rules[0]
        if form == "constant":
            require(2, bool((value == number).all()), f"{what}: not {number} everywhere")
            return
        # rows of zeros: the padding token
        value = value[value.abs().flatten(1).sum(1) > 0].double() if value.dim() > 1 else value.double()
        std = number if form == "normal" else number / math.sqrt(3)
        count = value.numel()
        require(2, bool(value.isfinite().all()) and count > 1, f"{what}: not finite, or all zero")
        # five standard errors
        require(2, abs(value.mean().item()) < 5 * std / math.sqrt(count), f"{what}: mean {value.mean().item():.3g}")
        error = 5 * std / math.sqrt(2 * (count - 1))
        require(2, abs(value.std().item() - std) < error, f"{what}: width {value.std().item():.3g}, not {std:.3g}")
        if form == "uniform":
            require(2, value.abs().max().item() <= number, f"{what}: outside of +-{number:.3g}")
