"""A small service that leaks: every request leaves a session behind. For the demo and the tests.

It serves on a local socket of its own choice, tells its port, and asks itself for pages when told so
on stdin: `hit N`."""
import http.server
import sys
import threading
import urllib.request


class Session:
    def __init__(self, number):
        self.user = "user-%d" % number
        self.basket = [number] * 20
        self.page = b"<html>" + b"x" * (900 + number % 50)


SESSIONS = []


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        for _ in range(100):
            SESSIONS.append(Session(len(SESSIONS)))
        body = b"%d sessions\n" % len(SESSIONS)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("READY", server.server_port, flush=True)
    for line in sys.stdin:
        for _ in range(int(line.split()[1])):
            urllib.request.urlopen("http://127.0.0.1:%d/" % server.server_port).read()
        print("DONE", len(SESSIONS), flush=True)


main()
