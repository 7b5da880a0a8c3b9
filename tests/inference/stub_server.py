"""A server that answers as a rollout server does, for what no engine is needed for: it starts in a moment.

python stub_server.py HOST PORT BEHAVIOUR…, where a behaviour is WORD or WORD=VALUE.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from _multiprocessing import SemLock
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from grpo_dist.inference.wire_format import STOP, encode

host, port = sys.argv[1], int(sys.argv[2])
behaviour = dict(word.partition("=")[::2] for word in sys.argv[3:])
incarnation = int(os.environ["GRPO_DIST_INCARNATION"])
STATUS = {
    "model": "the/model",
    "vllm_version": "0.31.0+cpu",
    "dtype": "float32",
    "max_lora_rank": 32,
    "logprobs_mode": "processed_logprobs",
    "incarnation": incarnation,
    "stalled_seconds": 0.0,
}


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.path == "/health":
            return self.answer(200, b"")
        if self.headers["Authorization"] != f"Bearer {os.environ['VLLM_API_KEY']}":
            return self.answer(401, b"{}")
        status = {**STATUS, **json.loads(behaviour.get("status", "{}"))}
        if "stalls" in behaviour and incarnation == 0 and Path(behaviour["stalls"]).exists():
            status["stalled_seconds"] = 1000.0
        self.answer(200, json.dumps(status).encode())

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(200, encode(0, [1], [-0.5], STOP))

    def answer(self, code: int, body: bytes) -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if "dies" in behaviour or ("restart-dies" in behaviour and incarnation):
    sys.exit(behaviour.get("dies") or behaviour["restart-dies"])
if "port-taken" in behaviour and not Path(behaviour["port-taken"]).exists():
    Path(behaviour["port-taken"]).write_text(str(port))
    sys.exit("OSError: [Errno 98] Address already in use")
if "worker" in behaviour:
    worker = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    Path(behaviour["worker"]).write_text(str(worker.pid))
if "shared" in behaviour:
    segment = os.open(behaviour["shared"], os.O_CREAT | os.O_WRONLY)  # kept open, as a mapping would be
if "semaphore" in behaviour:
    semaphore = SemLock(0, 1, 1, behaviour["semaphore"], False)
Path(os.environ["TMPDIR"], "socket").write_text("mine")
Path(os.environ["GRPO_DIST_ADAPTERS"]).mkdir()
time.sleep(float(behaviour.get("late", 0)))
print("serving", flush=True)
ThreadingHTTPServer((host, port), Handler).serve_forever()
