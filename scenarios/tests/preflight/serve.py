"""HTTPS with knobs, for one port: `serve.py PORT`.  Everything is read anew for each connection from PORT.json beside
this file: `cert` and `key` (PEM), `host` (the only Host header that is served; another one gets 421), and `routes`
(path to status, headers, body)."""

import http.server
import json
import os
import ssl
import sys
import tempfile

PORT = int(sys.argv[1])
HERE = os.path.dirname(os.path.abspath(__file__))


def knobs():
    with open(f"{HERE}/{PORT}.json") as file:
        return json.load(file)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self):
        said = knobs()
        # A file of its own for each connection: another one must not read it half written.
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(said["cert"] + said["key"])
            file.flush()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(file.name)
        self.request = context.wrap_socket(self.request, server_side=True)
        super().setup()

    def do_GET(self):
        said = knobs()
        status, headers, body = said["routes"].get(self.path, [404, {}, "{}"])
        if said.get("host") and self.headers["Host"] != said["host"]:
            status, headers, body = 421, {}, "another host"
        body = body.encode()
        self.send_response_only(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            if value is not None:
                self.send_header(name, value)
        if "Date" not in headers:
            self.send_header("Date", self.date_time_string())
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


Server(("0.0.0.0", PORT), Handler).serve_forever()
