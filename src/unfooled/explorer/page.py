"""The page of a model: pictures to pick from, the lesson, and every attack. Layout and wiring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import UnfooledError
from . import explore_tab, lesson_tab, picker, uploads
from .desk import Ticket
from .extra import gr
from .look import PRIVATE, header, notice
from .room import Room
from .state import Subject, lesson_possible

TITLE = "How little does it take to fool a model?"


def build(room: Room, first: int = 0) -> gr.Blocks:
    """The page of a room's model; `first` is the picture that it opens with. Raises `ParameterError`."""
    bench = room.bench
    strips = picker.order(bench)
    with gr.Blocks(title="unfooled explorer", analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        gr.HTML(header("explorer", TITLE, f"{bench.name} on {bench.data_name}"))
        subject, at = gr.State(bench.subject(first)), gr.State(0)
        clock = gr.Number(0, visible=False)
        strip = picker.strip(picker.value(bench, strips, 0, first))
        with gr.Row(elem_classes="tools"):
            other = gr.Button("Other pictures", size="sm", elem_id="other", min_width=140, scale=0)
            upload = gr.UploadButton(
                "Upload your own", file_types=["image"], size="sm", elem_id="upload", min_width=140, scale=0
            )
            invert = gr.Checkbox(
                False,
                label="turn an upload inside out: light for dark",
                elem_id="invert",
                container=False,
                min_width=260,
            )
        message = gr.HTML("", elem_id="message")
        with gr.Tabs(selected="lesson" if lesson_possible(bench) else "explore"):
            with gr.Tab("The lesson", id="lesson", render_children=True):
                teach = lesson_tab.build(room, subject, clock)
            with gr.Tab("Explore", id="explore", render_children=True):
                explore = explore_tab.build(room, subject, clock)
        picking = Picking(room, strips)
        picked = strip.select(picking.choose, None, [subject, message], **PRIVATE)
        sent = upload.upload(picking.receive, [upload, invert], [subject, message], **PRIVATE)
        turned = invert.input(picking.inside_out, subject, subject, **PRIVATE)
        other.click(picking.turn, at, [at, strip], **PRIVATE)
        for event in (page.load, picked.then, sent.then, turned.then):
            teach(event)
            explore(event)
        page.unload(picking.leave)
    return page  # type: ignore[no-any-return]


class Picking:
    """The handlers of the pictures, and of the page's end."""

    def __init__(self, room: Room, strips: list[list[int]]) -> None:
        self.room, self.strips = room, strips

    def choose(self, event: gr.EventData) -> Any:
        """A picture of the strip."""
        return self.room.bench.subject(int(event.index)), ""

    def turn(self, at: int) -> Any:
        """The next strip."""
        at = (at + 1) % len(self.strips)
        return at, picker.value(self.room.bench, self.strips, at, -1)

    def receive(self, file: str, invert: bool) -> Any:
        """An uploaded file, which is deleted at once; what is wrong with it is said, and the old picture stays."""
        bench, path = self.room.bench, Path(file)
        try:
            image = uploads.read(path, bench.shape, invert)
            found = bench.brought(image, Ticket())
        except UnfooledError as error:
            return gr.skip(), notice(str(error), alarm=True)
        finally:
            path.unlink(missing_ok=True)
        channels, height, width = bench.shape
        grey = " grey" if channels == 1 else ""
        return found, notice(
            f"Your picture, as the model sees it: {width} × {height}{grey} pixels. Whatever it is shown, the model "
            f"answers one of its {len(bench.classes)} classes; that answer counts as right here."
        )

    def inside_out(self, subject: Subject) -> Any:
        """An uploaded picture with light for dark; one of the data stays as it is."""
        return gr.skip() if subject.given else self.room.bench.brought(1 - subject.image, Ticket())

    def leave(self, request: gr.Request) -> None:
        """The page was closed."""
        self.room.close(str(request.session_hash))
