"""The spool of a whole relay: processes that die between two of its steps, disks
that fail or are full, and files that are not as they were left."""
import contextlib
import errno
import os
import random
import re
import smtplib
import subprocess

import pytest

from faults import KILL, Faults, available
from postern import Postern, free_port, wait_until
from sink import Sink

FAST = {"minimal_backoff_time": "1s", "maximal_backoff_time": "2s",
        "destination_suspend_time": "1s"}
CONTENT = b"Subject: case\r\nMessage-ID: <case@src.test>\r\n\r\nbody\r\n"

needs_faults = pytest.mark.skipif(not available(), reason="a build without fault points")
needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")


def deliver(p, recipient):
    """Submits until it is taken, as a client does that is told to try later."""
    wait_until(lambda: p.attempt(recipient, CONTENT) == 250, 30, f"a 250 for {recipient}")


def recipients(sink):
    return [m.recipients[0] for m in list(sink.messages)]


def wait_empty(p):
    wait_until(lambda: not p.spool_files("new"), 30, "an empty queue")


@pytest.fixture
def faulty(place):
    """A relay that delivers, whose disk and processes can be made to fail; each message
    gets a file at once."""
    yield from make_faulty(place, "0")


@pytest.fixture
def journalled(place):
    """The same, with a journal."""
    yield from make_faulty(place, "1m")


def make_faulty(place, journal):
    faults = Faults(place)
    with Sink() as sink, Postern(place, relayhost=f"[127.0.0.1]:{sink.port}",
                                 queue_journal_size=journal,
                                 environment=faults.environment, **FAST) as p:
        deliver(p, "first@dst.test")
        sink.wait(1)
        wait_empty(p)
        yield p, sink, faults


def begun(c):
    """A client that has sent all but the end of a message's content."""
    c.ehlo()
    for command in ("MAIL FROM:<a@src.test>", "RCPT TO:<case@dst.test>", "DATA"):
        if c.docmd(command)[0] not in (250, 354):
            return False
    c.send(CONTENT)
    return True


def kill_at(faulty, point):
    """qmgr dies at that point of the way of the message for case@dst.test."""
    p, _, faults = faulty
    old, codes = [], []
    faults.set(point, KILL)

    def sent():
        """Not if what was still to be written of the first message came to the point before."""
        if not faults.left(faults.used - 1):
            faults.set(point, KILL)
        old[:] = p.pids("qmgr")
        with contextlib.suppress(smtplib.SMTPException, OSError), p.client() as c:
            if begun(c) and faults.left(faults.used - 1):
                codes.append(0)
                c.send(b".\r\n")
                codes[0] = c.getreply()[0]
        return codes
    wait_until(sent, 30, f"a message that meets {point}")
    wait_until(lambda: p.pids("qmgr") not in ([], old), 20, "a new qmgr")
    # on a busy disk each file is synced by itself, and syncfs comes after the answer
    may_be = (0, 421, 451) + ((250,) if point == "store.syncfs" else ())
    assert codes[0] in may_be, f"{point}: the client got {codes[0]}"
    deliver(p, "after@dst.test")


@needs_faults
@pytest.mark.parametrize("point", ["store.write", "store.rename"])
def test_F04_F05_qmgr_killed_before_the_file_has_its_name(faulty, point):
    kill_at(faulty, point)
    p, sink, _ = faulty
    wait_until(lambda: "after@dst.test" in recipients(sink), 30, "the next message")
    wait_empty(p)
    assert "case@dst.test" not in recipients(sink)
    assert not p.spool_files("corrupt") and not p.spool_files("tmp")


@needs_faults
@pytest.mark.parametrize("whole, point", [
    (True, "store.renamed"), (True, "store.syncfs"), (True, "store.dirs_synced"),
    (False, "store.files_synced"), (False, "store.dir_fsync"), (False, "store.dirs_synced")])
def test_F06_F07_qmgr_killed_after_the_file_has_its_name(faulty, whole, point):
    p, sink, faults = faulty
    if not whole:  # each file is synced by itself where syncfs fails
        faults.set("store.syncfs", errno.EIO, count=1000)
    kill_at(faulty, point)
    wait_until(lambda: {"case@dst.test", "after@dst.test"} <= set(recipients(sink)), 30,
               "the delivery of both")
    wait_empty(p)
    assert sorted(recipients(sink)) == ["after@dst.test", "case@dst.test", "first@dst.test"]
    assert not p.spool_files("corrupt")


