"""A relay on real file systems that fail: full, without inodes, with a journal that
was aborted, on a device that answers writes with EIO; and the kernel's own OOM kill
(F21-F26, F29). ext4 on a loop device; needs root."""
import os
import subprocess
import threading

import pytest

import faults as fault_points
from postern import Postern, free_port, wait_until
from sink import Sink

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")

FAST = {"minimal_backoff_time": "1s", "maximal_backoff_time": "2s",
        "destination_suspend_time": "1s"}
BODY = b"Subject: disk\r\n\r\n" + b"0123456789abcdef\r\n" * 400
MIB = 1 << 20


class Disk:
    """ext4 for the spool on a loop device, whose image may have less room than the
    file system was told (then writes fail with EIO)."""

    def __init__(self, place, mib=48, backing_mib=None):
        self.backing = os.path.join(place, "backing")
        self.spool = os.path.join(place, "spool")
        self.image = os.path.join(self.backing, "image")
        os.makedirs(self.backing)
        os.makedirs(self.spool)
        # a shared mount below: what is unmounted here is so in all relays' namespaces
        self.call("mount", "--bind", self.spool, self.spool)
        self.call("mount", "--make-shared", self.spool)
        if backing_mib:
            self.call("mount", "-t", "tmpfs", "-o", f"size={backing_mib}m", "tmpfs", self.backing)
        self.has_backing = bool(backing_mib)
        with open(self.image, "wb") as f:
            f.truncate(mib * MIB)
        self.call("mkfs.ext4", "-q", "-F", "-m", "0", "-N", "400", "-E",
                  "lazy_itable_init=0,lazy_journal_init=0", self.image)
        self.mount()

    @staticmethod
    def call(*argv, good=(0,)):
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode in good, (argv, done)
        return done.stdout

    def mount(self):
        self.call("mount", "-o", "loop,errors=remount-ro", self.image, self.spool)
        self.call("rm", "-rf", os.path.join(self.spool, "lost+found"))

    def umount(self):
        wait_until(lambda: subprocess.run(["umount", self.spool], capture_output=True, timeout=60,
                                          check=False).returncode == 0, 20, "the unmounting")
        wait_until(lambda: not self.call("losetup", "-j", self.image), 20, "the device's release")

    def repair(self):
        """As an operator does: the file system is checked, and mounted again."""
        self.umount()
        self.call("e2fsck", "-f", "-y", self.image, good=(0, 1))
        self.mount()

    def device(self):
        mounts = self.call("findmnt", "-n", "-o", "SOURCE", self.spool).split()
        return os.path.basename(mounts[-1])

    def fill(self, directory=None):
        """Takes all room; a function that gives it back."""
        path = os.path.join(directory or self.spool, "filler")
        with open(path, "wb", buffering=0) as f:
            try:
                while True:
                    f.write(bytes(MIB))
            except OSError:
                pass
            try:
                while True:
                    f.write(bytes(512))
            except OSError:
                pass
        return lambda: os.unlink(path)

    def close(self):
        for _ in ("the disk", "the shared mount below"):
            subprocess.run(["umount", "-l", self.spool], check=False)
        if self.has_backing:
            subprocess.run(["umount", "-l", self.backing], check=False)


def recipients(sink):
    return {r for m in list(sink.messages) for r in m.recipients}


def submit_until(p, code, prefix, most=400, refused=()):
    """Submits until the reply has this code; those that were taken. Those that got one of
    the codes of `refused` before were not."""
    taken = []
    for i in range(most):
        got = p.attempt(f"{prefix}{i}@dst.test", BODY)
        if got == code:
            return taken
        if got in refused:
            continue
        assert got == 250, f"the reply is {got}, neither 250 nor {code}"
        taken.append(f"{prefix}{i}@dst.test")
    raise AssertionError(f"{most} messages and no {code}")


@pytest.fixture
def disk(place):
    d = Disk(place)
    yield d
    d.close()


