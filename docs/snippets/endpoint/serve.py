"""An endpoint to try this with: POST a PNG, get the shares of ten classes as JSON."""

import io
import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import torch
from PIL import Image

import unfooled as uf

model = uf.models.load("fashion-mnist/plain")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        pixels = np.asarray(Image.open(io.BytesIO(body)), dtype=np.float32) / 255
        with torch.no_grad():
            shares = model(torch.from_numpy(pixels)[None, None]).softmax(1)[0]
        label = {"label": int(shares.argmax())}
        answer = json.dumps(label if self.path == "/label" else {"scores": shares.tolist()}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *words):
        pass


if __name__ == "__main__":
    torch.set_num_threads(1)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("PORT", "8000"))), Handler).serve_forever()
