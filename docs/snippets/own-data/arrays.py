#: fixtures photos
import numpy as np

import unfooled as uf

photos = uf.data.load("photos")
np.savez("images.npz", images=photos.whole().numpy(), labels=photos.labels.numpy())  # (N, C, H, W) in [0, 1]
print(len(uf.data.load("images.npz[0:10]")))
