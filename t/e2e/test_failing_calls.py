"""Each call on the spool fails once, with each errno that it may have, in everything
that qmgr does to a message (F21-F26, F28). A preloaded library (t/fault/shim.c)
makes the n-th call of a kind fail, for every n that there is."""
import errno
import os
import sys
import tempfile
import time

import pytest

FAULT = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "fault")
sys.path.insert(0, FAULT)

import powercut_check  # noqa: E402
import shim  # noqa: E402
from ipc import Closed  # noqa: E402
from postern import BUILD, wait_until  # noqa: E402
from powercut_scenario import checksum as sum_text  # noqa: E402
from qmgr_peers import DEFERRED, FAILED, SENT, Qmgr, checksum, new_id  # noqa: E402

ERRORS = {
    shim.CREATE: (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EMFILE),
    shim.MKDIR: (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS),
    shim.OPEN: (errno.EMFILE, errno.EIO, errno.ENOMEM),
    shim.WRITE: (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EINTR, shim.SHORT),
    shim.RENAME: (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS),
    shim.UNLINK: (errno.EIO, errno.EROFS),
    shim.FSYNC: (errno.EIO, errno.ENOSPC, errno.EDQUOT),
    shim.SYNCFS: (errno.EIO, errno.ENOSPC),
    shim.READ: (errno.EIO, errno.EINTR),
}
# Without its directories qmgr says why and does not start.
NEEDED_AT_START = (shim.OPEN, shim.MKDIR)
FULL, HARMLESS = (errno.ENOSPC, errno.EDQUOT), (errno.EINTR, shim.SHORT)
TAKES_ROOM = (shim.CREATE, shim.WRITE, shim.RENAME, shim.MKDIR)
BODY = b"Subject: x\r\n\r\n" + b"0123456789abcdef\r\n" * 150
LARGE = b"Subject: large\r\n\r\n" + b"0123456789abcdef" * 8000 + b"\r\n"
NOTICE_SECONDS = 1.0
MARK_SECONDS = 0.8        # half a second, and what a busy machine needs
REFUSAL = dict(status=FAILED, code=550, enhanced="5.1.1", text="550 5.1.1 nobody", stage=5)


class World:
    """One qmgr in a spool of its own, and what it took."""

    def __init__(self, tool, place, config):
        self.tool, self.place, self.config = tool, place, config
        self.taken = {}        # id -> checksum of the body
        self.q = None
        self.start()

    def start(self):
        self.q = Qmgr(self.config, directory=self.place, programs=self.tool.programs)

    def answer(self):
        """Of what smtpd asked: the message."""
        while True:
            m = self.q.smtpd.receive()
            assert m, "qmgr does not answer"
            if m.name != "ipc_spool_state":
                return m

    def book(self, id, m, body):
        """The code of the reply that smtpd gives; what is taken is owed."""
        if m.name == "ipc_refused":
            return m.code
        assert m.name == "ipc_committed", m
        self.taken[id] = sum_text(body)
        return 250

    def commit(self, recipients=("b@b.test",)):
        id = self.q.commit(recipients, body=BODY, answer=None)
        return id, self.book(id, self.answer(), BODY)

    def commit_large(self):
        id, q, tag = new_id(), self.q, 1000
        q.smtpd.send("ipc_large_open", tag=tag, id=id)
        m = self.answer()
        if m.name == "ipc_refused":
            return id, m.code
        os.write(m.fd, LARGE)
        os.close(m.fd)
        q.commit(["b@b.test"], body=b"", tag=tag, id=id, large_len=len(LARGE),
                 large_sum=checksum(LARGE), answer=None)
        return id, self.book(id, self.answer(), LARGE)

    def commit_many(self):
        """So many at once that one syncfs takes them; the worst code."""
        tags, codes = {}, []
        for _ in range(8):
            id = self.q.commit(["b@b.test"], body=BODY, answer=None)
            tags[self.q.tag] = id
        while tags:
            m = self.answer()
            codes.append(self.book(tags.pop(m.tag), m, BODY))
        return None, max(codes)

    def deliver(self, id, recipient):
        """Answers what resolve is asked, until it is about this one; what else becomes
        due meanwhile stays with its relay."""
        while self.q.resolved().recipient != recipient.encode():
            pass
        while True:
            job = self.q.job()
            if job.id == id.encode():
                self.q.result(job)
                return

    def wait_removed(self, id):
        self.q.wait_log(f"{id}: removed$")
        self.taken.pop(id, None)

    def synced(self, id):
        """The directory that this message left is durable."""
        records = self.tool.records()
        left = [r.end for r in records if r.end and r.source[1] == id
                and r.call in (shim.RENAME, shim.UNLINK)]
        return left and any(r.begin > left[-1] and not r.error and
                            (r.call == shim.SYNCFS or r.call == shim.FSYNC and r.directory)
                            for r in records if r.end)


