"""The soak's receiving server: fast, strict in its records, rude in its manners.

A process of its own. It takes what it is asked to take, writes down each
message that it took (and whether its 250 was handed to the kernel), and from
time to time hangs up before or after its 250 or answers late. What a recipient
gets is in its address: n12.k0.ok@dst.test.

    ok     taken
    late2  450 twice, then taken
    no     550 at RCPT
    nodata 554 at the end of data, if all recipients of the transaction are so

Commands on standard input: "down" and "up" close and open the second port,
"calm" ends the bad manners, "end" (or the end of the input) ends the process.

Records, one line each, fields separated by tabs:

    T mail taken answered fate id number recipients    a message
    N mail taken answered fate id sender recipients    a failure notice, and whom it reports
    L mail taken answered fate id subject              a letter to the owner of an account
    X number reason                                    a message that is not as it was sent

`mail` is when MAIL came, `taken` when the end of data came, `answered` when the
250 was due; `fate` what became of it: "out", "dropped" (the sink hung up
instead) or "gone" (the other end had hung up).
"""
import argparse
import asyncio
import gc
import hashlib
import random
import re
import sys
import time

LINE_MAX = 64 * 1024
READ_ON = "read on"
ADDRESS = re.compile(rb"<([^>]*)>")
RECEIVED_ID = re.compile(rb"\bid ([0-9A-Za-z]{15,17})\b")
LETTERS = "letters@"   # where owners of accounts get theirs
SUBJECT = re.compile(rb"^Subject: ([^\r\n]*)", re.M)
MESSAGE_ID = re.compile(rb"^Message-ID:\s*<([0-9A-Za-z]+)@", re.M | re.I)
FAILED = re.compile(rb"^Final-Recipient: *rfc822; *(\S+)\r\nAction: failed\r$", re.M)


class Manners:
    """How often what goes wrong, of a hundred transactions."""
    before_data, before_reply, after_taking, late = 0.3, 0.3, 0.3, 1.5
    delay = (0.1, 0.8)


class Books:
    """What all sessions share."""

    def __init__(self, path, seed):
        self.file = open(path, "a", buffering=1, encoding="ascii")
        self.random = random.Random(seed)
        self.calm = False
        self.tries = {}

    def happens(self, percent):
        return not self.calm and self.random.random() * 100 < percent

    def write(self, *fields):
        self.file.write("\t".join(str(f) for f in fields) + "\n")

    def reply_to(self, address):
        """None: taken."""
        kind = address.split("@")[0].rsplit(".", 1)[-1]
        if kind == "no":
            return b"550 5.1.1 no such user\r\n"
        if kind.startswith("late"):
            tries = self.tries.get(address, 0)
            if tries < int(kind[4:]):
                self.tries[address] = tries + 1
                return b"450 4.2.2 mailbox full, come again\r\n"  # about it alone
        return None


def is_refused_at_the_end(recipients):
    return recipients and all(r.split("@")[0].endswith(".nodata") for r in recipients)


