"""Benchmarks: what the engine costs, and this package beside its peers. Run them as modules from the repository's root.

python -m benchmarks.attacks      every attack beside its peers and the bare loop
python -m benchmarks.quality      optimality of minimum-norm attacks at a fixed number of passes
python -m benchmarks.autoattack   the protocols beside AutoAttack
python benchmarks/floor.py        what the engine costs above the passes that an attack needs
"""
