"""A small server of the standard library that serves a model, and misbehaves when told to."""

import base64
import hashlib
import io
import json
import socket
import threading
import time
from collections import deque
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import numpy as np
import torch
from PIL import Image

NAMES = ("shirt", "trouser", "pullover", "dress", "coat", "sandal", "blouse", "sneaker", "bag", "boot")


class Server:
    """Serves `model` at `http://127.0.0.1:PORT/FORM?say=WHAT` in a thread.

    faults:   what the next requests get instead of an answer, in order; "" for an answer.
    seen:     the hash of each image that came, in order, also of those that got no answer.
    times:    when each request came.   headers: of each request.   busy, busiest: requests at once.
    """

    def __init__(self, model, faults=(), slow=0.0):
        self.model, self.faults, self.slow = model, deque(faults), slow
        self.seen, self.times, self.headers, self.lock = [], [], [], threading.Lock()
        self.busy = self.busiest = 0
        self.say = None  # the document of every answer, where a test wants it
        handler = type("Handler", (_Handler,), {"owner": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.http.daemon_threads = True
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.http.server_port}/{path}"

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.http.shutdown()
        self.http.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30
    owner = None

    def log_message(self, *words):
        pass

    def handle(self):
        try:
            super().handle()
        except (ConnectionError, ValueError):  # the other side has gone, or this one has closed
            self.close_connection = True

    def do_POST(self):
        owner = self.owner
        body = self.rfile.read(int(self.headers["Content-Length"]))
        address = urlsplit(self.path)
        images = read(address.path.strip("/"), self.headers["Content-Type"], body)
        with owner.lock:
            owner.times.append(time.monotonic())
            owner.headers.append(dict(self.headers))
            owner.seen += [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
            fault = owner.faults.popleft() if owner.faults else ""
            owner.busy += 1
            owner.busiest = max(owner.busiest, owner.busy)
        try:
            self.misbehave(fault) if fault else self.answer(images, parse_qs(address.query))
        finally:
            with owner.lock:
                owner.busy -= 1

    def answer(self, images, asked):
        time.sleep(self.owner.slow)
        with torch.no_grad():
            logits = self.owner.model(torch.from_numpy(np.stack(images)))
        said = [say(row, asked.get("say", ["scores"])[0]) for row in logits.double()]
        document = said if "list" in asked else said[0]
        if "in" in asked:
            for name in reversed(asked["in"][0].split(".")):
                document = {name: document}
        self.send(200, json.dumps(document if self.owner.say is None else self.owner.say))

    def misbehave(self, fault):
        kind, _, more = fault.partition(" ")
        if kind == "drop":
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        elif kind == "half":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n[0.1,")
            self.close_connection = True
        elif kind == "broken":
            self.send(200, '{"scores": [0.1,')
        elif kind == "slow":
            time.sleep(float(more))
            self.send(200, "[]")
        elif kind == "wait":
            self.send(429, "slow down", {"Retry-After": more} if more else {})
        elif kind == "move":
            code, there = more.split()
            self.send(int(code), "moved", {"Location": there})
        else:
            self.send(int(kind), more)

    def send(self, code, text, headers=None):
        body = text.encode()
        self.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self._headers_buffer.append(b"\r\n" + body)  # one packet: two would wait for each other
        self.flush_headers()


def read(form, kind, body):
    """The images of a request, float32 (C, H, W) or (D,), as the model takes them."""
    if form == "png":
        assert kind == "image/png"
        return [pixels(body)]
    if form == "multipart":
        head = b"Content-Type: " + kind.encode() + b"\r\n\r\n"
        parts = BytesParser().parsebytes(head + body).get_payload()
        assert all(part.get_param("name", header="Content-Disposition") == "file" for part in parts)
        return [pixels(part.get_payload(decode=True)) for part in parts]
    assert kind == "application/json"
    document = json.loads(body)
    document = document["image"] if "image" in document else [one["b64"] for one in document["instances"]]
    several = document if isinstance(document, list) else [document]
    if form == "base64":
        return [pixels(base64.b64decode(one)) for one in several]
    array = np.asarray(document, dtype=np.float64)
    if form == "json255":
        array = array / 255
    if form == "jsonlast":
        array = np.moveaxis(array, -1, -3)
    array = array.astype(np.float32)
    return list(array) if array.ndim in (2, 4) else [array]


def pixels(png):
    array = np.asarray(Image.open(io.BytesIO(png)), dtype=np.float32) / 255
    return array[None] if array.ndim == 2 else np.ascontiguousarray(array.transpose(2, 0, 1))


def say(logits, what):
    """One image's answer, in one of the ways that servers have."""
    shares, best = logits.softmax(0).tolist(), int(logits.argmax())
    named = dict(zip(NAMES, shares, strict=False))
    pairs = [{"label": name, "score": named[name]} for name in sorted(named, key=named.get, reverse=True)]
    return {
        "scores": {"scores": shares, "took": 0.1},
        "bare": shares,
        "logits": {"logits": logits.tolist()},
        "mapping": dict(sorted(named.items())),
        "numbered": {str(k): share for k, share in sorted(enumerate(shares), key=lambda p: -p[1])},
        "pairs": pairs,
        "top": pairs[:3],
        "label": {"label": best},
        "index": best,
        "name": NAMES[best],
        "named": {"label": NAMES[best], "confidence": max(shares)},
    }[what]
