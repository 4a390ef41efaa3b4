"""A run folder as people read it: one HTML page that opens anywhere, and its plots as PNG and SVG.

`draw` reads `evaluation.json` and `pictures.safetensors` and needs neither torch nor the model. The same folder
always gives the same bytes.
"""

from __future__ import annotations

from unfooled.report.folder import draw

__all__ = ["draw"]
