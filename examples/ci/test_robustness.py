"""Robustness as a test among others: `pytest examples/ci/test_robustness.py`."""

import pytest

import unfooled as uf


@pytest.fixture(scope="module")
def model():
    return uf.models.load("fashion-mnist/hardened")  # your own: any nn.Module from images in [0, 1] to logits


@pytest.mark.robust(data="fashion-mnist-sample[0:200]", threat="linf:0.1", at_least=0.4)
def test_the_model_resists(model, assert_robust):
    assert_robust(model)


def test_it_resists_and_has_not_paid_too_much_for_it(model, assert_robust):
    found = assert_robust(model, "fashion-mnist-sample[0:200]", "l2:0.5", at_least=0.5, seed=1)
    assert found.clean_accuracy.value > 0.7
