#: slow
#: fixtures endpoint
import unfooled as uf

box = uf.models.load("http://127.0.0.1:8000/", budget=20_000, rate=500, parallel=4)
verdict = uf.evaluate(box, "fashion-mnist-sample[0:20]", uf.Linf(0.1), "quick")
print(verdict.robust_accuracy.attacked, verdict.trust)
