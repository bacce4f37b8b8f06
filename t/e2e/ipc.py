"""Postern's process messages in Python, read from lib/ipc/messages.def, and a
stand-in for master that runs one service alone.

    m = FakeMaster("smtpd", {"mynetworks": "127.0.0.0/8"}, listen=["127.0.0.1:0"])
    qmgr = m.peer("qmgr")                   # our end of a channel to the service
    qmgr.send("ipc_spool_state", state=0, commit_credit=100, byte_credit=1 << 20)
    commit = qmgr.expect("ipc_commit")      # commit.sender, commit.body, ...
    qmgr.send("ipc_committed", tag=commit.tag)
    m.stop()

A `list` field is a list of dicts in send() and of Message in what is received.
Which record a list holds follows from LISTS.
"""
import array
import fcntl
import os
import re
import select
import signal
import socket
import struct
import subprocess
import tempfile
import threading
import time

import logs
from patience import stretched
from postern import in_namespace

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("POSTERN_BUILD", os.path.join(ROOT, "build"))
SIZES = {"u8": "B", "u16": "H", "u32": "I", "u64": "Q", "i64": "q"}
LISTS = {
    ("ipc_commit", "recipients"): "ipc_rcpt",
    ("ipc_commit_rcpts", "recipients"): "ipc_rcpt",
    ("ipc_deliver", "targets"): "ipc_target",
    ("ipc_deliver", "recipients"): "ipc_job_rcpt",
    ("ipc_result", "outcomes"): "ipc_outcome",
    ("ipc_resolve_reply", "targets"): "ipc_target",
    ("ipc_deliver", "tls"): "ipc_tls_rule",
    ("ipc_resolve_reply", "tls"): "ipc_tls_rule",
    ("ipc_tls_rule", "tlsa"): "ipc_tlsa",
    ("ipc_notice_request", "recipients"): "ipc_notice_rcpt",
    ("ipc_reserve", "authors"): "ipc_author",
    ("ipc_charges", "charges"): "ipc_charge",
    ("ipc_charges", "settlements"): "ipc_settlement",
    ("ipc_charges_query", "ids"): "ipc_charge_id",
    ("ipc_charges_gone", "ids"): "ipc_charge_id",
}