# ---- what is done to messages --------------------------------------------------------
# Each returns the code of the reply to a client, or None if there is none.


def nothing(w):
    pass


def recycle(w):
    """Leaves a file in free/ that may be used again."""
    id, _ = w.commit(["first@first.test"])
    w.deliver(id, "first@first.test")
    w.wait_removed(id)
    wait_until(lambda: w.synced(id), 10, "the sync of the directory")


def queue_two(w):
    w.id, _ = w.commit(["x@x.test", "y@x.test"])
    w.q.resolved()
    w.jobs = [w.q.job()]
    while sum(len(j.recipients) for j in w.jobs) < 2:
        w.jobs.append(w.q.job())


def report(w, first, second):
    outcomes = iter((first, second))
    for job in w.jobs:
        w.q.result(job, outcomes=[dict(next(outcomes), index=r.index) for r in job.recipients])


SENT_OK = dict(status=SENT, code=250, enhanced="2.0.0", text="2.0.0 Ok", stage=9)


def mark_and_defer(w):
    """One recipient gets its message, the other one has to wait."""
    report(w, SENT_OK,
           dict(status=DEFERRED, code=450, enhanced="4.2.0", text="450 4.2.0 later", stage=5))
    w.q.wait_log(f"{w.id}: to=<y@x.test>.*status=deferred")


def finish(w):
    """Both get it."""
    report(w, SENT_OK, SENT_OK)
    w.wait_removed(w.id)


def refuse(w):
    """Both are refused; a notice is made, if the disk allows it just now."""
    report(w, REFUSAL, REFUSAL)
    ask = w.q.bounce.receive(NOTICE_SECONDS)
    if ask and ask.name == "ipc_notice_request":
        w.q.bounce.send("ipc_notice", tag=ask.tag, content=b"From: <>\r\n\r\nsorry\r\n")
        wait_until(lambda: "non-delivery notification" in w.q.log() or not w.tool.seen()[1] == 0,
                   10, "the notice")


def owed_by_mark(w, found):
    """The second recipient waits; the first one may get it again if its mark failed."""
    assert found.messages[w.id]["status"] in ("SP", "PP"), found.messages[w.id]


def owed_by_finish(w, found):
    """If its end could not be written down it is delivered again."""
    m = found.messages.get(w.id)
    assert m is None or set(m["status"]) <= set("PS"), m


def owed_by_refusal(w, found):
    """The message waits or its notice is there."""
    m, notices = found.messages.get(w.id), [i for i in found.messages if i[:15] == w.id != i]
    assert m or len(notices) == 1, "neither message nor notice"
    if m:
        assert "P" in m["status"] or notices, m


class Path:
    def __init__(self, act, prepare=nothing, free=0, owed=None, journal="0"):
        self.act, self.prepare, self.owed = act, prepare, owed
        self.least = 10 if journal == "0" else 8   # one write and one sync
        self.config = dict(qmgr_free_files_limit=str(free), queue_journal_size=journal)


COMMITS = {
    "a fresh file": Path(lambda w: w.commit()[1]),
    "a recycled file": Path(lambda w: w.commit()[1], recycle, 4),
    "a large message": Path(lambda w: w.commit_large()[1]),
    "eight at once": Path(lambda w: w.commit_many()[1]),
    "in the journal": Path(lambda w: w.commit()[1], journal="1m"),
    "eight at once in the journal": Path(lambda w: w.commit_many()[1], journal="1m"),
}
LATER = {
    "a mark and a record": Path(mark_and_defer, queue_two, owed=owed_by_mark),
    "the end of a message": Path(finish, queue_two, owed=owed_by_finish),
    "the end of a message, its file kept": Path(finish, queue_two, 4, owed_by_finish),
    "a failure and its notice": Path(refuse, queue_two, owed=owed_by_refusal),
    "a mark and a record in the journal": Path(mark_and_defer, queue_two, owed=owed_by_mark,
                                               journal="1m"),
    "the end of a message in the journal": Path(finish, queue_two, owed=owed_by_finish,
                                                journal="1m"),
    "a failure in the journal and its notice": Path(refuse, queue_two, owed=owed_by_refusal,
                                                    journal="1m"),
}


# ---- one case ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tool():
    with tempfile.TemporaryDirectory(prefix="postern-") as directory:
        os.chmod(directory, 0o755)
        yield shim.Shim(directory, BUILD)


