"""How a page is shown: on loopback unless a password guards it, and nothing of it fetched from elsewhere."""

from __future__ import annotations

import ipaddress
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from ..errors import OutputError, ParameterError, must_be
from . import uploads
from .extra import gr
from .look import css, theme

USER = "unfooled"
LOOPBACK = "127.0.0.1"


def check_host(host: str, password: str | None) -> None:
    """Raise `ParameterError` where a page would be open to others without a password."""
    if password is not None and not password.strip():
        raise ParameterError("The password is empty. Give one, or leave --password-env out and stay on this computer.")
    if password is None and not is_loopback(host):
        raise ParameterError(
            f"--host {host} lets other computers in: name the environment variable that holds a password with "
            "--password-env NAME."
        )


def is_loopback(host: str) -> bool:
    """Whether only this computer can come in."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


class Served:
    """A page that is being served, until it is closed."""

    def __init__(self, page: gr.Blocks, folder: tempfile.TemporaryDirectory[str]) -> None:
        self.page, self.folder = page, folder
        self.address = str(page.local_url)

    def wait(self) -> None:
        """Serve until the keyboard interrupts."""
        with suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)

    def close(self) -> None:
        """End the server; what was uploaded is gone."""
        self.page.close(verbose=False)
        self.folder.cleanup()


def serve(
    build: Callable[[], gr.Blocks],
    host: str = LOOPBACK,
    port: int | None = None,
    password: str | None = None,
    browser: bool = False,
) -> Served:
    """Show a page.

    build:     makes the page.
    host:      the address to listen on; other than loopback only with a password.
    port:      None: the first that is free from 7860.
    password:  what the user `unfooled` must give.
    browser:   whether to open the page in a browser.

    Raises `ParameterError`, `OutputError` where the port is taken.
    """
    check_host(host, password)
    if port is not None and not (isinstance(port, int) and 0 < port < 65536):
        raise must_be("explore", "port", "an int in [1, 65535]", port)
    folder = tempfile.TemporaryDirectory(prefix="unfooled-explorer-")
    os.environ["GRADIO_TEMP_DIR"] = folder.name  # what is uploaded lies there until it has been read
    page = build()
    options: dict[str, Any] = {
        "theme": theme(), "css": css(), "share": False, "quiet": True, "ssr_mode": False, "footer_links": [],
        "max_file_size": uploads.BYTES, "enable_monitoring": False, "mcp_server": False, "pwa": False,
        "strict_cors": True, "show_error": False, "prevent_thread_lock": True, "inbrowser": browser,
        "favicon_path": str(Path(__file__).parent / "favicon.png"),
    }  # fmt: skip
    if password is not None:
        options |= {"auth": (USER, password), "auth_message": f"The user name is {USER}."}
    try:
        page.launch(server_name=host, server_port=port, **options)
    except OSError as error:
        folder.cleanup()
        raise OutputError(f"Cannot listen on {host}{'' if port is None else f':{port}'}: {error}.") from None
    return Served(page, folder)
