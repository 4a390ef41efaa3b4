"""Many machines: shards of an evaluation go to workers that hold the model, by Ray.

    uf.evaluate(model, data, "linf:8/255", cluster="local")                          # the cores of this machine
    uf.evaluate(model, data, "linf:8/255", cluster=Ray("auto", cores=4))             # the cluster it belongs to

The evidence is that of a single process with as many threads as a worker has. Only the process that began writes the run
folder; a shard whose worker is lost is examined by another one.
"""

from __future__ import annotations

from .dispatch import Crew, Event, Lost, deliver
from .machines import Ray

__all__ = ["Crew", "Event", "Lost", "Ray", "deliver"]
