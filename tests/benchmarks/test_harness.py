"""What the benchmarks share: timers, ceilings, profiles, selection, comparison, columns."""

import math
import time
from functools import partial

import numpy as np
import pytest
import torch

from benchmarks.harness.ceilings import matrix_rate, products
from benchmarks.harness.columns import fit_baseline
from benchmarks.harness.comparison import paired_bootstrap
from benchmarks.harness.data import sample
from benchmarks.harness.profiling import megabytes, shares
from benchmarks.harness.selection import Cache, better, choose_then_seed
from benchmarks.harness.steps import stepping
from benchmarks.harness.timing import measure, ratio, timed
from hf_molrep.metrics import rmse, roc_auc


def burn(seconds: float) -> str:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
    return "burnt"


def test_a_timer_counts_the_cpu_and_hands_on_the_result():
    result, spent = timed(partial(burn, 0.02))
    assert result == "burnt"
    assert 0.02 <= spent.cpu <= spent.wall + 0.01
    assert timed(partial(time.sleep, 0.02))[1].wall >= 0.02


def test_contenders_take_turns_after_a_run_that_does_not_count():
    order = []
    seconds = measure({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, rounds=2)
    assert order == ["a", "b"] * 3
    assert {name: len(times) for name, times in seconds.items()} == {"a": 2, "b": 2}
    assert ratio({"slow": [4.0, 4.0, 8.0], "fast": [2.0, 1.0, 2.0]}, "slow", "fast") == 4


@pytest.mark.parametrize("training", [False, True])
def test_products_are_those_of_the_layers(training):
    done = []
    original = torch.matmul

    def matmul(left, right, out):
        done.append((tuple(left.shape), tuple(right.shape), tuple(out.shape)))
        return original(left, right, out=out)

    run = products([(5, 3, 2), (4, 5, 3, 2)], torch.bfloat16, training)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "matmul", matmul)
        run()
    forward = [((5, 3), (3, 2), (5, 2)), ((4, 5, 3), (4, 3, 2), (4, 5, 2))]
    gradients = [((5, 2), (2, 3), (5, 3)), ((2, 5), (5, 3), (2, 3))]
    if training:
        assert done[:3] == [forward[0], *gradients]
        assert len(done) == 6
    else:
        assert done == forward
    assert matrix_rate(8, 0.001) > 0


def test_shares_of_a_profile():
    x = torch.randn(64, 64)

    def run() -> None:
        torch.softmax(x @ x, dim=1).exp()

    found = shares(run, {"products": ("mm", "*addmm*"), "softmax": ("*softmax*",), "GELU": ("gelu",)}, rest="rest")
    assert list(found) == ["products", "softmax", "GELU", "rest"]
    assert sum(found.values()) == pytest.approx(1)
    assert min(found["products"], found["softmax"], found["rest"]) > 0
    assert found["GELU"] == 0
    assert 0 < megabytes("VmRSS") <= megabytes("VmHWM")


def test_a_step_clips_and_moves_the_weights():
    weight = torch.nn.Parameter(torch.ones(2))
    step = stepping(lambda: (1000 * weight).sum(), torch.optim.SGD([weight], lr=1.0), clip=0.5)
    step()
    assert weight.tolist() == pytest.approx([1 - 0.5 / math.sqrt(2)] * 2)
    assert weight.grad is None


def test_better():
    nan = float("nan")
    assert better(0.8, 0.7, greater_is_better=True)
    assert not better(0.7, 0.7, greater_is_better=True)
    assert better(0.7, 0.8, greater_is_better=False)
    assert not better(0.8, 0.7, greater_is_better=False)
    assert better(0.7, nan, greater_is_better=False)
    assert not better(nan, nan, greater_is_better=True)
    assert not better(nan, 0.1, greater_is_better=True)


