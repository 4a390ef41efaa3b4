#: slow
from dataclasses import replace

import unfooled as uf

own = replace(
    uf.RECIPES["trades"],
    objective="trades:beta=3",
    attack="near-pgd:steps=5,step_size=0.4",
    epochs=2,
    augment="shift:2",  # each image moved by up to two pixels
    average=0.999,  # judge and keep a moving average of the weights
    awp=0.005,  # take the loss at the worst weights nearby
    smoothing=0.1,
    clip=1.0,
)
done = uf.train(uf.models.build("small-cnn"), uf.data.load("fashion-mnist-sample[0:300]"), uf.Linf(0.1), own)
print(done.ended or "trained to its end")
