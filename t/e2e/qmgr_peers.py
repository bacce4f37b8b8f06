"""qmgr alone, with stand-ins for smtpd, relay, resolve and bounce."""
import ctypes
import hmac
import itertools
import os
import re
import secrets
import shutil
import struct
import tempfile
import time
import zlib

from ipc import Channel, FakeMaster, as_bytes, pair
from postern import wait_until

DIGITS = "0123456789BCDFGHJKLMNPQRSTVWXYZbcdfghjklmnpqrstvwxyz"
OK, TEMPORARY, PERMANENT = 0, 1, 2
SENT, DEFERRED, FAILED = 0, 1, 2
RECIPIENT, MESSAGE, SITE = 0, 1, 2
TARGET = dict(host="mx.test", address=b"\x7f\x00\x00\x01", port=25, preference=10)


def checksum(data):
    """XXH3-64, as ipc_commit.large_sum wants it."""
    lib = ctypes.CDLL("libxxhash.so.0")
    lib.XXH3_64bits.restype = ctypes.c_uint64
    return lib.XXH3_64bits(ctypes.c_char_p(data), ctypes.c_size_t(len(data)))


def new_id(counter=itertools.count(secrets.randbelow(51 ** 3))):
    """A queue ID of this second."""
    def digits(n, width, base):
        out = ""
        for _ in range(width):
            out, n = DIGITS[n % base] + out, n // base
        return out
    now = time.time_ns() // 1000
    return (digits(now // 1000000, 6, 52) + digits(now % 1000000, 4, 52) + "z" +
            digits(next(counter), 4, 51))


HOLD, HOLD_RATE = 32, 128  # enum message_flag


def charged_size(commit):
    """Of a COMMIT's fields: what RESERVE says of the same message."""
    return (commit.get("large_len") or len(commit["body"])) - commit.get("added", 0)


class Tokens:
    """Makes the tokens that qmgr wants in COMMITs of accounts, as quota does (lib/token)."""

    def __init__(self, message):
        self.key, self.next = message.key, message.first

    def make(self, id, owner, sender, recipients, size, hold=0, age=0, serial=None):
        def text(s):
            raw = as_bytes(s)
            return struct.pack("<H", len(raw)) + raw
        if serial is None:
            serial, self.next = self.next, self.next + 1
        head = struct.pack("<BIQ", hold, max(0, int(time.monotonic() - age)), serial)
        claim = struct.pack("<IQ", recipients, size) + text(id) + text(owner) + text(sender)
        return head + hmac.digest(self.key, head + claim, "sha256")[:16]

    def of(self, commit, **more):
        """For a COMMIT of these fields."""
        return self.make(commit["id"], commit["account"], commit["sender"],
                         commit["recipient_count"], charged_size(commit),
                         **{"hold": commit.get("flags", 0) & (HOLD | HOLD_RATE), **more})


class Qmgr:
    """qmgr and its peers. `sites` answers what resolve is asked: a function of
    the recipient that returns the fields of ipc_resolve_reply."""

    def __init__(self, config=None, directory=None, relays=1, bounce=True, listen=(),
                 **options):
        values = dict(event_log_file="/dev/null", minimal_backoff_time="300",
                      queue_minfree="0", queue_minfree_inodes="0",
                      queue_journal_size="0")  # tests look at files
        values.update(config or {})
        self.directory = directory or tempfile.mkdtemp(prefix="postern-")
        self.own_directory = not directory
        spool = os.path.join(self.directory, "spool")
        os.makedirs(spool, exist_ok=True)
        os.chmod(spool, 0o777)  # qmgr runs as its own user
        self.master = FakeMaster("qmgr", values, directory=self.directory, listen=listen,
                                 **options)
        self.smtpd = self.master.peer("smtpd")
        self.state = self.smtpd.expect("ipc_spool_state")
        self.resolve = self.master.peer("resolve")
        self.bounce = self.master.peer("bounce") if bounce else None
        self.relays = []
        for slot in range(relays):
            self.add_relay(slot)
        self.tag = 0
        self.tokens = None
        self.ahead = None  # test_qmgr_operator.Ahead
        if values.get("accounts_enable") == "yes":
            quota = self.add_quota()  # what is committed here is reserved by nobody else
            self.tokens = Tokens(quota.expect("ipc_token_key"))
            quota.close()

    def add_relay(self, slot=0, jobs=100):
        relay = self.master.peer("relay", slot)
        relay.send("ipc_relay_ready", jobs=jobs)
        self.relays.append(relay)
        return relay

    def add_quota(self):
        """Our end of a channel to qmgr as its quota; its first message is the key of tokens."""
        ours, theirs = pair()
        self.master.master.send("ipc_peer", theirs.fileno(), service="quota", slot=0, pid=1)
        theirs.close()
        return Channel(ours)

    @property
    def relay(self):
        return self.relays[-1]

    def commit(self, recipients=("a@example.com",), sender="s@client.test", body=b"Subject: x\r\n\r\nHello\r\n",
               answer="ipc_committed", smtpd=None, **fields):
        """Sends COMMIT and awaits the answer; returns the queue ID."""
        self.tag += 1
        smtpd = smtpd or self.smtpd
        values = dict(tag=self.tag, id=new_id(), arrival=time.time_ns() // 1000, sender=sender,
                      client="c[192.0.2.1]", message_id="<m@client.test>",
                      recipient_count=len(recipients),
                      recipients=recipients if isinstance(recipients, bytes) else [
                          r if isinstance(r, dict) else dict(address=r) for r in recipients],
                      prefix=b"Received: by test\r\n", body=body)
        values.update(fields)
        if self.tokens and values.get("account"):
            values.setdefault("token", self.tokens.of(values))
        smtpd.send("ipc_commit", **values)
        if answer:
            got = smtpd.expect(answer, skip=("ipc_spool_state",))
            assert got.tag == values["tag"]
            self.answer = got
        return values["id"]

    def resolved(self, **fields):
        """Answers the next question of qmgr."""
        ask = self.resolve.expect("ipc_resolve_request")
        values = dict(tag=ask.tag, status=OK, scope=0, ttl=300, transport=0,
                      nexthop=ask.recipient.split(b"@")[-1],
                      site=b"mx." + ask.recipient.split(b"@")[-1])
        values.update(fields)
        # a server of its own for each site: those that share one share its limits
        name = values["site"] if isinstance(values["site"], bytes) else values["site"].encode()
        own = b"\x7f" + zlib.crc32(name).to_bytes(4, "big")[:3]
        values.setdefault("targets", [dict(TARGET, address=own)])
        self.resolve.send("ipc_resolve_reply", **values)
        return ask

    def job(self, relay=None, timeout=10.0):
        relay = relay or self.relay
        if self.ahead:
            return wait_until(lambda: self.ahead.job(relay), timeout, "ipc_deliver")
        return relay.expect("ipc_deliver", timeout)

    def result(self, job, relay=None, outcomes=None, **fields):
        """Reports a job; outcomes: a dict that holds for all recipients, or a list."""
        if outcomes is None:
            outcomes = dict(status=SENT, code=250, enhanced="2.0.0", text="2.0.0 Ok", stage=9)
        if isinstance(outcomes, dict):
            outcomes = [dict(outcomes, index=r.index) for r in job.recipients]
        values = dict(job=job.job, host="mx.test", address="127.0.0.1", port=25, use_count=1,
                      outcomes=outcomes)
        values.update(fields)
        (relay or self.relay).send("ipc_result", **values)

    def noticed(self, content=b"From: <>\r\n\r\nsorry\r\n", **fields):
        """Answers the next notice request; returns the request."""
        ask = self.bounce.expect("ipc_notice_request")
        self.bounce.send("ipc_notice", tag=ask.tag, content=content, **fields)
        return ask

    def wait_log(self, pattern, timeout=10.0):
        return self.master.wait_log(pattern, timeout)

    def log(self):
        return self.master.log()

    def files(self):
        """IDs of the messages in the spool."""
        new = os.path.join(self.directory, "spool", "new")
        return sorted(name for _, _, names in os.walk(new) for name in names)

    def wait_files(self, expected, timeout=10.0):
        """Awaits that the spool holds exactly these messages."""
        wait_until(lambda: self.files() == sorted(expected), timeout, f"the spool as {expected}")

    def kill(self):
        self.master.process.kill()
        self.master.process.wait()

    def stop(self, expect=0):
        for peer in [self.smtpd, self.resolve, *self.relays, *([self.bounce] if self.bounce else [])]:
            peer.close()
        self.master.stop(expect)
        if self.own_directory:
            shutil.rmtree(self.directory, ignore_errors=True)

    def count(self, pattern):
        return len(re.findall(pattern, self.log(), re.M))
