"""smtpd alone, between a stand-in for qmgr and clients that send what they like.

    with Smtpd() as smtpd, smtpd.client() as c:
        c.transaction("a@src.test", ["b@dst.test"], b"Subject: x\\r\\n\\r\\nbody\\r\\n")
        commit = smtpd.commit()
        smtpd.qmgr.send("ipc_committed", tag=commit.tag)
        assert c.reply()[0] == 250
"""
import os
import socket

from ipc import FakeMaster

OK, FULL, BAD, BUSY = range(4)
MESSAGE = b"Subject: test\r\nMessage-ID: <1@src.test>\r\n\r\nbody\r\n"


class Client:
    """A client's connection."""

    def __init__(self, port, greet=True, source=None):
        self.sock = socket.create_connection(
            ("127.0.0.1", port), 10, (source, 0) if source else None)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pending = b""
        if greet:
            assert self.reply()[0] == 220

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def line(self):
        """One line of the server without its end; None when it has closed."""
        while b"\n" not in self.pending:
            try:
                got = self.sock.recv(65536)
            except ConnectionError:
                return None
            if not got:
                return None
            self.pending += got
        line, self.pending = self.pending.split(b"\n", 1)
        assert line.endswith(b"\r"), line
        return line[:-1].decode()

    def reply(self):
        """(code, text of all lines); None at the end of the connection."""
        lines = []
        while True:
            line = self.line()
            if line is None:
                return None
            lines.append(line[4:])
            if line[3:4] != "-":
                return int(line[:3]), "\n".join(lines)

    def command(self, line):
        self.send((line if isinstance(line, bytes) else line.encode()) + b"\r\n")
        return self.reply()

    def expect(self, line, start):
        """Sends a command and checks how the reply begins."""
        code, text = self.command(line)
        assert f"{code} {text}".startswith(start), f"{line!r} got {code} {text}"
        return text

    def closed(self):
        """Whether the server ends the connection without a further reply."""
        return self.reply() is None

    def envelope(self, sender="a@src.test", recipients=("b@dst.test",), parameters=""):
        self.expect("EHLO client.test", "250")
        self.expect(f"MAIL FROM:<{sender}>{parameters}", "250 2.1.0")
        for r in recipients:
            self.expect(f"RCPT TO:<{r}>", "250 2.1.5")

    def data(self, content):
        """DATA and content as it goes over the wire, dots and the end included."""
        self.expect("DATA", "354")
        self.send(content)

    def transaction(self, content=MESSAGE, **envelope):
        self.envelope(**envelope)
        self.data(content + b".\r\n")


class Smtpd:
    def __init__(self, state=OK, commits=1000, size=1 << 24, connect=True, wrapper=(),
                 **config):
        if os.geteuid() == 0:
            wrapper = (*wrapper, "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        config.setdefault("mynetworks", "127.0.0.1/32")
        self.master = FakeMaster("smtpd", config, ["127.0.0.1:0"], wrapper=wrapper)
        self.port = self.master.ports[0]
        self.qmgr = None
        if connect:
            self.connect(state, commits, size)

    def connect(self, state=OK, commits=1000, size=1 << 24):
        """A new channel to qmgr, and proof that smtpd has heard of its state."""
        self.qmgr = self.master.peer("qmgr")
        self.qmgr.send("ipc_spool_state", state=state, commit_credit=commits, byte_credit=size)
        if state == OK:
            self.await_mail(250)

    def await_mail(self, code):
        """Waits until MAIL is answered with this code."""
        for _ in range(1000):
            with Client(self.port) as c:
                c.command("EHLO probe.test")
                if c.command("MAIL FROM:<>")[0] == code:
                    c.command("QUIT")
                    return
        raise AssertionError(f"MAIL is not answered with {code}")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if self.qmgr:
            self.qmgr.close()  # sessions that wait for it end
        self.master.stop(None if kind else 0)

    def client(self, **options):
        return Client(self.port, **options)

    def commit(self):
        return self.qmgr.expect("ipc_commit", skip=("ipc_abort",))

    def accept(self, client):
        """Answers the next COMMIT and checks that the client hears of it."""
        commit = self.commit()
        self.qmgr.send("ipc_committed", tag=commit.tag)
        code, text = client.reply()
        assert (code, text) == (250, f"2.0.0 Ok: queued as {commit.id.decode()}")
        return commit

    def log(self):
        return self.master.log()

    def wait_log(self, pattern):
        return self.master.wait_log(pattern)
