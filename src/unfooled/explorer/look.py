"""How both pages look: the report's colours and type as a Gradio theme, and the parts that every page has."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Any

from ..report import style
from .extra import gr

SANS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Liberation Sans", "Arial", "sans-serif")
PRIVATE: dict[str, Any] = {  # what comes while an answer is awaited is asked afterwards, and only the last of it
    "api_visibility": "private",
    "show_progress": "hidden",
    "trigger_mode": "always_last",
}
TIMED: dict[str, Any] = PRIVATE | {  # the browser's clock takes the place of the last input: see `desk`
    "js": "(...given) => [...given.slice(0, -1), performance.timeOrigin + performance.now()]",
    "trigger_mode": "multiple",
    "concurrency_limit": None,
}
MONO = ("ui-monospace", "SF Mono", "Cascadia Mono", "Menlo", "Consolas", "Liberation Mono", "monospace")


def theme() -> Any:
    """Gradio's parts in the report's colours, light and dark; fonts that are there, none fetched."""
    flat = {
        "body_background_fill": "var(--paper)", "background_fill_primary": "var(--paper)",
        "background_fill_secondary": "var(--wash)", "body_text_color": "var(--ink)",
        "body_text_color_subdued": "var(--soft)", "block_background_fill": "transparent",
        "block_border_color": "var(--rule)", "block_label_text_color": "var(--soft)", "block_title_text_color": "var(--ink)",
        "block_info_text_color": "var(--soft)", "border_color_primary": "var(--rule)", "border_color_accent": "var(--model)",
        "input_background_fill": "var(--paper)", "input_border_color": "var(--grey)",
        "input_border_color_focus": "var(--model)", "color_accent_soft": "var(--wash)", "link_text_color": "var(--model)",
        "slider_color": "var(--adaptive)", "button_primary_background_fill": "var(--ink)",
        "button_primary_background_fill_hover": "var(--soft)", "button_primary_text_color": "var(--paper)",
        "button_primary_border_color": "var(--ink)", "button_secondary_background_fill": "var(--paper)",
        "button_secondary_background_fill_hover": "var(--wash)", "button_secondary_text_color": "var(--ink)",
        "button_secondary_border_color": "var(--grey)", "checkbox_background_color": "var(--paper)",
        "checkbox_background_color_selected": "var(--ink)", "checkbox_border_color": "var(--grey)",
        "checkbox_border_color_selected": "var(--ink)", "checkbox_label_background_fill": "var(--paper)",
        "checkbox_label_background_fill_hover": "var(--wash)", "checkbox_label_background_fill_selected": "var(--wash)",
        "checkbox_label_text_color": "var(--ink)", "checkbox_label_text_color_selected": "var(--ink)",
        "checkbox_label_border_color": "var(--rule)", "panel_background_fill": "transparent",
        "error_background_fill": "var(--tint)", "error_text_color": "var(--alarm)", "error_border_color": "var(--alarm)",
        "error_icon_color": "var(--alarm)",
    }  # fmt: skip
    known = set(gr.themes.Base.set.__code__.co_varnames)
    both = {name: value for key, value in flat.items() for name in (key, f"{key}_dark") if name in known}
    base = gr.themes.Base(font=list(SANS), font_mono=list(MONO), radius_size="sm", text_size="md")
    return base.set(**both, block_shadow="none", block_border_width="0px", button_border_width="1px",
                    checkbox_border_width="1px", input_border_width="1px", block_label_background_fill="transparent",
                    button_transition="none", block_padding="0px", form_gap_width="0px")  # fmt: skip


def css() -> str:
    """The style sheet: the report's colours as variables, and this page's own rules."""
    own = (files("unfooled.explorer") / "explorer.css").read_text(encoding="utf-8")
    return f":root {{ {style.css_variables()} }}\n.dark {{ {style.css_variables(dark=True)} }}\n{own}"


def header(kind: str, title: str, about: str) -> str:
    """The top of a page."""
    return (
        f'<header class="top"><p class="kicker">unfooled <span aria-hidden="true">·</span> {escape(kind)} '
        f'<span aria-hidden="true">·</span> {escape(about)}</p><h1>{escape(title)}</h1></header>'
    )


def notice(words: str, alarm: bool = False) -> str:
    """A sentence that stands by itself."""
    role = "alert" if alarm else "status"
    return f'<p class="notice{" alarm" if alarm else ""}" role="{role}">{escape(words)}</p>'