def _read_table():
    with open(os.path.join(ROOT, "lib/ipc/messages.def"), encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    records, messages = {}, {}
    for part in re.split(r"(?=\bIPC_(?:RECORD|MESSAGE)\()", text):
        head = re.match(r"IPC_(RECORD|MESSAGE)\((\w+),\s*(?:(\d+),\s*(\w+),)?", part)
        if not head:
            continue
        fields = re.findall(r"FIELD\((\w+),\s*(\w+)\)", part)
        if head[1] == "RECORD":
            records[head[2]] = fields
        else:
            messages[head[2]] = (int(head[3]), fields)
    return records, messages


RECORDS, MESSAGES = _read_table()
NUMBERS = {number: name for name, (number, _) in MESSAGES.items()}


def as_bytes(value):
    return value.encode() if isinstance(value, str) else bytes(value)


def _encode_fields(name, fields, values):
    out = b""
    for kind, field in fields:
        value = values.pop(field, None)
        if kind in SIZES:
            out += struct.pack("<" + SIZES[kind], value or 0)
        elif kind == "list":
            record = RECORDS[LISTS[name, field]]
            body = value if isinstance(value, bytes) else b"".join(
                _encode_fields(LISTS[name, field], record, dict(v)) for v in value or [])
            out += struct.pack("<I", len(body)) + body
        else:
            raw = as_bytes(value or b"")
            out += struct.pack("<I", len(raw)) + raw
    if values:
        raise TypeError(f"{name} has no {', '.join(values)}")
    return out


def encode(name, **values):
    """A whole frame."""
    number, fields = MESSAGES[name]
    body = _encode_fields(name, fields, values)
    return struct.pack("<IHH", len(body), number, 0) + body


class Message:
    """A received message; its fields are attributes, `fd` the descriptor or -1."""

    def __init__(self, name, values, fd=-1):
        self.name, self.fd = name, fd
        self.__dict__.update(values)

    def __repr__(self):
        return f"{self.name} {({k: v for k, v in self.__dict__.items() if k != 'name'})!r}"


def _decode_fields(name, fields, data, at):
    values = {}
    for kind, field in fields:
        if kind in SIZES:
            (values[field],) = struct.unpack_from("<" + SIZES[kind], data, at)
            at += struct.calcsize(SIZES[kind])
            continue
        (length,) = struct.unpack_from("<I", data, at)
        raw = data[at + 4:at + 4 + length]
        at += 4 + length
        if kind == "list":
            record, items, inner = LISTS[name, field], [], 0
            while inner < len(raw):
                item, inner = _decode_fields(record, RECORDS[record], raw, inner)
                items.append(Message(record, item))
            raw = items
        values[field] = raw
    return values, at


def decode_packet(packet, fd=-1):
    """All frames of a packet."""
    out, at = [], 0
    while at < len(packet):
        length, number, flags = struct.unpack_from("<IHH", packet, at)
        name = NUMBERS[number]
        values, end = _decode_fields(name, MESSAGES[name][1], packet[at + 8:at + 8 + length], 0)
        assert end == length, f"{name}: {length - end} bytes left over"
        out.append(Message(name, values, fd if flags & 1 else -1))
        at += 8 + length
    return out


class Closed(ConnectionError):
    """The service closed the channel."""


class Channel:
    """Our end of a channel to a service."""

    def __init__(self, sock):
        self.sock, self.queue = sock, []

    def send(self, name, fd=-1, **values):
        self.send_raw(encode(name, **values), fd)

    def send_raw(self, frame, fd=-1):
        rights = []
        if fd >= 0:
            frame = bytearray(frame)
            frame[6] |= 1
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))]
        try:
            self.sock.sendmsg([frame], rights)
        except ConnectionError as e:
            raise Closed() from e

    def receive(self, timeout=10.0):
        """The next message; None after the timeout; raises Closed at the end."""
        if self.queue:
            return self.queue.pop(0)
        if not select.select([self.sock], [], [], timeout)[0]:
            return None
        try:
            packet, ancillary, _, _ = self.sock.recvmsg(1 << 18, socket.CMSG_SPACE(4))
        except ConnectionError as e:
            raise Closed() from e
        if not packet:
            raise Closed()
        fd = -1
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fd = struct.unpack("i", data[:4])[0]
        self.queue += decode_packet(packet, fd)
        return self.queue.pop(0)

    def expect(self, name, timeout=10.0, skip=("ipc_heartbeat", "ipc_mail_forget", "ipc_connection")):
        """The next message of this name; others than `skip` are an error."""
        began = time.monotonic()
        while True:
            m = self.receive(max(0.0, began + timeout - time.monotonic()))
            if m is None and time.monotonic() - began < stretched(timeout):
                m = self.receive(0.2)
                if m is None:
                    continue
            if m is None:
                raise AssertionError(f"no {name} within {timeout} s")
            if m.name == name:
                return m
            if m.name not in skip:
                raise AssertionError(f"{m!r} instead of {name}")

    def close(self):
        self.sock.close()


def pair():
    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for s in (a, b):
        s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    return a, b


