"""The child process of a local model: llama.cpp's server until standard input ends."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

PACKAGED = "smollm2"
TEMPLATE = Path(__file__).with_name("smollm2.jinja")
"""How messages and tools become text for the packaged model."""
HTTP_THREADS = 128
"""llama.cpp's server gives each kept-alive connection a thread."""


def serve(settings: dict[str, Any]) -> None:
    """Serve a GGUF file on a free port of the loopback address, and print the URL."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["path"]
    alias = settings["alias"]
    params.model_alias = [alias] if isinstance(params.model_alias, (list, str)) else {alias}
    slots = settings["slots"] or 4
    params.n_parallel = slots
    params.n_ctx = (settings["ctx"] or 2048) * slots
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.cpuparams.n_threads = settings["threads"] or os.cpu_count() or 1
    params.n_threads_http = HTTP_THREADS
    params.use_jinja = True
    if settings["alias"] == PACKAGED:
        params.chat_template = TEMPLATE.read_text()
    params.warmup = False
    server = xllamacpp.Server(params)
    url = str(server.listening_address).rstrip("/")
    if "://" not in url:
        url = f"http://{url}"
    print(json.dumps({"url": f"{url}/v1"}, separators=(",", ":")), flush=True)
    threading.Event().wait()


def _end_with_stdin() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_stdin, daemon=True).start()
    serve(json.loads(sys.argv[1]))