def test_F21_F22_a_full_disk_without_a_reserve(place, disk):
    """Nothing but the file system itself says that there is no room."""
    port = free_port()
    faults = fault_points.Faults(place) if fault_points.available() else None
    with Postern(place, relayhost=f"[127.0.0.1]:{port}", queue_minfree="0",
                 queue_minfree_inodes="0", qmgr_free_files_limit="0",
                 environment=faults and faults.environment, **FAST) as p:
        wait_until(lambda: p.attempt("nobody@dst.test", BODY) == 250, 20, "the first 250")
        give_back = disk.fill()
        taken = submit_until(p, 452, "full")
        assert p.attempt("again@dst.test", BODY) == 452
        with Sink(port) as sink:
            sink.replies = {"nobody@dst.test": "550 5.1.1 nobody here"}
            wait_until(lambda: recipients(sink) >= set(taken), 30, "deliveries on a full disk")
            wait_until(lambda: "nobody@dst.test" in sink.attempts, 30, "the refusal")
            give_back()
            wait_until(lambda: p.attempt("room@dst.test", BODY) == 250, 30, "a 250 after that")
            if faults:  # the notice is made again after a minute
                faults.shift("mono", 61)
            wait_until(lambda: "a@src.test" in recipients(sink), 120, "the notice")
            wait_until(lambda: not p.spool_files(), 30, "an empty queue")
            counts = [m.recipients for m in sink.messages]
            assert counts.count(["a@src.test"]) == 1, "the notice came twice"
        assert not p.spool_files("corrupt") and not p.spool_files("tmp")


def test_F23_no_inodes_without_a_reserve(place, disk):
    port = free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{port}", queue_minfree="0",
                 queue_minfree_inodes="0", qmgr_free_files_limit="8", **FAST) as p:
        taken = submit_until(p, 452, "inode", 500)
        assert len(taken) > 100
        assert p.attempt("large@dst.test", BODY * 20) == 452
        with Sink(port) as sink:
            wait_until(lambda: recipients(sink) >= set(taken), 60, "the deliveries")
            wait_until(lambda: p.attempt("room@dst.test", BODY) == 250, 30, "a 250 after that")
            wait_until(lambda: "room@dst.test" in recipients(sink), 30, "its delivery")
        assert not p.spool_files("corrupt") and not p.spool_files("tmp")


def test_F26_the_kernel_makes_the_file_system_read_only(place, disk):
    """An error in the file system: no mail is taken, what is there is delivered, and
    after its repair and a restart all goes on."""
    port = free_port()
    with Postern(place, relayhost=f"[127.0.0.1]:{port}", queue_minfree="0",
                 queue_minfree_inodes="0", **FAST) as p:
        wait_until(lambda: p.attempt("first@dst.test", BODY) == 250, 20, "the first 250")
        with open(f"/sys/fs/ext4/{disk.device()}/trigger_fs_error", "w", encoding="ascii") as f:
            f.write("a test")
        submit_until(p, 451, "readonly", 3)
        wait_until(lambda: "bad" in p.ctl("status"), 10, "a status that says it")
        assert p.attempt("later@dst.test", BODY) == 451
        with Sink(port) as sink:
            wait_until(lambda: "first@dst.test" in recipients(sink), 30,
                       "a delivery from a spool that cannot be written")
            p.stop()
            disk.repair()
            p.start()
            wait_until(lambda: p.attempt("after@dst.test", BODY) == 250, 30, "a 250 after the repair")
            wait_until(lambda: "after@dst.test" in recipients(sink), 30, "its delivery")
            assert not {r for r in recipients(sink) if r.startswith(("later", "readonly"))}
        assert not p.spool_files("corrupt")


