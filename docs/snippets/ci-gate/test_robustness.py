#: slow
import pytest

import unfooled as uf


@pytest.fixture(scope="module")
def model():
    return uf.models.load("fashion-mnist/hardened")  # your own: any nn.Module from images in [0, 1] to logits


@pytest.mark.robust(data="fashion-mnist-sample[0:200]", threat="linf:0.1", at_least=0.4)
def test_the_model_resists(model, assert_robust):
    verdict = assert_robust(model)
    assert verdict.clean_accuracy.value > 0.7  # and has not paid too much for it