@needs_faults
def test_F04_F05_qmgr_killed_before_the_journal_is_written(journalled):
    kill_at(journalled, "journal.write")
    p, sink, _ = journalled
    wait_until(lambda: "after@dst.test" in recipients(sink), 30, "the next message")
    wait_empty(p)
    assert "case@dst.test" not in recipients(sink)
    assert not p.spool_files("corrupt") and not p.spool_files("tmp")


@needs_faults
@pytest.mark.parametrize("point", ["journal.written", "journal.sync", "store.dirs_synced"])
def test_F06_F07_qmgr_killed_after_the_journal_is_written(journalled, point):
    kill_at(journalled, point)
    p, sink, _ = journalled
    wait_until(lambda: {"case@dst.test", "after@dst.test"} <= set(recipients(sink)), 30,
               "the delivery of both")
    wait_empty(p)
    assert sorted(recipients(sink)) == ["after@dst.test", "case@dst.test", "first@dst.test"]
    assert not p.spool_files("corrupt")


@needs_faults
def test_F24_a_failed_sync_of_the_journal_latches_the_spool(journalled):
    p, sink, faults = journalled
    faults.set("journal.write", errno.EIO)
    assert p.attempt("case@dst.test", CONTENT) == 451
    faults.clear()
    assert p.attempt("later@dst.test", CONTENT) == 451
    assert "bad" in p.ctl("status")
    assert recipients(sink) == ["first@dst.test"]


@needs_faults
@pytest.mark.parametrize("point", ["store.write", "store.rename"])
def test_F21_no_space_for_a_file_is_452(faulty, point):
    p, sink, faults = faulty
    faults.set(point, errno.ENOSPC)
    assert p.attempt("case@dst.test", CONTENT) == 452
    assert faults.left() == 0
    deliver(p, "case@dst.test")
    wait_until(lambda: "case@dst.test" in recipients(sink), 30, "the delivery")
    wait_empty(p)
    assert recipients(sink).count("case@dst.test") == 1


@needs_faults
def test_F22_no_space_for_a_failure_record_keeps_the_recipient(faulty):
    p, sink, faults = faulty
    sink.replies = {"nobody@dst.test": "550 5.1.1 nobody here"}
    faults.set("store.change", errno.ENOSPC, count=1 << 30)
    queue_id = p.send("a@src.test", ["nobody@dst.test"], CONTENT)
    wait_until(lambda: faults.left() < 1 << 30 and "nobody@dst.test" in sink.attempts, 20,
               "an attempt that cannot be recorded")
    listed = p.ctl("queue", "list", "--json", queue_id)
    assert "nobody@dst.test" in listed
    assert "a@src.test" not in recipients(sink), "a notice without a record"
    faults.clear()
    wait_until(lambda: "a@src.test" in recipients(sink), 60, "the notice")
    p.wait_log(f"{queue_id}: removed$", 60)
    wait_empty(p)
    assert recipients(sink).count("a@src.test") == 1


@needs_faults
def test_F22_no_space_for_a_notice_keeps_the_recipient(faulty):
    p, sink, faults = faulty
    sink.replies = {"nobody@dst.test": "550 5.1.1 nobody here"}
    faults.set("store.rename", errno.ENOSPC, skip=1, count=3)  # the message itself passes
    queue_id = p.send("a@src.test", ["nobody@dst.test"], CONTENT)
    wait_until(lambda: faults.left() < 3, 20, "a notice that does not fit")
    p.wait_log(f"{queue_id}: notice .* could not be stored, made again in 60s")
    assert queue_id in p.ctl("queue", "list", "--json")
    faults.clear()
    faults.shift("mono", 61)
    wait_until(lambda: "a@src.test" in recipients(sink), 30, "the notice")
    p.wait_log(f"{queue_id}: removed$", 30)
    wait_empty(p)
    assert recipients(sink).count("a@src.test") == 1


