"""Content through the whole relay, byte for byte: nasty bodies, by DATA and by
BDAT in pieces of any size, with and without pipelining, to servers of three
kinds. B04, B08, B22 seen from outside."""
import asyncio
import glob
import os
import random
import re
import socket
import subprocess
import threading

import pytest

from postern import Postern, free_port, wait_until
from sink import Sink

HEADER = b"Subject: body\r\nMessage-ID: <body@src.test>\r\n\r\n"


def filled(length, end=b""):
    """Lines of 78 bytes, `length` bytes in all, with `end` as the last ones."""
    line = b"0123456789" * 7 + b"abcdef\r\n"
    data = (line * (length // len(line) + 1))[:length - len(end)]
    while data[-1:] in (b"\r", b"\n") and end:
        data = data[:-1] + b"x"
    return data + end


def dots_at(boundary):
    """Lines that begin with a dot at each offset around a buffer's end."""
    return [HEADER + filled(boundary + offset - len(HEADER), b"\r\n") + b".\r\n..\r\n.a\r\n" +
            filled(300, b"\r\n") for offset in range(-4, 4)]


def bodies():
    rng = random.Random(20261122)
    found = {
        "empty": b"\r\n", "no separator": b"Subject: a header alone\r\n", "no header": b"\r\nx\r\n",
        "dots": HEADER + b".\r\n..\r\n...\r\n.\r\n\r\n.x\r\nx.\r\n.\r\n",
        "line of 998": HEADER + b"x" * 998 + b"\r\n", "line of 999": HEADER + b"y" * 999 + b"\r\n",
        "line of 64 KiB": HEADER + b"." + b"z" * 65535 + b"\r\n",
        "8-bit": HEADER + bytes(range(1, 256)).replace(b"\r", b"").replace(b"\n", b"") + b"\r\n",
        "blank lines": HEADER + b"\r\n" * 5000,
        "10 MB": HEADER + b"".join(
            b"." * rng.randrange(3) + rng.randbytes(rng.randrange(900)).translate(
                None, b"\r\n\0") + b"\r\n" for _ in range(23000)),
    }
    for boundary in (4095, 4096, 65535, 65536):
        for i, body in enumerate(dots_at(boundary)):
            found[f"dots at {boundary} {i}"] = body
    return found


BODIES = bodies()


def stuffed(content):
    return re.sub(rb"(?m)^\.", b"..", content) + b".\r\n"


class Raw:
    """A client that writes what it is told, and reads replies by the line."""

    def __init__(self, port):
        self.sock = socket.create_connection(("127.0.0.1", port), 30)
        self.file = self.sock.makefile("rb")
        self.reply(220)
        self.command(b"EHLO client.test", 250)

    def reply(self, code):
        while True:
            line = self.file.readline()
            assert line.startswith(str(code).encode()), (line, code)
            if line[3:4] != b"-":
                return line

    def command(self, line, code):
        self.sock.sendall(line + b"\r\n")
        return self.reply(code)

    def quit(self):
        self.command(b"QUIT", 221)
        self.file.close()
        self.sock.close()


def by_data(client, envelope, content, rng):
    del rng
    for line in envelope:
        client.command(line, 250)
    client.command(b"DATA", 354)
    client.sock.sendall(stuffed(content))
    client.reply(250)


def by_data_in_pieces(client, envelope, content, rng):
    client.sock.sendall(b"".join(l + b"\r\n" for l in (*envelope, b"DATA")))
    for code in (250, 250, 354):
        client.reply(code)
    wire, at = stuffed(content), 0
    while at < len(wire):
        step = rng.choice((1, 2, 3, 100, 4096, 65536))
        client.sock.sendall(wire[at:at + step])
        at += step
    client.reply(250)


def by_bdat(client, envelope, content, rng):
    """Everything in one go: envelope and chunks are pipelined."""
    wire, at, replies = b"".join(l + b"\r\n" for l in envelope), 0, 2
    while at < len(content):
        chunk = content[at:at + rng.choice((1, 2, 77, 1000, 4096, 65536, 300000))]
        at += len(chunk)
        wire += b"BDAT %d\r\n" % len(chunk) + chunk
        replies += 1
    # replies are read beside the writing: neither side may wait for the other
    reader = threading.Thread(target=lambda: [client.reply(250) for _ in range(replies)])
    reader.start()
    client.sock.sendall(wire)
    reader.join()
    client.command(b"BDAT 0 LAST", 250)


SUBMIT = {"DATA": by_data, "DATA in pieces": by_data_in_pieces, "BDAT": by_bdat}


class ChunkingServer:
    """An SMTP server that offers CHUNKING and keeps the bytes of each message."""

    def __init__(self, *keywords):
        self.keywords = keywords
        self.messages, self.verbs = {}, set()
        self.loop = asyncio.new_event_loop()
        self.server = self.loop.run_until_complete(
            asyncio.start_server(self._session, "127.0.0.1", 0, limit=1 << 20))
        self.port = self.server.sockets[0].getsockname()[1]
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()

    async def _session(self, reader, writer):
        try:
            await self._talk(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        writer.close()

    async def _talk(self, reader, writer):
        writer.write(b"220 chunks.test\r\n")
        recipient, content = None, b""
        while True:
            line = (await reader.readuntil(b"\r\n")).split()
            verb = line[0].upper()
            self.verbs.add(verb)
            reply = b"250 2.0.0 Ok\r\n"
            if verb == b"EHLO":
                reply = b"250-chunks.test\r\n" + b"".join(
                    b"250-%s\r\n" % k for k in self.keywords) + b"250 PIPELINING\r\n"
            elif verb == b"RCPT":
                recipient = line[1].split(b"<")[1].split(b">")[0].decode()
            elif verb == b"BDAT":
                content += await reader.readexactly(int(line[1]))
                if len(line) > 2:
                    self.messages[recipient], content = content, b""
            elif verb == b"QUIT":
                writer.write(b"221 2.0.0 Bye\r\n")
                return
            writer.write(reply)


def after_received(content):
    """Content without the Received header that Postern put before it."""
    m = re.match(rb"Received: .*\r\n(?:[ \t].*\r\n)*", content)
    assert m, content[:200]
    return content[m.end():]


def submit_all(p):
    """Sends every body in every way; what must arrive, by recipient."""
    sent, rng = {}, random.Random(7)
    for way, submit in SUBMIT.items():
        client = Raw(p.port)
        for name, body in BODIES.items():
            recipient = f"{name}.{way}".replace(" ", "-") + "@dst.test"
            submit(client, (b"MAIL FROM:<a@src.test> BODY=8BITMIME",
                            b"RCPT TO:<%s>" % recipient.encode()), body, rng)
            sent[recipient] = body
        client.quit()
    return sent


def check(sent, got):
    different = [r for r in sent if got.get(r) != sent[r]]
    for r in different[:3]:
        have = got.get(r, b"")
        at = next((i for i, (a, b) in enumerate(zip(have, sent[r])) if a != b),
                  min(len(have), len(sent[r])))
        print(r, len(sent[r]), len(have), "first difference at", at, have[at - 40:at + 40],
              sent[r][at - 40:at + 40])
    assert not different, f"{len(different)} of {len(sent)} differ: {different[:10]}"


@pytest.mark.parametrize("keywords", [(b"CHUNKING", b"8BITMIME"), (b"CHUNKING", b"8BITMIME", b"SIZE")])
def test_B04_B08_B22_bodies_reach_a_server_with_chunking(place, keywords):
    with ChunkingServer(*keywords) as server, \
            Postern(place, relayhost=f"[127.0.0.1]:{server.port}") as p:
        sent = submit_all(p)
        wait_until(lambda: len(server.messages) >= len(sent), 120, "all messages")
        check(sent, {r: after_received(c) for r, c in server.messages.items()})
        assert b"BDAT" in server.verbs and b"DATA" not in server.verbs


def test_B04_B08_B22_bodies_reach_aiosmtpd(place):
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}") as p:
        sent = submit_all(p)
        got = sink.wait(len(sent), 120)
        check(sent, {m.recipients[0]: after_received(m.content) for m in got})


def read_dumps(folder):
    """smtp-sink -d writes a file a message: its own header lines, then the content
    with LF as line end, then an empty line."""
    got = {}
    for path in glob.glob(os.path.join(folder, "*")):
        with open(path, "rb") as f:
            text = f.read()
        head = re.match(rb"(?:X-[^\n]*\n|\t[^\n]*\n)*", text)
        recipient = re.search(rb"X-Rcpt-Args: <([^>]*)>", head[0])
        m = re.match(rb"(?:Received: .*\n(?:[ \t].*\n)*)+", text[head.end():])
        if recipient and m:
            got[recipient[1].decode()] = text[head.end() + m.end():].removesuffix(b"\n")
    return got


def test_B04_B08_B22_bodies_reach_smtp_sink(place):
    dumps, port = os.path.join(place, "dumps"), free_port()
    os.mkdir(dumps)
    os.chmod(dumps, 0o777)
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    sink = subprocess.Popen(["smtp-sink", *user, "-d", f"{dumps}/%M.", f"127.0.0.1:{port}", "100"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with Postern(place, relayhost=f"[127.0.0.1]:{port}", minimal_backoff_time="1s",
                     destination_suspend_time="1s") as p:
            sent = submit_all(p)
            wait_until(lambda: p.log().count("status=sent") >= len(sent), 120, "all deliveries")
            check({r: c.replace(b"\r\n", b"\n") for r, c in sent.items()}, read_dumps(dumps))
    finally:
        sink.terminate()
        sink.wait()
