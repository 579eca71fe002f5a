"""Losses against their formulas, term by term."""

import math

import numpy as np
import pytest
import torch

from hf_molrep.losses import descriptor_loss, gather_with_gradient, info_nce, property_loss


def test_info_nce_is_its_formula():
    rng = np.random.default_rng(0)
    queries, keys = rng.standard_normal((2, 6, 5))
    cosine = (queries @ keys.T) / np.outer(np.linalg.norm(queries, axis=1), np.linalg.norm(keys, axis=1))
    exponent = np.exp(3.0 * cosine)
    expected = -np.log(np.diag(exponent) / exponent.sum(axis=1)).mean()
    loss = info_nce(torch.tensor(queries), torch.tensor(keys), torch.tensor(3.0))
    assert loss.shape == ()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    rescaled = info_nce(torch.tensor(queries) * 7, torch.tensor(keys) * 0.1, 3.0)
    assert rescaled.item() == pytest.approx(expected, rel=1e-5)


def test_info_nce_limits():
    """One molecule: nothing to confuse it with. All alike: a guess among N. Perfect and sharp: none left."""
    states = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
    assert info_nce(states[:1], states[1:2], 10.0).item() == 0.0
    same = torch.ones(7, 4)
    assert info_nce(same, same, 10.0).item() == pytest.approx(math.log(7), rel=1e-6)
    assert info_nce(states, states, 1000.0).item() < 1e-6
    assert info_nce(states, states.roll(1, 0), 10.0) > info_nce(states, states, 10.0)


def test_info_nce_gradients():
    queries, keys = torch.randn(2, 5, 4, dtype=torch.float64).requires_grad_()
    scale = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    loss = info_nce(queries, keys, scale)
    gradients = torch.autograd.grad(loss, [queries, keys, scale])
    assert all(gradient.abs().max() > 1e-4 for gradient in gradients)


def test_info_nce_takes_bf16():
    states = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    half = info_nce(states.bfloat16(), states.bfloat16(), 5.0)
    assert half.dtype == torch.float32
    assert half.item() == pytest.approx(info_nce(states, states, 5.0).item(), abs=0.02)


def test_one_process_gathers_itself():
    states = torch.randn(3, 2)
    assert gather_with_gradient(states) is states


LABELS = torch.tensor([[1.0, 0.0], [math.nan, 1.0], [0.0, math.nan]])
LOGITS = torch.tensor([[0.3, -1.2], [9.0, 2.0], [-0.5, 9.0]])


def test_descriptor_loss_by_hand():
    """Over what is asked for; nothing asked for is 0, with a gradient of 0; no NaN comes back."""
    logits = LOGITS.clone().requires_grad_()
    loss = descriptor_loss(logits, LABELS)
    expected = ((0.3 - 1) ** 2 + 1.2**2 + (2.0 - 1) ** 2 + 0.5**2) / 4
    assert loss.item() == pytest.approx(expected, rel=1e-6)
    (gradient,) = torch.autograd.grad(loss, logits)
    by_hand = [[2 * (0.3 - 1) / 4, 2 * -1.2 / 4], [0, 2 * (2.0 - 1) / 4], [2 * -0.5 / 4, 0]]
    torch.testing.assert_close(gradient, torch.tensor(by_hand))
    nothing = descriptor_loss(logits, torch.full_like(LABELS, math.nan))
    assert nothing.item() == 0
    assert torch.autograd.grad(nothing, logits)[0].eq(0).all()
    with pytest.raises(ValueError, match="targets have shape"):
        descriptor_loss(logits, LABELS[:, :1])
    # only the second descriptor of the first molecule, the first of the others
    places = torch.tensor([[1], [0], [0]])
    asked = descriptor_loss(logits, torch.tensor([[1.0], [math.nan], [2.0]]), places)
    assert asked.item() == pytest.approx(((-1.2 - 1) ** 2 + (-0.5 - 2) ** 2) / 2, rel=1e-6)


def test_property_loss_of_a_regression():
    expected = np.mean([(0.3 - 1) ** 2, (-1.2 - 0) ** 2, (2.0 - 1) ** 2, (-0.5 - 0) ** 2])
    assert property_loss(LOGITS, LABELS, "regression").item() == pytest.approx(expected, rel=1e-6)


def test_property_loss_of_a_classification():
    def chance(logit):
        return 1 / (1 + math.exp(-logit))

    right = [chance(0.3), 1 - chance(-1.2), chance(2.0), 1 - chance(-0.5)]
    loss = property_loss(LOGITS, LABELS, "multi_label_classification")
    assert loss.item() == pytest.approx(-np.log(right).mean(), rel=1e-6)
    assert property_loss(LOGITS, LABELS.double(), "multi_label_classification").item() == pytest.approx(loss.item())


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification"])
def test_missing_labels_have_no_gradient(problem_type):
    logits = LOGITS.clone().requires_grad_()
    property_loss(logits, LABELS, problem_type).backward()
    missing = LABELS.isnan()
    assert (logits.grad[missing] == 0).all()
    assert (logits.grad[~missing] != 0).all()
    logits = LOGITS.clone().requires_grad_()
    loss = property_loss(logits, torch.full_like(LABELS, math.nan), problem_type)
    loss.backward()
    assert loss.item() == 0
    assert (logits.grad == 0).all()


def test_property_loss_refuses():
    with pytest.raises(ValueError, match=r"labels have shape \(3,\), the model predicts \(3, 2\)"):
        property_loss(LOGITS, LABELS[:, 0], "regression")
    with pytest.raises(ValueError, match="not 'single_label_classification'"):
        property_loss(LOGITS, LABELS, "single_label_classification")
