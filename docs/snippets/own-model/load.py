#: slow
#: fixtures photos net.py net.safetensors
import unfooled as uf

model = uf.models.load("net.py:make", "net.safetensors")
data = uf.data.load("photos")
verdict = uf.evaluate(model, data, "linf:4/255")

facts, access = uf.models.facts_of(model)
print(access, facts.preprocessing)
print(verdict.robust_accuracy.attacked, verdict.trust)
