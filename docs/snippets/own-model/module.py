#: slow
#: fixtures photos net.py net.safetensors
# --- hidden-network ---
from net import make

network = make()

# --- given ---
import unfooled as uf

uf.models.load_weights(network, "net.safetensors")  # or as you always do it
verdict = uf.evaluate(network.eval(), "photos", uf.Linf(4 / 255))
print(verdict.clean_accuracy, verdict.robust_accuracy.attacked)
