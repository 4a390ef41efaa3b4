"""How images become the bodies of requests."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import quote

import torch
from PIL import Image
from torch import Tensor

from ...errors import ModelError, ParameterError, must_be

Kind = Literal["png", "multipart", "base64", "json"]
_FIELDS = {"png": "", "multipart": "file", "base64": "image", "json": "image"}
_MODES = {1: "L", 3: "RGB"}


@dataclass(frozen=True)
class Form:
    """What a request holds.

    kind:   "png", the body is one PNG; "multipart", a form with files; "base64", JSON with PNGs in base64; "json", nested
            lists of numbers, which lose nothing.
    field:  the form's field, or the dotted path to the image in the JSON object: "image" makes {"image": …},
            "instances.*.b64" makes {"instances": [{"b64": …}, …]}. "" is the image without anything round it.
    batch:  images in a request, as a list; None: one, by itself.
    scale:  what white is in "json": 1, or 255.
    last:   channels last in "json", (H, W, C).
    extra:  a JSON object, or its text, whose entries stand beside the image: {"parameters": {"top_k": 1000}}.

    Raises `ParameterError`; `ModelError` for images that the form cannot hold.
    """

    kind: Kind = "png"
    field: str | None = None
    batch: int | None = None
    scale: int = 1
    last: bool = False
    extra: str | Mapping[str, Any] = ""

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise must_be("the endpoint", "form", "png, multipart, base64 or json", self.kind)
        if self.field is None:
            object.__setattr__(self, "field", _FIELDS[self.kind])
        if not isinstance(self.field, str):
            raise must_be("the endpoint", "field", "a name, or a dotted path such as inputs.image", self.field)
        if self.batch is not None and (type(self.batch) is not int or self.batch < 1):
            raise must_be("the endpoint", "batch", "an int of at least 1", self.batch)
        if self.kind == "png" and (self.batch is not None or self.field):
            name = "batch" if self.batch is not None else "field"
            raise ParameterError(f"A body that is one PNG has no {name}. Use form=multipart, base64 or json.")
        if type(self.scale) is not int or self.scale not in (1, 255):
            raise must_be("the endpoint", "scale", "1 or 255", self.scale)
        if not isinstance(self.last, bool):
            raise must_be("the endpoint", "last", "true or false", self.last)
        if self.kind != "json" and (self.scale != 1 or self.last):
            raise ParameterError(f"scale and last are of form=json: the form {self.kind} sends PNGs.")
        self._check_extra()

    def _check_extra(self) -> None:
        if not self.extra:
            return
        try:
            held = json.loads(self.extra) if isinstance(self.extra, str) else json.loads(json.dumps(dict(self.extra)))
        except (ValueError, TypeError):
            held = None
        if not isinstance(held, dict):
            raise must_be("the endpoint", "extra", 'a JSON object, such as {"top_k": 1000}', self.extra)
        if self.kind in ("png", "multipart") or not self.field or str(self.field).startswith("*"):
            raise ParameterError(
                "extra stands beside the image in a JSON object: use form=json or base64, with a field."
            )
        if str(self.field).partition(".")[0] in held:
            raise ParameterError(f"extra has an entry {self.field!r}, where the image goes.")
        object.__setattr__(self, "extra", json.dumps(held))

    @property
    def listed(self) -> bool:
        """Whether a request holds a list of images, be it of one."""
        return self.batch is not None or "*" in str(self.field).split(".")

    @property
    def words(self) -> str:
        """What happens to images on the way."""
        if self.kind == "json":
            return "multiplied by 255" if self.scale == 255 else ""
        return (
            "clipped to [0, 1] and rounded to 8 bits, since they are sent as PNG: what is judged is the rounded image"
        )

    def payloads(self, images: Tensor) -> list[bytes]:
        """Each of the images (N, *shape) as bytes; equal bytes are one question."""
        images = images.detach().cpu()
        if not bool(torch.isfinite(images).all()):
            raise ModelError("An image holds NaN or inf, which cannot be sent.")
        if self.kind == "json":
            exact = images.double() * self.scale  # neither the widening nor the factor rounds a float32
            exact = exact.permute(0, 2, 3, 1) if self.last and exact.dim() == 4 else exact
            return [json.dumps(image, separators=(",", ":")).encode() for image in exact.tolist()]
        if images.dim() != 4 or images.shape[1] not in _MODES:
            raise ModelError(
                f"A PNG holds grey or colour images, (1, H, W) or (3, H, W). These have shape {tuple(images.shape[1:])}: "
                "use form=json."
            )
        pixels = (images.double().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1)
        return [_png(image) for image in pixels]

    def body(self, payloads: Sequence[bytes]) -> tuple[bytes, str]:
        """The body that holds these, and its content type."""
        if self.kind == "png":
            return payloads[0], "image/png"
        assert self.field is not None
        if self.kind == "multipart":
            return _multipart(self.field, payloads)
        quoted = payloads if self.kind == "json" else [b'"' + base64.b64encode(one) + b'"' for one in payloads]
        made = _nested(self.field.split(".") if self.field else [], quoted, self.listed)
        return (made[:-1] + b"," + str(self.extra)[1:].encode() if self.extra else made), "application/json"


def _png(pixels: Tensor) -> bytes:
    grey = pixels.shape[2] == 1
    held = io.BytesIO()
    Image.fromarray((pixels[:, :, 0] if grey else pixels).numpy(), "L" if grey else "RGB").save(
        held, "PNG", compress_level=1
    )
    return held.getvalue()


def _nested(path: list[str], values: Sequence[bytes], listed: bool) -> bytes:
    if not path:
        return b"[" + b",".join(values) + b"]" if listed else values[0]
    head, rest = path[0], path[1:]
    if head == "*":
        return b"[" + b",".join(_nested(rest, [value], False) for value in values) + b"]"
    return b"{" + json.dumps(head).encode() + b":" + _nested(rest, values, listed) + b"}"


def _multipart(field: str, payloads: Sequence[bytes]) -> tuple[bytes, str]:
    """A form (RFC 7578) with one file an image; the boundary comes from the content, so that equal forms are equal."""
    field = quote(field, safe=" !#$&'()*+,;=/?:@[]~")
    boundary = "unfooled-" + hashlib.sha256(b"".join(payloads)).hexdigest()
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{field}"; filename="{at}.png"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + payload
        + b"\r\n"
        for at, payload in enumerate(payloads)
    ]
    return b"".join(parts) + f"--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