def parameters():
    """Names and defaults of params.def."""
    with open(os.path.join(ROOT, "lib/conf/params.def"), encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    return dict(re.findall(r'PARAM_\w+\((\w+),\s*"([^"]*)"', text))


def expand(values):
    def value(name, depth=0):
        return re.sub(r"\$\{?(\w+)\}?", lambda m: value(m[1], depth + 1) if depth < 10 else "",
                      values.get(name, ""))
    return {name: value(name) for name in values}


class FakeMaster:
    """Starts PROGRAM as master would, unprivileged or as root, and talks to it."""

    def __init__(self, program, config=None, listen=(), directory=None, wrapper=(),
                 programs=os.path.join(BUILD, "bin"), environment=None):
        self.directory = directory or tempfile.mkdtemp(prefix="postern-")
        os.chmod(self.directory, 0o755)
        self.log_path = os.path.join(self.directory, f"{program}.log")
        self.events_path = os.path.join(self.directory, "events.json")
        for d in ("spool", "data", "empty"):
            os.makedirs(os.path.join(self.directory, d), exist_ok=True)
        values = parameters()
        values.update(myhostname="relay.test", mydomain="test", maillog_file=self.log_path,
                      queue_directory=os.path.join(self.directory, "spool"),
                      data_directory=os.path.join(self.directory, "data"),
                      empty_directory=os.path.join(self.directory, "empty"))
        values.update(config or {})
        self.values, self.generation = values, 1
        conf = self._config()
        ours, theirs = pair()
        self.master = Channel(ours)
        self.log_fd = os.open(self.log_path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        logs.remember(self.log_path)
        self.event_fd = os.open(self.events_path, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o600)
        self.listeners = [self._listen(where) for where in listen]
        self.ports = [s.getsockname()[1] for s in self.listeners if s.family != socket.AF_UNIX]
        sources = [theirs.fileno(), conf, self.log_fd, self.event_fd,
                   *(s.fileno() for s in self.listeners)]

        def descriptors():
            high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 200) for fd in sources]
            for i, fd in enumerate(high):
                os.dup2(fd, 3 + i)
            os.closerange(3 + len(high), 4096)

        argv = [*wrapper, os.path.join(programs, program), "-n", program, "-s", "0",
                "-l", str(len(self.listeners))]
        if os.getuid() == 0 and not wrapper:
            argv = in_namespace(self.directory, argv)
        env = {k: v for k, v in os.environ.items() if k.endswith("SAN_OPTIONS") or k == "PATH"}
        env.update(environment or {})
        self.process = subprocess.Popen(argv, env=env, close_fds=False, preexec_fn=descriptors,
                                        stdin=subprocess.DEVNULL)
        theirs.close()
        os.close(conf)
        self.master.expect("ipc_ready", 20)

    def _config(self):
        conf = os.memfd_create("config")
        os.write(conf, "".join(f"{k} = {v}\n" for k, v in expand(self.values).items()).encode())
        os.lseek(conf, 0, os.SEEK_SET)
        return conf

    def configure(self, **values):
        """As after a reload of main.cf with these changes."""
        self.values.update(values)
        self.generation += 1
        conf = self._config()
        self.master.send("ipc_config", conf, generation=self.generation)
        os.close(conf)

    @staticmethod
    def _listen(where):
        if where.startswith("/"):
            s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            s.bind(where)
        else:
            host, port = where.rsplit(":", 1)
            s = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((host.strip("[]"), int(port)))
        s.listen(1024)
        s.setblocking(False)
        return s

    def peer(self, name, slot=0, pid=None):
        """A channel to the service in the role of `name`."""
        ours, theirs = pair()
        self.master.send("ipc_peer", theirs.fileno(), service=name, slot=slot,
                         pid=pid or os.getpid())
        theirs.close()
        return Channel(ours)

    def table(self, parameter, position, spec, content):
        """Hands over the content of a lookup table."""
        fd = os.memfd_create("table")
        os.write(fd, as_bytes(content))
        os.lseek(fd, 0, os.SEEK_SET)
        self.master.send("ipc_table", fd, parameter=parameter, position=position, spec=spec)
        os.close(fd)

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as f:
            return f.read()

    def wait_log(self, pattern, timeout=10.0):
        """The match of a regular expression in the log, awaited."""
        began = time.monotonic()
        while True:
            found = re.search(pattern, self.log(), re.M)
            if found:
                return found
            if time.monotonic() - began > stretched(timeout):
                raise AssertionError(f"no {pattern!r} in {self.log_path} within {timeout} s")
            self.process.poll()
            select.select([], [], [], 0.01)

    def stop(self, expect=0):
        """Ends the service as master's end would, and checks its exit status."""
        self.master.close()
        try:
            status = self.process.wait(stretched(20))
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            raise AssertionError("the service did not stop") from None
        finally:
            for s in self.listeners:
                s.close()
            os.close(self.log_fd)
            os.close(self.event_fd)
        if expect is not None:
            assert status == expect, f"exit status {status}\n{self.log()}"


class Broker:
    """Connects the service of a FakeMaster as master does: `permitted` maps
    endpoints to addresses; others are refused. With silent=True nothing is said."""

    def __init__(self, master, permitted, silent=False):
        self.channel, self.permitted, self.silent = master.master, permitted, silent
        self.asked = []
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        try:
            while True:
                m = self.channel.receive(1)
                if m is not None and m.name == "ipc_connect_request":
                    self.asked.append(m)
                    if not self.silent:
                        self.answer(m)
        except (Closed, OSError, ValueError):
            pass

    def answer(self, request):
        address = self.permitted.get(request.endpoint.decode())
        if address is None:
            self.channel.send("ipc_connect_failed", tag=request.tag, text="not permitted")
            return
        with socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET) as s:
            try:
                s.connect(address)
                s.setblocking(False)
                self.channel.send("ipc_connecting", s.fileno(), tag=request.tag)
            except OSError as e:
                self.channel.send("ipc_connect_failed", tag=request.tag, text=e.strerror)
