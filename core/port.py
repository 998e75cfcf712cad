"""port: can the page be opened at this address?"""

from __future__ import annotations

import errno
import os
import socket


def port_trouble(host: str, port: int) -> str | None:
    """Why no server can be opened at `host` and `port`, and what to do; None if it can."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            if os.name != "nt":  # there the option would let two servers share a port
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
            probe.listen(1)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            other = port + 1 if port < 65535 else 7865
            return (
                f"Port {port} is in use, perhaps by another Easel. Close that program, or choose another port: "
                f"python launch.py --port {other}"
            )
        if error.errno in (errno.EACCES, errno.EPERM):
            return f"This user may not open port {port}. Choose one above 1023: python launch.py --port 7865"
        return f"The page cannot be opened at {host}, port {port} ({error.strerror}). Choose another address with --listen IP."
    except ValueError:  # Python looks up no name with an empty or a long part, or with letters that no name has
        return (
            f"{host[:200]!r} is no address: a part between its points is empty or has more than 63 letters, or it has "
            "letters that no address has. Write it like --listen 192.168.0.1."
        )
    return None
