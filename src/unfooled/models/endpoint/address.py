"""Where an endpoint is, and what is secret about asking it."""

from __future__ import annotations

import os
import re
from urllib.parse import urlsplit

from ...errors import ParameterError

_NAMED = re.compile(r"\{([A-Za-z_]\w*)\}")  # {NAME} in an address stands for an environment variable
_HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~]*)")  # a token, RFC 9110 5.6.2, and printable ASCII


class Address:
    """An address and the headers that go with each request; secrets come from the environment only.

    shown:       the address as the user wrote it, `{NAME}` for what stands in an environment variable. It is the only
                 form that messages, facts and files hold.
    header_env:  the name of an environment variable with header lines such as "Authorization: Bearer …".

    Raises `ParameterError`, whose text never holds a secret.
    """

    def __init__(self, shown: str, header_env: str | None = None) -> None:
        self.shown, self.header_env = shown, header_env
        self._secrets: set[str] = set()
        self.url = _NAMED.sub(lambda name: self._secret(name[1], f"{{{name[1]}}} in {shown}"), shown)
        self.headers = {} if header_env is None else self._headers(header_env)
        try:
            parts = urlsplit(self.url)
            right = bool(parts.hostname) and (parts.port is None or parts.port > 0)
        except ValueError:
            right = False
        if not right:
            raise ParameterError(f"{shown} is no address: write http://HOST:PORT/PATH, or https://….")
        if parts.username is not None or parts.password is not None:
            raise ParameterError(
                "The address holds a user name or password, which would be written into run folders. Leave it out and name "
                "an environment variable that holds the header: header_env=NAME."
            )

    def _secret(self, name: str, what: str) -> str:
        value = os.environ.get(str(name), "").strip()
        if not value:
            raise ParameterError(f"The environment variable {name!r} ({what}) is not set, or is empty.")
        self._secrets.add(value)
        return value

    def _headers(self, name: str) -> dict[str, str]:
        found = {}
        for line in self._secret(name, "header_env").splitlines():
            match = _HEADER.fullmatch(line.strip())
            if match is None:
                raise ParameterError(
                    f"The environment variable {name!r} (header_env) must hold header lines such as "
                    "'Authorization: Bearer …'."
                )
            found[match[1]] = match[2]
            self._secrets |= {match[2], *match[2].split()[1:]}  # the token also without the word before it
        return found

    def hide(self, text: str) -> str:
        """A text without the secrets, should a server have repeated one."""
        for secret in sorted(self._secrets - {""}, key=len, reverse=True):
            text = text.replace(secret, "…")
        return text
