"""What a client is told when a call on the spool fails, in smtpd or in qmgr: a whole
relay, with a library that makes calls fail (t/fault/shim.c). F21, F24, F26.
test_failing_calls.py tries each call there is, in qmgr alone."""
import errno
import os
import sys
import time

import pytest

FAULT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fault")
sys.path.insert(0, FAULT)

import shim  # noqa: E402
from postern import BUILD, Postern, wait_until  # noqa: E402
from sink import Sink  # noqa: E402

SMALL = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 100
LARGE = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 10000   # goes to a file in tmp/
REST_SECONDS = 0.8    # marks are durable half a second later
QMGR_WRITES, SMTPD_WRITES = 1, 1
# call, which one, what happens to it, the content, the code of the reply
CASES = [
    (shim.WRITE, QMGR_WRITES, errno.ENOSPC, SMALL, 452),
    (shim.WRITE, QMGR_WRITES, errno.EDQUOT, SMALL, 452),
    (shim.WRITE, QMGR_WRITES, errno.EINTR, SMALL, 250),
    (shim.WRITE, QMGR_WRITES, shim.SHORT, SMALL, 250),
    (shim.WRITE, QMGR_WRITES, errno.EIO, SMALL, 451),
    (shim.RENAME, 1, errno.ENOSPC, SMALL, 452),
    (shim.RENAME, 1, errno.EROFS, SMALL, 451),
    (shim.CREATE, 1, errno.ENOSPC, LARGE, 452),
    (shim.CREATE, 1, errno.EMFILE, LARGE, 451),
    (shim.WRITE, SMTPD_WRITES, errno.ENOSPC, LARGE, 452),
    (shim.WRITE, SMTPD_WRITES + 1, errno.EDQUOT, LARGE, 452),
    (shim.WRITE, SMTPD_WRITES, errno.EIO, LARGE, 451),
    (shim.WRITE, SMTPD_WRITES, errno.EINTR, LARGE, 250),
    (shim.WRITE, SMTPD_WRITES, shim.SHORT, LARGE, 250),
    (shim.FSYNC, 1, errno.EIO, LARGE, 451),
]


# The same with a journal, where a small message has no file of its own.
JOURNALLED = [
    (shim.WRITE, 1, errno.ENOSPC, SMALL, 452),
    (shim.WRITE, 1, errno.EDQUOT, SMALL, 452),
    (shim.WRITE, 1, errno.EINTR, SMALL, 250),
    (shim.WRITE, 1, shim.SHORT, SMALL, 250),
    (shim.WRITE, 1, errno.EIO, SMALL, 451),
    (shim.FSYNC, 1, errno.EIO, SMALL, 451),
    (shim.CREATE, 1, errno.ENOSPC, LARGE, 452),
]


def name_of(case):
    call, n, error, content, code = case
    what = "half of it" if error == shim.SHORT else errno.errorcode[error]
    return f"{shim.NAMES[call]} {n} of {'small' if content is SMALL else 'large'}: {what}, {code}"


class Relay:
    def __init__(self, place, sink, journal):
        self.shim, self.sink, self.count = shim.Shim(place, BUILD, sends=False), sink, 0
        self.p = Postern(place, relayhost=f"[127.0.0.1]:{sink.port}", qmgr_free_files_limit="0",
                         queue_journal_size=journal, program_directory=self.shim.programs, minimal_backoff_time="1s",
                         maximal_backoff_time="2s")
        self.shim.watch(self.p.path("spool"))

    def rest(self):
        """Nothing is done on the spool any more."""
        last, since = self.shim.get("used"), time.monotonic()

        def steady():
            nonlocal last, since
            if self.shim.get("used") != last:
                last, since = self.shim.get("used"), time.monotonic()
            return time.monotonic() - since > REST_SECONDS
        wait_until(steady, 20, "rest")

    def deliver(self, content=SMALL):
        """Submits until it is taken, and waits for its delivery."""
        self.count += 1
        recipient = f"r{self.count}@dst.test"
        assert self.p.attempt(recipient, content) == 250
        wait_until(lambda: self.came(recipient), 30, f"the delivery to {recipient}")
        wait_until(lambda: not self.p.spool_files(), 30, "an empty queue")

    def came(self, recipient):
        return sum(recipient in m.recipients for m in list(self.sink.messages))

    def restart(self):
        self.p.stop()
        self.p.start()


def check(relay, case):
    call, n, error, content, code = case
    relay.rest()
    recipient = f"case{relay.count}@dst.test"
    relay.shim.rule([call], error, first=n)
    got = relay.p.attempt(recipient, content)
    hits = relay.shim.seen()[1]
    relay.shim.clear()
    assert hits, "the call was not made"
    assert got == code, f"the reply is {got}"
    bad = "bad" in relay.p.ctl("status")
    assert not bad or error in (errno.EIO, errno.EROFS), "the spool is bad"
    if bad:
        assert relay.p.attempt("later@dst.test", SMALL) == 451
        relay.restart()
    relay.deliver(content)
    assert relay.came(recipient) == (code == 250), "not delivered as the client was told"
    assert not relay.p.spool_files("corrupt") and not relay.p.spool_files("tmp")


@pytest.mark.parametrize("journal, cases", [("0", CASES), ("1m", JOURNALLED)])
def test_F21_F24_F26_the_reply_when_a_call_fails(place, journal, cases):
    wrong = []
    with Sink() as sink:
        relay = Relay(place, sink, journal)
        with relay.p:
            relay.deliver()
            for case in cases:
                try:
                    check(relay, case)
                except AssertionError as e:
                    wrong.append(f"{name_of(case)}: {str(e).splitlines()[0]}")
                    relay.restart()
        assert relay.came("later@dst.test") == 0
    assert not wrong, "\n".join(wrong)