def test_F24_F25_the_device_answers_with_EIO(place):
    """The image has no room left behind the file system's back, as on a thin volume:
    writes that the kernel took fail when they are to be durable."""
    disk, port = Disk(place, mib=96, backing_mib=24), free_port()
    try:
        with Postern(place, relayhost=f"[127.0.0.1]:{port}", queue_minfree="0",
                     queue_minfree_inodes="0", qmgr_free_files_limit="0", **FAST) as p:
            wait_until(lambda: p.attempt("first@dst.test", BODY) == 250, 20, "the first 250")
            give_back = disk.fill(disk.backing)
            # what the kernel says of the last write before that, may be that there is no room
            taken = submit_until(p, 451, "eio", refused=[452])
            assert p.attempt("later@dst.test", BODY) == 451
            assert "bad" in p.ctl("status")
            p.stop()
            give_back()
            disk.repair()
            with Sink(port) as sink:
                p.start()
                owed = {"first@dst.test", *taken}
                wait_until(lambda: recipients(sink) >= owed, 60, "all that was acknowledged")
                wait_until(lambda: p.attempt("after@dst.test", BODY) == 250, 30, "a 250")
                wait_until(lambda: "after@dst.test" in recipients(sink), 30, "its delivery")
                assert "later@dst.test" not in recipients(sink)
    finally:
        disk.close()


def test_a_journal_on_another_file_system_is_not_used(place):
    spool, port = os.path.join(place, "spool"), free_port()
    journal = os.path.join(spool, "journal")
    with Postern(place, relayhost=f"[127.0.0.1]:{port}", **FAST) as p:
        wait_until(lambda: p.attempt("first@dst.test", BODY) == 250, 20, "the first 250")
        p.stop()
        owner = os.stat(journal)
        Disk.call("mount", "-t", "tmpfs", "-o",
                  f"size=4m,mode=700,uid={owner.st_uid},gid={owner.st_gid}", "tmpfs", journal)
        try:
            p.start()
            p.wait_log("journal/ is on another file system than new/")
            wait_until(lambda: p.attempt("second@dst.test", BODY) == 250, 20, "a 250")
            assert not os.listdir(journal)
            with Sink(port) as sink:
                wait_until(lambda: recipients(sink) >= {"first@dst.test", "second@dst.test"}, 30,
                           "both deliveries")
            p.stop()
        finally:
            Disk.call("umount", "-l", journal)


# ---- memory --------------------------------------------------------------------------

CGROUP = "/sys/fs/cgroup/memory"


@pytest.mark.skipif(not os.access(CGROUP + "/memory.limit_in_bytes", os.R_OK),
                    reason="no memory controller of cgroups v1 here")
def test_F29_the_kernel_kills_qmgr_for_want_of_memory(place):
    group, port, taken, done = f"{CGROUP}/postern-test-{os.getpid()}", free_port(), set(), \
        threading.Event()
    with Postern(place, relayhost=f"[127.0.0.1]:{port}", qmgr_free_files_limit="0", **FAST) as p:
        wait_until(lambda: p.attempt("first@dst.test", BODY) == 250, 20, "the first 250")
        (old,) = p.pids("qmgr")
        os.mkdir(group)
        try:
            with open(group + "/memory.limit_in_bytes", "w", encoding="ascii") as f:
                f.write(str(2 * MIB))
            with open(group + "/cgroup.procs", "w", encoding="ascii") as f:
                f.write(str(old))
            body = BODY * 8   # stays in qmgr's memory until it is delivered

            def load(k):
                i = 0
                while not done.is_set():
                    if p.attempt(f"oom{k}.{i}@dst.test", body) == 250:
                        taken.add(f"oom{k}.{i}@dst.test")
                    i += 1
            threads = [threading.Thread(target=load, args=(k,)) for k in range(3)]
            for t in threads:
                t.start()
            try:
                wait_until(lambda: p.pids("qmgr") not in ([], [old]), 60, "the kill")
            finally:
                done.set()
                for t in threads:
                    t.join()
            with open(group + "/memory.oom_control", encoding="ascii") as f:
                assert "oom_kill 0" not in f.read()
        finally:
            wait_until(lambda: not os.path.exists(f"/proc/{old}"), 10, "its end")
            os.rmdir(group)
        with Sink(port) as sink:
            owed = {"first@dst.test", *taken}
            wait_until(lambda: recipients(sink) >= owed, 90, "all that was acknowledged")
            wait_until(lambda: not p.spool_files(), 30, "an empty queue")
        assert not p.spool_files("corrupt")
