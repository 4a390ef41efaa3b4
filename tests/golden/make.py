"""Write tests/golden/demo.json: the curves of the demo on 100 images, as tests/test_studies.py compares them."""

import json
from pathlib import Path

from unfooled.studies.demo import demo

evaluation, _ = demo(100)
curves = {p.id: {f"{c.label} {c.family}": [y.value for y in c.y] for c in p.curves} for p in evaluation.panels}
Path(__file__).with_name("demo.json").write_text(json.dumps(curves, indent=1) + "\n")
