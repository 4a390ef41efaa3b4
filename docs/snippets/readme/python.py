#: slow
import unfooled as uf

images = uf.data.load("fashion-mnist-sample[0:200]")
model = uf.models.load("fashion-mnist/plain")
result = uf.attack(model, images.floats(), images.labels, uf.Linf(0.1), uf.attacks.PGD(steps=40, step_size=0.1))
print(result.clean_accuracy, result.robust_accuracy)

verdict = uf.evaluate(model, images, "linf:0.1", protocol="fast")  # a cascade of attacks, survivors only
print(verdict.robust_accuracy.attacked, verdict.trust, verdict.findings, verdict.examples[0])

nearest = uf.attack(model, images.floats(), images.labels, uf.L2(float("inf")), uf.attacks.DDN())
print(nearest.distance.median())  # one run, robust accuracy at every eps

blurred = uf.defend(model, uf.defenses.GaussianBlur(sigma=1.0))
blind = uf.attack(blurred, images.floats(), images.labels, uf.Linf(0.1), uf.attacks.FGSM(), surrogate=model)
aware = uf.attack(blurred, images.floats(), images.labels, uf.Linf(0.1), uf.attacks.FGSM())
print(blind.robust_accuracy, aware.robust_accuracy)
