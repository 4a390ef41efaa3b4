#: slow
#: fixtures split/photos split/net.py split/net.safetensors
# --- hidden-model ---
import pytest

import unfooled as uf


@pytest.fixture(scope="module")
def model():
    return uf.models.load("net.py:make", "net.safetensors")


# --- marker ---
@pytest.mark.robust(data="photos:test[0:200]", threat="linf:8/255", at_least=0.4)
def test_the_model_resists(model, assert_robust):
    assert_robust(model)
