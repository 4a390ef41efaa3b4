#: slow
#: packages ray
#: fixtures photos net.py net.safetensors
import unfooled as uf
from unfooled.cluster import Ray

model = uf.models.load("net.py:make", "net.safetensors")
verdict = uf.evaluate(model, "photos", "linf:4/255", out="runs/photos", cluster=Ray("local", cores=1))
print(verdict.robust_accuracy.attacked)
