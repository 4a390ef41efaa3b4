#: slow
#: packages sklearn
import numpy as np
from sklearn.datasets import load_digits
from sklearn.svm import SVC

import unfooled as uf

x, y = load_digits(return_X_y=True)  # rows of 64 numbers from 0 to 16
svc = SVC().fit(x[:1000], y[:1000])

threat = uf.L2(4.0, bounds=(0.0, 16.0))
labels = np.searchsorted(svc.classes_, y[1000:1020])  # positions in classes_
verdict = uf.evaluate(svc, (x[1000:1020], labels), threat, "quick")
print(verdict.clean_accuracy, verdict.robust_accuracy.attacked)