class Session(asyncio.Protocol):
    def __init__(self, books):
        self.books = books
        self.input = bytearray()
        self.chunking = books.random.random() < 0.5
        self.transport = None
        self.waiting = self.cut = False
        self.reset()

    def reset(self):
        self.mail_at = 0
        self.sender = None
        self.recipients = []
        self.data = None    # the content so far, while a DATA or BDAT is under way
        self.chunk_left = 0
        self.searched = 0
        self.last = False

    # ---- the connection

    def connection_made(self, transport):
        self.transport = transport
        transport.write(b"220 sink.test ESMTP\r\n")

    def data_received(self, data):
        self.input += data
        self.work()

    def work(self):
        while not self.waiting and not self.transport.is_closing():
            if self.chunk_left:
                more = self.take_chunk()
            elif self.data is not None and not self.chunking_now:
                more = self.take_dots()
            else:
                more = self.take_line()
            if not more:
                return

    def hang_up(self):
        self.cut = True
        self.input.clear()
        if self.transport:
            self.transport.abort()

    # ---- content

    def take_chunk(self):
        part = self.input[:self.chunk_left]
        if not part:
            return False
        self.data += part
        del self.input[:len(part)]
        self.chunk_left -= len(part)
        if self.chunk_left == 0:
            self.chunk_over()
        return True

    def chunk_over(self):
        if self.last:
            self.end_of_data(bytes(self.data))
        else:
            self.transport.write(b"250 2.0.0 chunk\r\n")

    def take_dots(self):
        if self.input.startswith(b".\r\n"):
            at, end = 0, 3
        else:
            at = self.input.find(b"\r\n.\r\n", max(0, self.searched - 4))
            self.searched = len(self.input)
            if at < 0:
                return False
            at, end = at + 2, at + 5
        content = bytes(self.input[:at])
        del self.input[:end]
        self.searched = 0
        if content.startswith(b"."):
            content = content[1:]
        self.end_of_data(content.replace(b"\r\n.", b"\r\n"))
        return True

    def end_of_data(self, content):
        b = self.books
        now = time.time()
        if not self.recipients:
            self.reset()
            self.transport.write(b"554 5.5.1 no recipients\r\n")
        elif b.happens(Manners.before_reply):
            self.hang_up()
        elif is_refused_at_the_end(self.recipients):
            self.reset()
            self.transport.write(b"554 5.6.0 not wanted\r\n")
        elif b.happens(Manners.late):
            self.waiting = True
            asyncio.get_running_loop().call_later(b.random.uniform(*Manners.delay), self.take_late,
                                                  content, now)
        else:
            self.take(content, now)

    def take_late(self, content, now):
        self.waiting = False
        self.take(content, now)
        self.work()

    def take(self, content, now):
        drop = self.cut or self.books.happens(Manners.after_taking)
        fate = "dropped" if drop else "gone"
        if not drop and not self.transport.is_closing():
            self.transport.write(b"250 2.0.0 taken\r\n")
            if not self.transport.is_closing() and self.transport.get_write_buffer_size() == 0:
                fate = "out"
        self.write_down(content, now, fate)
        self.reset()
        if drop:
            self.hang_up()

    def write_down(self, content, now, fate):
        head, _, body = content.partition(b"\r\n\r\n")
        times = (f"{self.mail_at:.6f}", f"{now:.6f}", f"{time.time():.6f}", fate)
        if self.sender == "":
            found = MESSAGE_ID.search(head)
            if self.recipients[0].startswith(LETTERS):
                self.books.write("L", *times, found[1].decode() if found else "?",
                                 SUBJECT.search(head)[1].decode())
                return
            self.books.write("N", *times, found[1].decode() if found else "?",
                             ",".join(self.recipients),
                             ",".join(x.decode() for x in FAILED.findall(content)))
            return
        found = RECEIVED_ID.search(head)
        fields = dict(l.split(b": ", 1) for l in head.split(b"\r\n") if l.startswith(b"X-"))
        number = fields.get(b"X-Number", b"?").decode()
        self.books.write("T", *times, found[1].decode() if found else "?", number,
                         ",".join(self.recipients))
        if hashlib.sha1(body).hexdigest().encode() != fields.get(b"X-Sum"):
            self.books.write("X", number, f"the body of {len(body)} bytes is another one")
        if any(r.split(".")[0] != f"n{number}" for r in self.recipients):
            self.books.write("X", number, "it came to another message's recipients")

    # ---- commands

    def take_line(self):
        end = self.input.find(b"\r\n")
        if end < 0:
            if len(self.input) > LINE_MAX:
                self.hang_up()
            return False
        line = bytes(self.input[:end])
        del self.input[:end + 2]
        verb = line[:4].upper()
        handler = self.verbs.get(verb)
        reply = handler(self, line) if handler else b"500 5.5.2 what?\r\n"
        if reply is not READ_ON and not self.transport.is_closing():
            self.transport.write(reply)
        return True

    def ehlo(self, _):
        self.reset()
        return (b"250-sink.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250-SIZE 100000000\r\n"
                b"250-SMTPUTF8\r\n" + (b"250-CHUNKING\r\n" if self.chunking else b"")
                + b"250 ENHANCEDSTATUSCODES\r\n")

    def mail(self, line):
        self.reset()
        self.mail_at = time.time()
        self.sender = ADDRESS.search(line)[1].decode()
        if self.books.happens(Manners.before_data):
            self.hang_up()
            return READ_ON
        return b"250 2.1.0 Ok\r\n"

    def rcpt(self, line):
        address = ADDRESS.search(line)[1].decode()
        refusal = self.books.reply_to(address)
        if refusal:
            return refusal
        self.recipients.append(address)
        return b"250 2.1.5 Ok\r\n"

    def data_verb(self, _):
        if not self.recipients:
            return b"554 5.5.1 no recipients\r\n"
        self.data = bytearray()
        self.chunking_now = False
        return b"354 go\r\n"

    def bdat(self, line):
        words = line.split()
        if self.data is None:
            self.data = bytearray()
        self.chunking_now = True
        self.chunk_left = int(words[1])
        self.last = len(words) > 2
        if self.chunk_left == 0:
            self.chunk_over()
        return READ_ON

    def rset(self, _):
        self.reset()
        return b"250 2.0.0 Ok\r\n"

    def quit(self, _):
        self.transport.write(b"221 2.0.0 bye\r\n")
        self.transport.close()
        return READ_ON

    verbs = {b"EHLO": ehlo, b"HELO": rset, b"MAIL": mail, b"RCPT": rcpt, b"DATA": data_verb,
             b"BDAT": bdat, b"RSET": rset, b"NOOP": lambda *_: b"250 2.0.0 Ok\r\n", b"QUIT": quit}
    chunking_now = False


class Server:
    """Both ports."""

    def __init__(self, books, always, sometimes):
        self.books, self.always, self.sometimes = books, always, sometimes
        self.first = self.second = None
        self.sessions = set()

    async def listen(self, port, keep=None):
        def session():
            s = Session(self.books)
            if keep is not None:
                keep.add(s)
            return s
        return await asyncio.get_running_loop().create_server(
            session, "127.0.0.1", port, reuse_address=True, backlog=512)

    async def up(self):
        if not self.second:
            self.second = await self.listen(self.sometimes, self.sessions)

    def down(self):
        if self.second:
            self.second.close()
            self.second = None
        for s in self.sessions:
            s.hang_up()
        self.sessions.clear()
        # What was accepted in this instant has no session: asyncio leaves it open, and
        # silent, until its objects are collected.
        asyncio.get_running_loop().call_later(0.2, gc.collect)

    async def run(self):
        self.first = await self.listen(self.always)
        await self.up()
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        print("ready", flush=True)
        while True:
            word = (await reader.readline()).strip()
            if word == b"up":
                await self.up()
            elif word == b"down":
                self.down()
            elif word == b"calm":
                self.books.calm = True
            else:
                return


def main():
    a = argparse.ArgumentParser(description="the soak's receiving server")
    a.add_argument("--port", type=int, required=True)
    a.add_argument("--second-port", type=int, required=True)
    a.add_argument("--records", required=True)
    a.add_argument("--seed", type=int, default=0)
    o = a.parse_args()
    asyncio.run(Server(Books(o.records, o.seed), o.port, o.second_port).run())


if __name__ == "__main__":
    main()
