"""The soak's clients: they submit numbered messages and remember, for each
number, what they know of it.

    open     nothing owed: the end of data was not sent (P2)
    refused  nothing owed: refused with a reply that says so
    maybe    the end of data was sent and no 250 came: it may be Postern's
    acked    250: it is Postern's (P1)
"""
import dataclasses
import hashlib
import random
import socket
import threading
import time

OPEN, REFUSED, MAYBE, ACKED = "open", "refused", "maybe", "acked"
# said when the queue manager was lost in the middle: nobody knows (P4)
UNKNOWN = b"451 4.3.0"
TIMEOUT = 60


@dataclasses.dataclass
class Message:
    number: int
    recipients: list
    size: int
    state: str = OPEN
    id: str = ""
    time: float = 0.0
    answered: float = 0.0
    reply: str = ""
    sum: str = ""      # of the content, for those who keep it

    @property
    def sender(self):
        return f"s{self.number}@src.test"


class Text:
    """Bodies are pieces of one text of lines, some of which begin with a dot."""

    def __init__(self, size=2_500_000):
        rng = random.Random(1)
        lines, have = [], 0
        while have < size:
            line = (b"." * rng.choice((0, 0, 0, 0, 0, 1, 2))
                    + rng.randbytes(rng.randrange(36)).hex().encode() + b"\r\n")
            lines.append(line)
            have += len(line)
        self.lines = b"".join(lines)

    def piece(self, rng, size):
        start = rng.randrange(len(self.lines) - size - 200)
        start = self.lines.index(b"\n", start) + 1
        return self.lines[start:self.lines.index(b"\n", start + size) + 1]


def recipients_for(rng, number):
    """One or many, of all kinds; now and then at the site that comes and goes."""
    if rng.random() < 0.02:
        return [f"n{number}.k0.nodata@dst.test"]
    count = 1 if rng.random() < 0.75 else rng.choice((2, 3, 5, 20, 120))
    out = []
    for k in range(count):
        dice = rng.random()
        kind = "ok"
        if dice < 0.08:
            kind = "no"
        elif dice < 0.14:
            kind = f"late{rng.randrange(1, 3)}"
        domain = "down.test" if rng.random() < 0.12 else "dst.test"
        out.append(f"n{number}.k{k}.{kind}@{domain}")
    return out


def size_for(rng):
    dice = rng.random()
    if dice < 0.01:
        return rng.randrange(500_000, 2_000_000)
    if dice < 0.04:
        return rng.randrange(60_000, 300_000)
    return rng.choice((10, 500, 4000, 4000, 20_000))


class Numbers:
    """All messages of a run; clients take the next number here."""

    def __init__(self):
        self.lock = threading.Lock()
        self.messages = {}

    def next(self, rng):
        with self.lock:
            number = len(self.messages) + 1
            m = Message(number, recipients_for(rng, number), size_for(rng))
            self.messages[number] = m
            return m

    def count(self, state=None):
        with self.lock:
            return sum(state in (None, m.state) for m in self.messages.values())


class Gone(Exception):
    """The connection is over."""


class Client(threading.Thread):
    """One after the other, at most `rate` a second and while `room` is set, until `stop`
    is set."""

    def __init__(self, numbers, text, port, seed, rate, stop, room=None):
        super().__init__(daemon=True)
        self.numbers, self.text, self.port, self.rate, self.stop = numbers, text, port, rate, stop
        self.room = room
        self.random = random.Random(seed)
        self.socket = self.input = None
        self.chunking = False

    def run(self):
        while not self.stop.is_set():
            try:
                self.session(self.random.choice((1, 5, 50)))
            except (OSError, Gone):
                pass
            for f in (self.input, self.socket):  # what reads keeps the connection, too
                if f:
                    f.close()
            self.input = self.socket = None
            self.stop.wait(0.02)

    # ---- the dialogue

    def reply(self):
        while True:
            line = self.input.readline()
            if not line.endswith(b"\n"):
                raise Gone
            if line[3:4] != b"-":
                return line.rstrip(b"\r\n")

    def command(self, line):
        self.socket.sendall(line + b"\r\n")
        return self.reply()

    def expect(self, line, code):
        if not self.command(line).startswith(code):
            raise Gone

    def greet(self):
        """What comes before the first message."""
        self.expect(b"EHLO client.test", b"250")

    def session(self, count):
        self.socket = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        self.input = self.socket.makefile("rb")
        if not self.reply().startswith(b"220"):
            raise Gone
        self.greet()
        for _ in range(count):
            if self.room:
                self.room.wait()
            if self.stop.is_set():
                break
            begun = time.monotonic()
            self.submit(self.numbers.next(self.random))
            self.stop.wait(max(0, 1 / self.rate - (time.monotonic() - begun)))
        self.command(b"QUIT")

    def submit(self, m):
        m.time = time.time()
        if not self.command(b"MAIL FROM:<%s>" % m.sender.encode()).startswith(b"250"):
            raise Gone
        # all recipients at once, and as many replies
        self.socket.sendall(b"".join(b"RCPT TO:<%s>\r\n" % r.encode() for r in m.recipients))
        if not all([self.reply().startswith(b"250") for _ in m.recipients]):
            raise Gone
        self.content(m, self.compose(m))

    def compose(self, m):
        body = self.text.piece(self.random, m.size)
        head = (f"From: <{m.sender}>\r\nSubject: soak {m.number}\r\nX-Number: {m.number}\r\n"
                f"X-Sum: {hashlib.sha1(body).hexdigest()}\r\n\r\n").encode()
        return head, body

    def content(self, m, parts):
        head, body = parts
        give_up = self.random.random() < 0.01
        if self.random.random() < 0.1:
            last = b"BDAT %d LAST\r\n" % len(body)
            self.socket.sendall(b"BDAT %d\r\n%s" % (len(head), head))
            if not self.reply().startswith(b"250"):
                raise Gone
            all_but_end, end = last + body[:-1], body[-1:]
        else:
            if not self.command(b"DATA").startswith(b"354"):
                raise Gone
            stuffed = body.replace(b"\r\n.", b"\r\n..")
            if stuffed.startswith(b"."):
                stuffed = b"." + stuffed
            all_but_end, end = head + stuffed, b".\r\n"
        if give_up and self.random.random() < 0.5:
            self.socket.sendall(all_but_end)
            raise Gone
        if len(all_but_end) > 20_000:
            self.socket.sendall(all_but_end)
            all_but_end = b""
        m.state = MAYBE
        self.socket.sendall(all_but_end + end)
        if give_up:
            raise Gone
        self.judge(m, self.reply())

    def judge(self, m, reply):
        m.answered = time.time()
        m.reply = reply.decode(errors="replace")
        if reply.startswith(b"250"):
            m.id = m.reply.rsplit(" ", 1)[-1]
            m.state = ACKED
        elif not reply.startswith(UNKNOWN):
            m.state = REFUSED