@needs_faults
def test_F24_a_failed_fsync_latches_the_spool_until_a_restart(place):
    faults, port = Faults(place), free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{port}", environment=faults.environment,
                 queue_journal_size="0",
                 **FAST) as p:
        deliver(p, "before@dst.test")
        faults.set("store.syncfs", errno.EIO, count=100)
        faults.set("store.file_fsync", errno.EIO)
        assert p.attempt("case@dst.test", CONTENT) == 451
        faults.clear()  # the disk answers again, but what it lost is not known
        for i in range(3):
            assert p.attempt(f"later{i}@dst.test", CONTENT) == 451
        assert re.search(r"(error|fatal|crit)[a-z]*: .*(fsync|sync)", p.log()), p.log()
        assert "bad" in p.ctl("status")
        with Sink(port) as sink:
            wait_until(lambda: recipients(sink), 30, "a delivery although the spool is bad")
            assert recipients(sink) == ["before@dst.test"]
            p.stop()
            p.start()
            deliver(p, "next@dst.test")
            wait_until(lambda: len(recipients(sink)) == 2, 30, "the next delivery")
            assert recipients(sink) == ["before@dst.test", "next@dst.test"]


@needs_root
def test_F23_without_inodes_mail_is_refused_and_deliveries_go_on(place):
    spool, port = os.path.join(place, "spool"), free_port()
    os.makedirs(spool)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "nr_inodes=120,mode=755", "tmpfs", spool],
                   check=True)
    try:
        with Postern(place, relayhost=f"[127.0.0.1]:{port}", queue_minfree="0",
                     queue_journal_size="0",
                     queue_minfree_inodes="40", **FAST) as p:
            taken = 0
            while (code := p.attempt(f"r{taken}@dst.test", CONTENT)) == 250:
                taken += 1
                assert taken < 120, "more files than inodes"
            assert code == 452 and taken > 10
            with Sink(port) as sink:
                sink.wait(taken, 60)
                deliver(p, "again@dst.test")
                sink.wait(taken + 1)
    finally:
        subprocess.run(["umount", "-l", spool], check=True)


# ---- files that are not as they were left -----------------------------------------


def truncate(path):
    os.truncate(path, 250)  # in the envelope; the file may be longer than its message


def empty(path):
    os.truncate(path, 0)


def overwrite(offset, data):
    def change(path):
        with open(path, "r+b") as f:
            f.seek(offset)
            f.write(data)
    return change


def replace_by(make):
    def change(path):
        kept = os.path.join(os.path.dirname(path), "..", "..", "kept")
        os.rename(path, kept)
        make(kept, path)
    return change


def rename(path):
    os.rename(path, os.path.join(os.path.dirname(path), "..hidden-name"))


QUARANTINED = {
    "B76_empty": empty,
    "B76_truncated": truncate,
    "B77_header": overwrite(100, b"#"),
    "B77_envelope": overwrite(200, b"#"),
    "B78_count": overwrite(48, b"\xff\xff\xff"),
    "B82_length": overwrite(64, b"\1\2"),
}
LEFT_ALONE = {
    "B79_later_version": overwrite(8, b"\xff"),
    "B80_symlink": replace_by(lambda kept, path: os.symlink(kept, path)),
    "B80_fifo": replace_by(lambda kept, path: os.mkfifo(path)),
    "B80_hard_link": replace_by(lambda kept, path: os.link(kept, path)),
    "B81_name": rename,
}
if os.getuid() == 0:
    LEFT_ALONE["B80_owner"] = lambda path: os.chown(path, 12345, 12345)


def restart_with(place, changes):
    """Queues a message for each change and two more, applies the changes while the
    relay is stopped, and starts it with its next hop. The relay and the sink."""
    port = free_port()
    p = Postern(place, relayhost=f"[127.0.0.1]:{port}", **FAST)
    with p:
        ids = {name: p.send("a@src.test", [f"{name}@dst.test"], CONTENT)
               for name in ("before", *changes, "after")}
    files = {os.path.basename(f): f for f in p.spool_files("new")}
    assert set(ids.values()) <= set(files), "a restart lost a message"
    for name, change in changes.items():
        change(files[ids[name]])
    return p, Sink(port), ids


