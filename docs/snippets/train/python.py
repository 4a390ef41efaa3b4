#: slow
import unfooled as uf

data = uf.data.load("fashion-mnist-sample[0:500]")  # fashion-mnist:train, if you have the hour
model = uf.models.build("small-cnn")
done = uf.train(model, data, uf.Linf(0.1), recipe="n-fgsm", out="runs/hardened")
print(done.chosen, done.history[-1].clean, done.history[-1].robust)