@pytest.fixture(scope="module")
def look():
    looker = powercut_check.Look(os.path.join(BUILD, "t", "spool-look"))
    yield looker
    looker.close()


class Case:
    """A world in a directory of its own, with a message that is on its way."""

    def __init__(self, tool, path):
        self.tool, self.path = tool, path
        self.place = tempfile.TemporaryDirectory(prefix="postern-", ignore_cleanup_errors=True)
        os.chmod(self.place.name, 0o755)
        self.spool = os.path.join(self.place.name, "spool")
        os.makedirs(self.spool)
        tool.clear()
        tool.set("used", 0)
        tool.watch(self.spool)
        self.w = World(tool, self.place.name, path.config)
        path.prepare(self.w)
        self.waiting, code = self.w.commit(["a@a.test"])
        assert code == 250

    def count(self):
        """How many calls of each kind the path makes."""
        for i, call in enumerate(ERRORS):
            self.tool.rule([call], 0, first=1 << 60, index=i)
        self.path.act(self.w)

        def seen():
            return {call: self.tool.seen(i)[0] for i, call in enumerate(ERRORS)}
        counts = self.at_rest(seen) if self.path.owed else seen()
        self.end()
        return counts

    @staticmethod
    def at_rest(value):
        """A value that no longer changes: what becomes of a delivery is logged before it
        is written down, at most MARK_SECONDS before. (The reply to a commit comes after
        all calls that it needs.)"""
        last, since = value(), time.monotonic()

        def steady():
            nonlocal last, since
            if value() != last:
                last, since = value(), time.monotonic()
            return time.monotonic() - since > MARK_SECONDS
        wait_until(steady, 10, "the last of the calls")
        return last

    def fail(self, call, n, error):
        """The code, and whether the call was made."""
        self.tool.rule([call], error, first=n)
        code = self.path.act(self.w)
        if self.path.owed and self.tool.seen()[1] == 0:   # it may still come
            self.at_rest(self.tool.seen)
        hit = self.tool.seen()[1] > 0
        self.tool.clear()
        return code, hit

    def check(self, look, may_be_bad):
        """The relay goes on, and has what it took and nothing else."""
        w = self.w
        assert w.q.master.process.poll() is None, "qmgr died"
        _, code = w.commit(["b@b.test"])
        assert code == 250 or may_be_bad and code == 451, f"the next message got {code}"
        w.deliver(self.waiting, "a@a.test")
        w.wait_removed(self.waiting)
        w.q.stop()
        found = self.found(look)
        missing = set(w.taken) - set(found.messages)
        assert not missing, f"lost: {missing}"
        for id, total in w.taken.items():
            m = found.messages[id]
            assert (m["sum"], m["error"]) == (total, ""), m
        assert not found.corrupt and not found.left, (found.corrupt, found.left)
        return found, code

    def found(self, look):
        if os.getuid() == 0:   # the spool engine wants files of its own user
            for base, _, files in os.walk(self.spool):
                for path in [base] + [os.path.join(base, f) for f in files]:
                    os.chown(path, 0, 0, follow_symlinks=False)
        return powercut_check.Found(look, self.spool)

    def end(self):
        self.tool.clear()
        if self.w.q.master.process.poll() is None:
            self.w.q.kill()
        self.place.cleanup()


def cases(tool, path):
    for call, count in Case(tool, path).count().items():
        for n in range(1, count + 1):
            for error in ERRORS[call]:
                yield call, n, error


def name_of(call, n, error):
    words = {shim.SHORT: "half of it", shim.KILL_BEFORE: "killed"}.get(error) or errno.errorcode[error]
    return f"{shim.NAMES[call]} {n}: {words}"


def expected(call, error):
    """Codes that a client may get when this fails in its transaction."""
    if error in HARMLESS and call in (shim.WRITE, shim.READ):
        return (250,)
    if call in TAKES_ROOM and error in FULL:
        return (452,)
    if call == shim.SYNCFS:    # then each file is asked
        return (250,)
    if call == shim.FSYNC and error in FULL:
        return (451, 452)
    if call == shim.OPEN:      # of a free file: another one is made
        return (250, 451)
    return (451,)


