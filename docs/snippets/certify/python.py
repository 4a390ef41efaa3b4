#: fixtures provable.py
import provable

import unfooled as uf

model = provable.make()
found = uf.certify(model, "fashion-mnist-sample[0:50]", "linf:2/255", "ibp,crown")
print(found.certified_accuracy, found.margin.max(), [found.methods[by] for by in found.by if by >= 0][:3])

black_box = uf.models.BlackBox(lambda images: model(images).argmax(1), "labels", classes=10)
smoothed = uf.certify(black_box, "fashion-mnist-sample[0:20]", uf.L2(0.1), "smoothing:sigma=0.25,draws=1000")
print(smoothed.certified_accuracy, smoothed.radius, smoothed.draws.float().mean())