def test_a_setting_is_chosen_with_the_first_seed_and_run_with_all():
    runs = []

    def run(setting: dict, seed: int) -> dict:
        runs.append((setting["a"], seed))
        return {"valid": {1: 0.5, 2: 0.3, 3: 0.3}[setting["a"]] + seed}

    settings = [{"a": 1}, {"a": 2}, {"a": 3}]
    records = choose_then_seed(settings, [0, 1], run, greater_is_better=False)
    assert records == [{"seed": seed, "setting": {"a": 2}, "valid": 0.3 + seed} for seed in (0, 1)]
    assert runs == [(1, 0), (2, 0), (3, 0), (2, 0), (2, 1)]
    runs.clear()
    choose_then_seed(settings[:1], [4], run, greater_is_better=False)
    assert runs == [(1, 4)]  # nothing to choose


def test_cache_survives_an_interruption(tmp_path):
    file = tmp_path / "cache.jsonl"
    cache = Cache(file)
    assert cache.known({"task": "a"}) is None
    assert cache.get({"task": "a"}, lambda: {"test": 1.0}) == {"test": 1.0}
    with file.open("a") as lines:
        lines.write('{"key": {"task": "b"}, "val')  # killed while writing
    again = Cache(file)
    assert again.get({"task": "a"}, pytest.fail) == again.known({"task": "a"}) == {"test": 1.0}
    assert again.get({"task": "b"}, lambda: {"test": 2.0}) == {"test": 2.0}
    assert Cache(file).get({"task": "b"}, pytest.fail) == {"test": 2.0}


@pytest.mark.parametrize("column", ["Morgan + RF", "descriptors + ridge"])
def test_a_task_with_one_class_and_missing_labels_is_predicted_too(column):
    features = np.random.default_rng(0).integers(0, 2, (40, 8)).astype(float)
    labels = np.stack([np.ones(40), features[:, 0]], axis=1)
    labels[:5, 1] = np.nan
    split = {"train": np.arange(30), "valid": np.arange(30, 35), "test": np.arange(35, 40)}
    kind = "multi_label_classification"
    setting = {"max_features": None, "min_samples_leaf": 1} if column == "Morgan + RF" else {}
    valid, test = fit_baseline(column, setting, features, labels, split, kind, 0, trees=20)
    assert (valid[:, 0] == 1).all()
    middle = 0.5 if column == "Morgan + RF" else 0  # ridge fits -1 and +1
    assert ((test[:, 1] > middle) == labels[35:, 1]).all()


def test_ridge_stands_wild_and_missing_descriptors():
    features = np.random.default_rng(0).normal(size=(60, 4))
    labels = (3 * features[:, :1] + 7).astype(float)
    features[7, 3], features[55, 3], features[::9, 2] = 1e30, -1e30, np.nan
    split = {"train": np.arange(40), "valid": np.arange(40, 50), "test": np.arange(50, 60)}
    _, test = fit_baseline("descriptors + ridge", {}, features, labels, split, "regression", 0, trees=0)
    np.testing.assert_allclose(test, labels[50:], atol=0.3)


def test_a_sample_keeps_the_order():
    drawn = sample([f"{number:02d}" for number in range(50)], 10, seed=0)
    assert len(drawn) == len(set(drawn)) == 10
    assert drawn == sorted(drawn)
    assert sample(["C", "N"], 10, seed=0) == ["C", "N"]


def test_paired_bootstrap():
    rng = np.random.default_rng(0)
    labels = rng.normal(size=200)
    good, bad = labels + 0.1 * rng.normal(size=200), labels + rng.normal(size=200)
    error = {"greater_is_better": False, "resamples": 200}
    assert paired_bootstrap(rmse, labels, good, bad, **error).verdict == "win"
    assert paired_bootstrap(rmse, labels, bad, good, **error).verdict == "loss"
    result = paired_bootstrap(rmse, labels, good, bad, **error)
    assert result.low < result.difference < result.high < 0
    assert result == paired_bootstrap(rmse, labels, good, bad, **error)
    assert paired_bootstrap(rmse, labels, good, good, **error) == (0, 0, 0, "tie")
    classes = (labels > 0).astype(float)
    assert paired_bootstrap(roc_auc, classes, good, -good, greater_is_better=True, resamples=50).verdict == "win"
    with pytest.raises(ValueError, match="not defined on most resamples"):
        paired_bootstrap(roc_auc, np.ones(5), good[:5], bad[:5], greater_is_better=True)
    with pytest.raises(ValueError, match="must be as many"):
        paired_bootstrap(rmse, labels[:5], good, bad, **error)
