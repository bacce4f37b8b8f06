"""relay alone, between a stand-in for qmgr and servers that follow a script.

    with Script(lambda c: c.mail_session()) as server, Relay() as relay:
        relay.deliver(server, ["r@dst.test"], body=b"x\\r\\n")
        result = relay.result()
"""
import itertools
import os
import socket
import tempfile
import threading

from ipc import FakeMaster

LOOPBACK = b"\x7f\0\0\1"
CONTENT = b"Subject: test\r\n\r\nbody\r\n"
SENT, DEFERRED, FAILED = range(3)
NONE, CONNECT, GREETING, EHLO, STARTTLS, AUTH, MAIL, RCPT, DATA, DOT = range(10)
RECIPIENT, MESSAGE, SITE = range(3)
SMTP, LMTP = range(2)
FLAG_8BIT, FLAG_UTF8 = 1, 2


class Hangup(Exception):
    """The other side closed."""


class Connection:
    """One accepted connection, with the steps that scripts are made of."""

    def __init__(self, sock):
        self.sock, self.pending, self.commands, self.content = sock, b"", [], b""
        self.sock.settimeout(20)

    def send(self, *lines):
        self.sock.sendall(b"".join(
            (l.encode() if isinstance(l, str) else l) + b"\r\n" for l in lines))

    def line(self):
        while b"\n" not in self.pending:
            try:
                got = self.sock.recv(65536)
            except ConnectionError as e:
                raise Hangup() from e
            if not got:
                raise Hangup()
            self.pending += got
        line, self.pending = self.pending.split(b"\n", 1)
        return line.rstrip(b"\r").decode("utf-8", "surrogateescape")

    def exactly(self, count):
        while len(self.pending) < count:
            got = self.sock.recv(min(1 << 20, count - len(self.pending)))
            if not got:
                raise Hangup()
            self.pending += got
        data, self.pending = self.pending[:count], self.pending[count:]
        return data

    def expect(self, verb):
        line = self.line()
        assert line.upper().startswith(verb.upper()), f"{line!r} instead of {verb}"
        self.commands.append(line)
        return line

    def until_dot(self):
        """Content with its dots taken off."""
        lines = []
        while True:
            line = self.line().encode("utf-8", "surrogateescape")
            if line == b".":
                return b"".join(l + b"\r\n" for l in lines)
            lines.append(line[1:] if line.startswith(b".") else line)

    def hello(self, *keywords, verb="EHLO"):
        self.send("220 peer ready")
        self.expect(verb)
        words = ["peer.test", *keywords]
        self.send(*[f"250{'-' if i < len(words) - 1 else ' '}{w}" for i, w in enumerate(words)])

    def reset(self):
        """Closes with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.sock.close()

    def mail_session(self, *keywords, replies=None, dot="250 2.0.0 Ok: queued", verb="EHLO",
                     mail="250 2.1.0 Ok"):
        """A whole session; replies maps recipients to replies. Returns after QUIT
        or when the client leaves."""
        self.hello(*keywords, verb=verb)
        try:
            while True:
                self._command(replies or {}, dot, mail)
        except Hangup:
            pass

    def _command(self, replies, dot, mail):
        line = self.line()
        self.commands.append(line)
        verb = line.upper().split(" ")[0]
        if verb == "MAIL":
            self.send(mail)
        elif verb == "RCPT":
            address = line[line.index("<") + 1:line.index(">")]
            self.send(replies.get(address, "250 2.1.5 Ok"))
        elif verb == "DATA":
            self.send("354 go ahead")
            self.content = self.until_dot()
            self.send(*([dot] if isinstance(dot, str) else dot))
        elif verb == "BDAT":
            self.content = self.exactly(int(line.split()[1]))
            self.send(*([dot] if isinstance(dot, str) else dot))
        elif verb == "RSET":
            self.send("250 Ok")
        elif verb == "QUIT":
            self.send("221 bye")
            raise Hangup()
        else:
            raise AssertionError(f"unexpected command {line!r}")


class Script:
    """A listening server; the n-th connection is handled by the n-th handler
    (the last one handles all that follow) on a thread of its own. The kernel takes
    `receive_buffer` bytes ahead of the handler, not as many as it has room for."""

    def __init__(self, *handlers, host="127.0.0.1", path=None, receive_buffer=None):
        self.handlers, self.connections, self.errors = handlers, [], []
        if path:
            self.sock, self.port = socket.socket(socket.AF_UNIX), 0
            self.sock.bind(path)
            self.sock.listen()
            os.chmod(path, 0o777)
        else:
            self.sock = socket.create_server((host, 0))
            self.port = self.sock.getsockname()[1]
        if receive_buffer:  # inherited by connections; ends the kernel's own sizing
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.threads = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        for n in itertools.count():
            try:
                sock, self.peer = self.sock.accept()
            except OSError:
                return
            c = Connection(sock)
            self.connections.append(c)
            handler = self.handlers[min(n, len(self.handlers) - 1)]
            t = threading.Thread(target=self._run, args=(handler, c), daemon=True)
            self.threads.append(t)
            t.start()

    def _run(self, handler, c):
        try:
            handler(c)
        except Hangup:
            pass
        except Exception as e:  # shown by the test that owns this server
            self.errors.append(e)
        finally:
            c.sock.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()
        if kind is None:
            for t in self.threads:
                t.join(20)
            assert not self.errors, self.errors


class Relay:
    """The service with a channel to a stand-in for qmgr."""

    def __init__(self, wrapper=(), **config):
        config.setdefault("smtp_connection_cache_time_limit", "0s")
        self.place = tempfile.TemporaryDirectory(prefix="postern-", ignore_cleanup_errors=True)
        self.master = FakeMaster("relay", config, directory=self.place.name, wrapper=wrapper)
        self.jobs = itertools.count(1)
        self.connect_qmgr()

    def connect_qmgr(self):
        self.qmgr = self.master.peer("qmgr")
        self.ready = self.qmgr.expect("ipc_relay_ready")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.master.stop(expect=0 if kind is None else None)
        self.place.cleanup()

    def deliver(self, targets, recipients, body=CONTENT, prefix=b"", fd=-1, body_at=0,
                body_len=None, **fields):
        """Hands a job out; targets is a server, or a list of servers or ports."""
        if not isinstance(targets, list):
            targets = [targets]
        ports = [t if isinstance(t, (int, dict)) else t.port for t in targets]
        fields.setdefault("sender", "s@src.test")
        fields.setdefault("site", "dst.test")
        job = next(self.jobs)
        self.qmgr.send(
            "ipc_deliver", fd, job=job, id="0000000000zABCD", helo="relay.test",
            targets=[t if isinstance(t, dict) else
                     dict(host=f"mx{i}.test", address=LOOPBACK, port=t, preference=10)
                     for i, t in enumerate(ports)],
            recipients=[r if isinstance(r, dict) else dict(index=i, address=r)
                        for i, r in enumerate(recipients)],
            prefix=prefix, body=b"" if fd >= 0 else body, body_at=body_at,
            body_len=len(body) if body_len is None else body_len, **fields)
        return job

    def result(self, timeout=20):
        return self.qmgr.expect("ipc_result", timeout, skip=("ipc_dot", "ipc_connection"))


def statuses(result):
    return [o.status for o in sorted(result.outcomes, key=lambda o: o.index)]


def content_file(content, before=b""):
    """A read-only descriptor with `before` in front of the content."""
    fd = os.memfd_create("message")
    os.write(fd, before)
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view):]
    reader = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    os.close(fd)
    return reader


def plain(*keywords, **options):
    """A server that takes everything."""
    return lambda c: c.mail_session(*keywords, **options)


def only(result):
    assert len(result.outcomes) == 1
    return result.outcomes[0]
