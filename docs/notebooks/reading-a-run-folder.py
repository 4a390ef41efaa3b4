# %% [markdown]
# # Reading a run folder
#
# A run leaves everything that its number rests on: a row for each image, every adversarial image without loss, the
# numbers as JSON. Here is how to read them with the library's own functions, and with nothing but SQLite.

# %%
import sqlite3
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch

import unfooled as uf
from unfooled.store import RunFolder, shard_file
from unfooled.verification import verify

model = uf.models.load("fashion-mnist/hardened")
data = uf.data.load("fashion-mnist-sample[0:150]")
place = Path(tempfile.mkdtemp()) / "run"

verdict = uf.evaluate(model, data, "linf:0.1", out=place)
print(*sorted(path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()), sep="\n")

# %% [markdown]
# ## The question and the answer
#
# `spec.json` is the question: the same call goes on with this folder, another is refused. `evaluation.json` is the
# answer, the same object that `evaluate` returned.

# %%
folder = RunFolder(place)
spec, answer = folder.spec(), folder.evaluation()

print({name: spec[name] for name in ("threat", "protocol", "seed", "images", "shards")})
print(
    f"clean {answer.clean_accuracy.value:.3f}, attacked {answer.robust_accuracy.attacked.value:.3f}, trust {answer.trust}"
)
for finding in answer.findings:
    print(finding.severity, finding.code, finding.measurement)

# %% [markdown]
# ## A row for each image
#
# `evidence()` reads them by column and compares each shard with its digest: a changed row is an error, not a number.

# %%
rows = folder.evidence()
robust = rows["clean_correct"] & ~rows["success"]
print(f"{len(rows['example'])} images, {rows['clean_correct'].sum()} right, {robust.sum()} still right under attack")
for name in sorted({name for name in rows["fooled_by"] if name}):
    print(f"{(rows['fooled_by'] == name).sum():3d} fooled by {name}")

# %% [markdown]
# The same without this package:

# %%
with sqlite3.connect(place / "evidence.sqlite") as database:
    by_class = database.execute(
        "SELECT label, count(*), sum(clean_correct), sum(clean_correct AND NOT success) FROM evidence GROUP BY label"
    ).fetchall()
for label, count, right, held in by_class:
    print(f"{data.classes[label]:<12} {count:3d} images, {right:3d} right, {held:3d} under attack")

# %% [markdown]
# ## The adversarial images
#
# One file of arrays for each shard: `adversarial` (M, C, H, W) in float32, and `example`, which image each belongs
# to.

# %%
arrays = folder.arrays(shard_file(0))
order = np.searchsorted(rows["example"], arrays["example"])
fooled = rows["success"][order]

clean = data.floats()[arrays["example"]].numpy()
change = np.abs(arrays["adversarial"] - clean).reshape(len(clean), -1).max(1)
print(f"the largest change of a pixel: {change[fooled].max():.4f}")

with torch.no_grad():
    answers = model(torch.from_numpy(arrays["adversarial"][fooled])).argmax(1).numpy()
wrong = answers != rows["label"][order][fooled]
print(f"{wrong.sum()} of {fooled.sum()} still fool the model")

# %%
shown = np.flatnonzero(fooled)[:5]
_, places = plt.subplots(2, len(shown), figsize=(2.2 * len(shown), 4.6))
for column, (row, now) in enumerate(zip(shown, answers, strict=False)):
    captions = data.classes[int(rows["label"][order][row])], f"now {data.classes[int(now)]}"
    for line, (picture, caption) in enumerate(zip((clean[row], arrays["adversarial"][row]), captions, strict=True)):
        places[line, column].imshow(picture[0], cmap="gray", vmin=0, vmax=1)
        places[line, column].set_title(caption, fontsize=9)
        places[line, column].axis("off")
plt.show()

# %% [markdown]
# ## From scratch
#
# `verify` believes nothing of the run. It asks the model about every image again: whether each point lies inside the
# set, is as large as recorded, and still fools. On the command line that is `unfooled verify RUN`.

# %%
checked = verify(folder, model, data)
print(f"{checked.examples} examples, {checked.adversarial} adversarial, {len(checked.problems)} problems")
