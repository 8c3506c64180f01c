"""Passes a hook of Claude Code on to the resident planner, and its answer back.

Needs nothing but Python's standard library, and is run with `python -I -S`. Whatever goes wrong, it says nothing and
exits with 0: then Claude Code goes on as it would without it.

    python -I -S shim.py < hook.json            # answers the hook
    python -I -S shim.py --probe                # says whether the planner answers

Looks for the planner at CC_APPORTION_URL (default: http://127.0.0.1:8766), with the token in CC_APPORTION_TOKEN or in
the file CC_APPORTION_TOKEN_FILE (default: the one that `apportion serve` makes). With CC_APPORTION_START=1 it starts
`apportion serve` at the beginning of a session where the planner does not answer.
"""

from __future__ import annotations

import os
import sys
import time

try:
    import _socket as sockets  # the module socket takes longer than all the rest
except ImportError:
    import socket as sockets  # type: ignore[no-redef]

PORT = 8766
PATH = "/hooks/claude-code"
CONNECT_S = 0.25
ANSWER_S = 5.0  # for the whole answer, and less than the timeout of hooks.json
MOST = 8 * 2**20


def data_folder() -> str:
    """Return the folder where apportion keeps its data, as platformdirs has it."""
    home = os.path.expanduser("~")
    if sys.platform == "win32":
        return os.path.join(os.environ.get("LOCALAPPDATA") or os.path.join(home, "AppData", "Local"), "apportion")
    if sys.platform == "darwin":
        return os.path.join(home, "Library", "Application Support", "apportion")
    return os.path.join(os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share"), "apportion")


def place_url() -> str:
    """Return where the planner is."""
    return os.environ.get("CC_APPORTION_URL") or f"http://127.0.0.1:{PORT}"


def token_file() -> str:
    """Return the file in which the token is looked for."""
    return os.environ.get("CC_APPORTION_TOKEN_FILE") or os.path.join(data_folder(), "apportion.db.token")


def place() -> tuple[str, int, str] | None:
    """Return host, port and token of the planner, or None."""
    token = os.environ.get("CC_APPORTION_TOKEN")
    if not token:
        with open(token_file(), encoding="ascii") as file:
            token = file.read(500).strip()
    url = place_url()
    host, _, port = url.partition("://")[2].partition("/")[0].rpartition(":")
    if (
        url.startswith("http://")
        and host in ("127.0.0.1", "localhost", "[::1]")
        and token.isascii()
        and token.isprintable()
    ):
        return host, int(port), token
    return None


def post(host: str, port: int, token: str, body: bytes) -> bytes:
    """Return the body of the planner's answer, or b"" where it is none."""
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: {host}:{port}\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    parts = []
    size = 0
    line = sockets.socket(sockets.AF_INET6 if host == "[::1]" else sockets.AF_INET, sockets.SOCK_STREAM)
    try:
        line.settimeout(CONNECT_S)
        line.connect(("127.0.0.1" if host == "localhost" else host.strip("[]"), port))
        line.settimeout(ANSWER_S)
        ends = time.monotonic() + ANSWER_S
        line.sendall(head.encode("ascii") + body)
        while size <= 2 * MOST:
            line.settimeout(max(0.001, ends - time.monotonic()))  # or one that sends byte by byte holds us for ever
            part = line.recv(65536)
            if not part:
                break
            parts.append(part)
            size += len(part)
    finally:
        line.close()
    told, _, answer = b"".join(parts).partition(b"\r\n\r\n")
    lines = told.decode("latin-1").lower().split("\r\n")
    if lines[0].split(" ")[1:2] != ["200"]:
        return b""
    lengths = [each.partition(":")[2].strip() for each in lines if each.startswith("content-length:")]
    return answer if lengths == [str(len(answer))] else b""


def client_version() -> str | None:
    """Return the version of Claude Code that runs us, or None: AI_AGENT is like claude-code_2-1-330_harness."""
    parts = os.environ.get("AI_AGENT", "").split("_")
    version = parts[1].replace("-", ".") if len(parts) > 1 and parts[0] == "claude-code" else ""
    return version if version.replace(".", "").isdigit() and version.isascii() else None


def start() -> None:
    """Start the planner in the background, where the user wants that."""
    import subprocess

    nowhere = subprocess.DEVNULL
    subprocess.Popen(
        ["apportion", "serve"], stdin=nowhere, stdout=nowhere, stderr=nowhere, start_new_session=True, close_fds=True
    )


def main() -> None:
    """Answer one hook."""
    probe = sys.argv[1:] == ["--probe"]
    body = b'{"hook_event_name":"Probe","session_id":"probe"}' if probe else sys.stdin.buffer.read(MOST + 1).strip()
    if len(body) > MOST or body[:1] != b"{" or os.path.exists(os.path.join(data_folder(), "claude-code.off")):
        return
    version = client_version()
    if version and len(body) > 2:  # put in without reading the JSON, for that takes longer than all the rest
        body = b'{"client_version":"' + version.encode("ascii") + b'",' + body[1:]
    try:
        found = place()
        answer = post(*found, body) if found else b""
    except OSError:
        if b'"hook_event_name":"SessionStart"' in body and os.environ.get("CC_APPORTION_START") == "1":
            start()
        return
    if answer[:1] == b"{" and answer[-1:] == b"}":
        if probe:
            sys.stdout.write("ok\n")
        elif answer != b"{}":
            sys.stdout.buffer.write(answer)


if __name__ == "__main__":
    try:
        main()
        sys.stdout.flush()
    except BaseException:  # whatever it is: the work of the user goes on
        pass
    os._exit(0)