@pytest.mark.parametrize("name", COMMITS)
def test_F21_F23_F24_F26_F28_every_call_of_a_commit_fails(tool, look, name):
    path, wrong, tried = COMMITS[name], [], 0
    for call, n, error in cases(tool, path):
        case = Case(tool, path)
        try:
            code, hit = case.fail(call, n, error)
            tried += hit
            if hit and code not in expected(call, error):
                wrong.append(f"{name_of(call, n, error)}: the reply is {code}")
            bad = error in (errno.EIO, errno.EROFS) or call == shim.FSYNC
            found, _ = case.check(look, bad)
            strange = set(found.messages) - set(case.w.taken)
            assert not strange, f"refused, and there: {strange}"
        except AssertionError as e:
            wrong.append(f"{name_of(call, n, error)}: {str(e).splitlines()[0]}")
        finally:
            case.end()
    assert tried >= path.least, f"only {tried} calls were hit"
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("name", LATER)
def test_F22_F24_every_call_of_a_messages_later_life_fails(tool, look, name):
    path, wrong, tried = LATER[name], [], 0
    for call, n, error in cases(tool, path):
        case = Case(tool, path)
        try:
            _, hit = case.fail(call, n, error)
            tried += hit
            case.w.taken.pop(case.w.id, None)
            found, _ = case.check(look, error in (errno.EIO, errno.EROFS) or call == shim.FSYNC)
            path.owed(case.w, found)
        except AssertionError as e:
            wrong.append(f"{name_of(call, n, error)}: {str(e).splitlines()[0]}")
        finally:
            case.end()
    assert tried >= 2, f"only {tried} calls were hit"
    assert not wrong, "\n".join(wrong)


# ---- start ---------------------------------------------------------------------------


class Stored(Case):
    """A spool with messages of all kinds, and no qmgr."""

    def __init__(self, tool, journal="0"):
        super().__init__(tool, Path(None, journal=journal))
        self.w.commit_large()
        self.w.commit(["u@u.test"] * 3)
        if journal == "0":
            self.w.q.stop()
        else:   # its messages have no files
            self.w.q.kill()

    def start(self):
        """Starts qmgr, and ends it when it has read its spool; False if it died before."""
        before = self.w.q.count("spool read: ")
        try:
            self.w.start()
        except Closed:
            return False
        q = self.w.q
        wait_until(lambda: q.master.process.poll() is not None
                   or q.count("spool read: ") > before, 20, "the end of the scan")
        alive = q.master.process.poll() is None
        q.kill()
        return alive

    def count(self):
        for i, call in enumerate(ERRORS):
            self.tool.rule([call], 0, first=1 << 60, index=i)
        assert self.start()
        counts = {call: self.tool.seen(i)[0] for i, call in enumerate(ERRORS)}
        self.end()
        return counts

    def check(self, look):
        """Whatever went wrong at the start, all is still there."""
        found = self.found(look)
        assert set(found.messages) == set(self.w.taken), (set(self.w.taken), found.messages)
        for id, total in self.w.taken.items():
            assert found.messages[id]["sum"] == total
        assert not found.corrupt and not found.left, (found.corrupt, found.left)


def check_starts(tool, look, calls, errors, journal="0", most=1000):
    wrong, tried = [], 0
    for call, count in Stored(tool, journal).count().items():
        for n in range(1, count + 1 if call in calls else 1, 1 + count // most):
            for error in errors or ERRORS[call]:
                case = Stored(tool, journal)
                case.tool.rule([call], error, first=n)
                try:
                    alive = case.start()
                    tried += case.tool.seen()[1]
                    case.tool.clear()
                    assert alive == (error not in (shim.KILL, shim.KILL_BEFORE)) or \
                        call in NEEDED_AT_START, f"alive: {alive}"
                    case.check(look)
                except AssertionError as e:
                    wrong.append(f"{name_of(call, n, error)}: {str(e).splitlines()[0]}")
                finally:
                    case.end()
    assert tried >= 5, f"only {tried} calls were hit"
    assert not wrong, "\n".join(wrong)


def test_F25_every_call_of_a_start_fails(tool, look):
    """What cannot be read now is not lost, and not taken for damaged."""
    check_starts(tool, look, (shim.OPEN, shim.READ, shim.MKDIR, shim.SYNCFS), None)


def test_F21_F24_F25_calls_of_a_start_with_a_journal_fail(tool, look):
    """The ring has hundreds of pages that may hold a block: some of their reads."""
    check_starts(tool, look, (shim.READ, shim.WRITE, shim.CREATE, shim.RENAME, shim.FSYNC,
                              shim.SYNCFS), None, "1m", 12)


def test_F11_qmgr_killed_at_calls_of_a_start_with_a_journal(tool, look):
    check_starts(tool, look, (shim.READ, shim.WRITE, shim.CREATE, shim.RENAME, shim.FSYNC,
                              shim.SYNCFS), (shim.KILL_BEFORE,), "1m", 12)


def test_F11_qmgr_killed_at_every_call_of_its_scan(tool, look):
    check_starts(tool, look, (shim.OPEN, shim.READ, shim.SYNCFS), (shim.KILL_BEFORE,))
