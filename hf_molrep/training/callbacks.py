"""Progress output of fine-tuning."""

from transformers import ProgressCallback


class EpochLines(ProgressCallback):
    """Trainer's progress bar, with one readable line per epoch instead of dicts."""

    training_loss = float("nan")

    def on_log(self, args, state, control, logs=None, **kwargs):
        if self.training_bar is None or not logs or "train_runtime" in logs:
            return
        self.training_loss = logs.get("loss", self.training_loss)
        if "eval_loss" in logs or args.eval_strategy == "no":
            values = {key[len("eval_") :]: value for key, value in logs.items() if key.startswith("eval_")}
            shown = [f"{key} {value:.4g}" for key, value in values.items() if not key.endswith(("time", "second"))]
            valid = f"  validation: {', '.join(shown)}" if shown else ""
            self.training_bar.write(f"epoch {logs['epoch']:.0f}  training: loss {self.training_loss:.4g}{valid}")

    def on_prediction_step(self, *args, **kwargs):
        """Show no second bar during evaluation."""