def check_neighbours(p, sink):
    wait_until(lambda: {"before@dst.test", "after@dst.test"} <= set(recipients(sink)), 30,
               "the sound messages")
    p.wait_log("spool read: ")
    assert set(recipients(sink)) == {"before@dst.test", "after@dst.test"}


def check_quarantined(p, ids):
    wait_until(lambda: len(p.spool_files("corrupt")) == len(ids), 30, "all in corrupt/")
    kept = " ".join(os.path.basename(f) for f in p.spool_files("corrupt"))
    for id in ids:
        assert id in kept
        p.wait_log(rf"(error|warning): .*{id}.*moved to corrupt/")


def test_B76_B77_B78_B82_damaged_files_are_quarantined(place):
    p, sink, ids = restart_with(place, QUARANTINED)
    with sink:
        p.start()
        with p:
            check_neighbours(p, sink)
            check_quarantined(p, [ids[name] for name in QUARANTINED])
            wait_empty(p)


def test_B79_B80_B81_what_is_not_ours_is_left_alone(place):
    p, sink, ids = restart_with(place, LEFT_ALONE)
    with sink:
        p.start()
        with p:
            check_neighbours(p, sink)
            assert not p.spool_files("corrupt")
            for name in LEFT_ALONE:
                shown = "hidden-name" if "B81" in name else ids[name]
                p.wait_log(rf"(error|warning): .*{shown}.*left alone")
            wait_until(lambda: len(p.spool_files("new")) == len(LEFT_ALONE), 20,
                       "the end of the sound messages' files")


def flip(bit):
    """Changes a bit; counted over all that the file says of its message."""
    def change(path):
        with open(path, "r+b") as f:
            f.seek(bit // 8)
            byte = f.read(1)[0]
            f.seek(bit // 8)
            f.write(bytes([byte ^ 1 << bit % 8]))
    return change


def test_F40_one_flipped_bit_anywhere_quarantines_the_message(place):
    """In its header, envelope, status or content: whoever reads it first notices, nobody
    gets changed mail, and the operator finds it in corrupt/ and in the log."""
    with Postern(os.path.join(place, "model"), relayhost="[127.0.0.1]:1") as model:
        queue_id = model.send("a@src.test", ["F40_00@dst.test"], CONTENT)
        (path,) = wait_until(lambda: [f for f in model.spool_files("new")
                                      if os.path.basename(f) == queue_id], 10, "its file")
        with open(path, "rb") as f:
            header = f.read(192)
    envelope, _, prefix, body = (int.from_bytes(header[at:at + 8], "little")
                                 for at in (40, 48, 56, 64))
    parts = [192, envelope, 1, prefix, body]
    assert body == len(CONTENT) and envelope > 30 and prefix > 100
    dice, begin, bits = random.Random(40), 0, []
    for size in parts:
        bits += [dice.randrange(8 * begin, 8 * (begin + size)) for _ in range(12)]
        begin += size
    bits += [8 * 16 + 1, 8 * 40, 8 * 64]  # the ID, two lengths
    # of the version it says that the message is of a later one (B79)
    changes = {f"F40_{i:02}": flip(bit) for i, bit in enumerate(bits) if bit // 8 not in range(8, 12)}
    p, sink, ids = restart_with(place, changes)
    with sink:
        p.start()
        with p:
            check_neighbours(p, sink)
            check_quarantined(p, [ids[name] for name in changes])
            wait_empty(p)
            assert set(recipients(sink)) == {"before@dst.test", "after@dst.test"}


def test_B83_unknown_status_byte_is_quarantined(place):
    """The status byte of the one recipient stands behind the envelope."""
    def change(path):
        with open(path, "r+b") as f:
            header = f.read(192)
            f.seek(192 + int.from_bytes(header[40:48], "little"))
            assert f.read(1) == b"P"
            f.seek(-1, os.SEEK_CUR)
            f.write(b"?")
    p, sink, ids = restart_with(place, {"B83": change})
    with sink:
        p.start()
        with p:
            check_neighbours(p, sink)
            wait_until(lambda: ids["B83"] in " ".join(p.spool_files("corrupt")), 20,
                       "the quarantine")
            p.wait_log(rf"(error|warning): .*{ids['B83']}.*moved to corrupt/")
            wait_empty(p)

