"""Gradio, or the line that installs it; told first to send nothing anywhere."""

from __future__ import annotations

import os

from ..errors import MissingExtra

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # Gradio reads it when it is imported
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

try:
    import gradio as gr
except ImportError as error:  # pragma: no cover - where it is not installed
    raise MissingExtra('The explorer needs Gradio: pip install "unfooled[explore]".') from error

__all__ = ["gr"]
