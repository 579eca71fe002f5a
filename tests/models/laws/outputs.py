"""Laws 9, 11 and 12: shapes and dtypes, agreement with the original, one result from every way of computing it."""

import math

import torch
from torch import nn

from tests.models.laws.checks import gradients, require, require_same
from tests.models.laws.hooks import GOLDENS, MethodHooks


class OutputLaws(MethodHooks):
    @torch.no_grad()
    def test_law_09_model_output(self):
        """Shapes and dtypes of the model and of the pre-training output."""
        (_, _, _, inputs), (_, _, _, batch), *_ = self.cases()
        model = self.build("model")
        output = model(**inputs)
        embedding = output.pooler_output
        require(9, embedding.shape == (8, model.config.hidden_size), f"pooler_output {tuple(embedding.shape)}")
        require(9, embedding.dtype == torch.float32, f"pooler_output {embedding.dtype}")
        require(9, bool(embedding.isfinite().all()), "pooler_output is not finite")
        require(9, output.last_hidden_state is not None, "no last_hidden_state")
        require_same(9, "as a tuple", model(**inputs, return_dict=False)[0], embedding)
        output = self.build("pre-training")(**batch)
        require(9, output.loss.shape == () and output.loss.dtype == torch.float32, "loss: a float32 scalar")
        require(9, bool(output.loss.isfinite()) and bool(output.losses), "loss finite, named losses given")
        for name, value in output.losses.items():
            require(9, value.shape == () and bool(value.isfinite()), f"losses[{name!r}]: a finite scalar")
        for name, value in (output.embeddings or {}).items():
            require(9, value.dim() == 2 and len(value) == 8, f"embeddings[{name!r}] {tuple(value.shape)}")

    def test_law_09_recorded_outputs(self):
        """Hidden states and attention weights of every model on request, with gradients, or a refusal."""
        for kind, _, options, batch in self.cases():
            self.require_recorded(kind, batch, **options)

    def require_recorded(self, kind: str, batch: dict, **options) -> None:
        """Law 9 of one model: `output_hidden_states` and `output_attentions`, by argument and by configuration."""
        model = self.build(kind, attention="eager", **options)
        plain = model(**batch)
        for name in ("hidden_states", "attentions"):
            what, flag, count = f"{kind}, {name}", f"output_{name}", getattr(self, name)
            if count is None:
                require(9, self._refuses(model, batch, flag), f"{what}: neither offered nor refused")
                continue
            require(9, plain.get(name) is None, f"{what}: not asked for")
            output = model(**batch, **{flag: True})
            given = output.get(name) or ()
            require(9, len(given) == count, f"{what}: {len(given)} of {count}")
            rest = {key: value for key, value in output.items() if key != name}
            require_same(9, f"{what} change", rest, dict(plain), self.tolerance)
            for place, value in enumerate(given):
                require(9, value.requires_grad, f"{what}: the one at {place} has no gradient")
                weights = list(model.parameters())
                found = torch.autograd.grad(value.sin().sum(), weights, retain_graph=True, allow_unused=True)
                reached = any(gradient is not None and bool(gradient.any()) for gradient in found)
                require(9, reached, f"{what}: a loss on the one at {place} reaches no parameter")
            setattr(model.config, flag, True)
            with torch.no_grad():  # some models take another way then
                again = model(**batch)[name]
            require_same(9, f"{what} by configuration", again, given, self.tolerance)
            require(9, model(**batch, **{flag: False}).get(name) is None, f"{what}: given although refused")
            setattr(model.config, flag, False)
        if self.attentions is not None and model._supports_sdpa:
            model = self.build(kind, attention="sdpa", **options)
            refuses = self._refuses(model, batch, "output_attentions")
            require(9, refuses, f"{kind}, attentions of sdpa: there are none, and this is not said")

    def _refuses(self, model: nn.Module, batch: dict, flag: str) -> bool:
        """Whether asking for an output is a ValueError that names it."""
        try:
            model(**batch, **{flag: True})
        except ValueError as error:
            return flag in str(error)
        return False

    def test_law_09_property_output(self):
        """Logits are scaled, predictions in units or probabilities, NaN labels are left out of the loss."""
        inputs = self.inputs()
        labels = torch.linspace(-3, 5, 16).view(8, 2)
        labels[0, 0] = labels[5, 1] = math.nan
        mean, std = torch.tensor([1.0, -2.0]), torch.tensor([2.0, 0.5])
        scales = {"label_mean": mean.tolist(), "label_std": std.tolist(), "label_units": ["V", "K"]}
        names = {"id2label": {0: "a", 1: "b"}}
        for problem, options in (("regression", scales), ("multi_label_classification", {})):
            model = self.build("property-prediction", problem_type=problem, **names, **options)
            targets = labels if problem == "regression" else (labels > 0).float().masked_fill(labels.isnan(), math.nan)
            output = model(**inputs, labels=targets)
            logits, predictions = output.logits.detach(), output.predictions.detach()
            for name, value in (("logits", logits), ("predictions", predictions)):
                require(9, value.shape == (8, 2) and value.dtype == torch.float32, f"{problem} {name}: float32 [8, 2]")
            present = ~targets.isnan()
            if problem == "regression":
                expected = logits * std + mean
                loss = ((logits - (targets - mean) / std)[present] ** 2).mean()
            else:
                expected = torch.sigmoid(logits)
                chances = expected[present]
                loss = -torch.where(targets[present] == 1, chances, 1 - chances).log().mean()
            require_same(9, f"{problem} predictions", predictions, expected, 1e-5)
            require_same(9, f"{problem} loss", output.loss.detach(), loss, 1e-5)
            require(9, model(**inputs).loss is None, f"{problem}: a loss without labels")
            nothing = model(**inputs, labels=torch.full((8, 2), math.nan)).loss
            nothing.backward()
            finite = all(gradient.isfinite().all() for gradient in gradients(model).values())
            require(9, nothing.item() == 0 and finite, f"{problem}: all labels missing gives {nothing.item()}")

    def test_law_11_agreement(self):
        """Numbers agree with the original code; the stored arrays are small."""
        for what, (ours, original, tolerance) in self.agreement().items():
            require_same(11, what, torch.as_tensor(ours), torch.as_tensor(original), tolerance)
        size = sum(path.stat().st_size for path in GOLDENS.glob(f"{self.model_type}*"))
        require(11, size <= 300_000, f"goldens of {self.model_type} take {size} bytes, 300,000 are allowed")

    def test_law_12_sdpa(self):
        """eager = sdpa, padded and unpadded (where a forgotten `is_causal = False` shows), gradients too."""
        for what, molecules in (("padded", self.molecules), ("unpadded", ["CC(=O)Oc1ccccc1C(=O)O"] * 2)):
            inputs = self.inputs(molecules)
            results = [self._run(self.build("model", attention=name), inputs) for name in ("sdpa", "eager")]
            require_same(12, f"sdpa against eager, {what}", *results, 10 * self.tolerance)

    def test_law_12_checkpointing(self):
        """Activation checkpointing, of both kinds, computes layers again and changes nothing."""
        for kind, _, options, batch in self.cases():
            expected, plain = self._run_counted(self.build(kind, **options).train(), batch)
            for reentrant in (False, True):
                what = f"{kind}, checkpointing with use_reentrant={reentrant}"
                model = self.build(kind, **options).train()
                enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
                enable({"use_reentrant": reentrant})
                actual, calls = self._run_counted(model, batch)
                require(12, calls > plain, f"{what}: computes nothing again ({calls} calls)")
                require_same(12, what, actual, expected, self.tolerance)

    def _run_counted(self, model: nn.Module, batch: dict) -> tuple[dict, int]:
        """Loss and gradients, and how often any module ran."""
        count = []
        for module in model.modules():
            if module is not model:
                module.register_forward_pre_hook(lambda *_: count.append(1))
        torch.manual_seed(0)
        return self._run(model, batch), len(count)

    def test_law_12_compile(self):
        """`torch.compile(backend="aot_eager")` gives the same loss and gradients."""
        batch = self.collator()(self.rows())
        model = self.build("pre-training")
        expected = self._run(model, batch)
        torch._dynamo.reset()
        compiled = torch.compile(model, backend="aot_eager")
        compiled.zero_grad(set_to_none=True)
        loss = compiled(**batch).loss
        loss.backward()
        actual = {"loss": loss.detach(), "gradients": gradients(model)}
        torch._dynamo.reset()
        require_same(12, "compiled", actual, expected, 10 * self.tolerance)

    def test_law_12_bf16(self):
        """bf16 weights and bf16 autocast stay finite, and near fp32."""
        inputs, batch = self.inputs(), self.collator()(self.rows())
        with torch.no_grad():
            expected = self.build("model")(**inputs).pooler_output
            actual = self.build("model").to(torch.bfloat16)(**inputs).pooler_output.float()
        near = torch.cosine_similarity(actual, expected, dim=-1).min().item()
        require(12, bool(actual.isfinite().all()) and near > 0.98, f"bf16 weights: cosine to fp32 {near:.3f}")
        model = self.build("pre-training").train()
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(**batch).loss
        loss.backward()
        finite = all(gradient.isfinite().all() for gradient in gradients(model).values())
        require(12, bool(loss.isfinite()) and finite, f"bf16 autocast: loss {loss.item()}, gradients finite: {finite}")
