"""A web server for MTA-STS policies on loopback.

    with PolicyHost(certificate) as host:
        host.policy("a.test", "version: STSv1...")
        host.answer("b.test", status=301, headers={"Location": "..."}, body=b"")
        ... smtp_tls_mta_sts_port=host.port ...
        host.asked          # the domains, in order
"""
import http.server
import threading


class PolicyHost:
    def __init__(self, certificate):
        self.answers, self.asked = {}, []
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                domain = self.headers["Host"].split(":")[0].removeprefix("mta-sts.")
                owner.asked.append(domain)
                status, headers, body = owner.answers.get(
                    domain if self.path == "/.well-known/mta-sts.txt" else None,
                    (404, {"Content-Type": "text/plain"}, b"no"))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                try:
                    self.wfile.write(body)
                except OSError:
                    pass  # it has heard enough

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # clients that do not like the certificate
        self.server.socket = certificate.context().wrap_socket(
            self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, domain, status=200, headers=None, body=b""):
        self.answers[domain] = (status, headers or {"Content-Type": "text/plain"}, body)

    def policy(self, domain, mode="enforce", mx=("mx1.test",), max_age=86400):
        lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {m}" for m in mx),
                 f"max_age: {max_age}"]
        self.answer(domain, body="\r\n".join(lines).encode() + b"\r\n")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
