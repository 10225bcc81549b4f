"""What answers at a pod's /status is not trusted."""

from __future__ import annotations

from cluster_runs import TinyRuns, told

SERVER = """\
#!/usr/bin/env python3
import http.server

class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
{body}

http.server.ThreadingHTTPServer(("", 9100), Answer).serve_forever()
"""
FINISHED = '{"run": "run", "phase": "finished", "step": 9, "totalSteps": 9}'
ANSWERS = {
    "redirects": (
        f"""
        moved = self.path == "/status"
        self.send_response(302 if moved else 200)
        self.send_header("Location", "/elsewhere")
        self.end_headers()
        self.wfile.write(b"" if moved else b'{FINISHED}')""",
        "it answers 302",
    ),
    "never-ends": (
        """
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b" " * 1000)""",
        "it sends more than 65,536 bytes",
    ),
    "nonsense": (
        """
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")""",
        "it sends no status",
    ),
}


def test_a_status_that_redirects_never_ends_or_is_none_is_told_and_not_believed(
    runs: TinyRuns,
) -> None:
    for name, (body, _) in ANSWERS.items():
        runs.start_program(name, SERVER.format(body=body))
    for name, (_, words) in ANSWERS.items():
        status = runs.wait(name, told(words), 90)
        assert status["phase"] == "Starting"
        assert status["restarts"]["total"] == 0
