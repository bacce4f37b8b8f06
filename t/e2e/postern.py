"""A whole Postern in a directory of its own, for end-to-end tests.

As root it runs as in production (users and chroots; the users exist in a
private mount namespace only), otherwise unprivileged.

    with Postern(tmp_path, relayhost=f"[127.0.0.1]:{sink.port}") as p:
        p.send("a@src.test", ["b@dst.test"], b"Subject: x\\r\\n\\r\\nbody\\r\\n")
        sink.wait(1)
"""
import json
import os
import re
import select
import signal
import smtplib
import socket
import subprocess
import time

import logs

from patience import stretched

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BUILD = os.environ.get("POSTERN_BUILD", os.path.join(ROOT, "build"))
BIN = os.path.join(BUILD, "bin")


PORTS_GIVEN = set()  # the kernel may name one twice before it is in use


def free_port():
    while True:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            port = s.getsockname()[1]
        if port not in PORTS_GIVEN:
            PORTS_GIVEN.add(port)
            return port


def pause(seconds=0.02):
    """One step of a bounded wait for a condition."""
    select.select([], [], [], seconds)


def wait_until(condition, timeout=20.0, what="the condition"):
    began = time.monotonic()
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() - began < stretched(timeout), f"{what} did not come true within {timeout} s"
        pause()


def write_accounts(directory):
    """passwd and group with Postern's users added, from the package's list."""
    users, groups = [], []
    with open(os.path.join(ROOT, "debian/postern.sysusers"), encoding="utf-8") as f:
        for n, line in enumerate(l.split() for l in f if l[:2] in ("u ", "g ")):
            uid = 64200 + n
            groups.append(f"{line[1]}:x:{uid}:\n")
            if line[0] == "u":
                users.append(f"{line[1]}:x:{uid}:{uid}::/nonexistent:/usr/sbin/nologin\n")
    for name, extra in (("passwd", users), ("group", groups)):
        with open(f"/etc/{name}", encoding="utf-8") as f:
            kept = [l for l in f if "postern" not in l.split(":")[0]]
        with open(os.path.join(directory, name), "w", encoding="utf-8") as f:
            f.writelines(kept + extra)


def in_namespace(directory, argv):
    """argv, run where Postern's users exist, which is nowhere else. What a test unmounts
    outside is unmounted in there too, so that nobody's disk stays busy."""
    write_accounts(directory)
    script = ('mount --bind "$0/passwd" /etc/passwd && mount --bind "$0/group" /etc/group'
              ' && exec "$@"')
    return ["unshare", "-m", "--propagation", "slave", "sh", "-c", script, directory, *argv]


class Postern:
    """Configuration, process and tools of one running relay."""

    def __init__(self, directory, master_cf=None, start=True, environment=None, **config):
        self.directory = str(directory)
        self.port = free_port()
        self.process = None
        self.environment = {**os.environ, **(environment or {})}
        os.makedirs(self.directory, exist_ok=True)
        # service users must be able to reach the directory before their chroot
        path = self.directory
        while os.getuid() == 0 and path not in ("/", "/tmp"):
            os.chmod(path, os.stat(path).st_mode | 0o111)
            path = os.path.dirname(path)
        self.master_cf = master_cf or f"127.0.0.1:{self.port} inet n - y - 1 smtpd\n"
        self.config = {
            "myhostname": "relay.test", "queue_directory": "spool", "data_directory": "data",
            "pid_directory": "run", "program_directory": BIN, "maillog_file": "log",
            "event_log_file": "events.json", "mynetworks": "127.0.0.0/8",
            "queue_minfree": "1m", "qmgr_free_files_limit": "256", "queue_journal_size": "1m",
            "service_restart_delay": "0s", **config}
        self.write_config()
        if start:
            self.start()

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        self.stop()

    def path(self, *names):
        return os.path.join(self.directory, *names)

    def write_config(self, **changes):
        self.config.update(changes)
        with open(self.path("main.cf"), "w", encoding="utf-8") as f:
            f.writelines(f"{k} = {v}\n" for k, v in self.config.items())
        with open(self.path("master.cf"), "w", encoding="utf-8") as f:
            f.write(self.master_cf)

    def start(self, timeout=30.0):
        argv = [os.path.join(BIN, "master"), "-c", self.directory]
        if os.getuid() == 0:
            argv = in_namespace(self.directory, argv)
        with open(self.path("stderr"), "ab") as err:
            self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=err,
                                            stderr=err, env=self.environment)
        wait_until(self._answers, timeout, "a greeting")
        self._await_ready(timeout)

    def _await_ready(self, timeout):
        """Until all services run; those that a test lets die at the start need not."""
        log, began = self.config["maillog_file"], time.monotonic()
        ready = f"master[{self.process.pid}]: ready: "
        if not os.path.isfile(self.path(log)):  # a pipe, the system's log
            return
        logs.remember(self.path(log))
        while ready not in self._read(log) and self.process.poll() is None \
                and time.monotonic() - began < stretched(timeout):
            pause()

    def _answers(self):
        assert self.process.poll() is None, self.stderr() + self.log()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as s:
                return s.recv(512).startswith(b"220")
        except OSError:
            return False

    def stop(self, timeout=30.0):
        if not self.process:
            return
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(stretched(timeout))
            except subprocess.TimeoutExpired:
                for pid in [self.process.pid, *self.pids()]:
                    os.kill(pid, signal.SIGKILL)
                self.process.wait()
                raise AssertionError("master did not stop\n" + self.log()[-5000:]) from None
        self.process = None
        bad = [l for l in self.log().splitlines() if "panic:" in l]
        assert not bad, bad
        assert "Sanitizer" not in self.stderr(), self.stderr()

    def kill(self):
        """As a power cut for the processes: all at once, none may say goodbye."""
        pids = [self.process.pid, *self.pids()]
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.process.wait()
        self.process = None
        wait_until(lambda: not any(os.path.exists(f"/proc/{p}") for p in pids), 10, "their end")

    def pids(self, service=None):
        """Process IDs of master's children, or of one service."""
        out = []
        try:
            with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children",
                      encoding="ascii") as f:
                children = [int(x) for x in f.read().split()]
        except FileNotFoundError:
            return out
        for pid in children:
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as f:
                    argv = f.read().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            program = os.path.basename(argv[0].decode())
            if program != "master" and service in (None, program):
                out.append(pid)
        return out

    def _read(self, name):
        try:
            with open(self.path(name), encoding="utf-8", errors="replace") as f:
                return f.read()
        except FileNotFoundError:
            return ""

    def log(self):
        return self._read("log")

    def stderr(self):
        return self._read("stderr")

    def events(self):
        return [json.loads(l) for l in self._read("events.json").splitlines()]

    def wait_log(self, pattern, timeout=20.0):
        return wait_until(lambda: re.search(pattern, self.log(), re.M), timeout,
                          f"{pattern!r} in the log")

    def client(self, timeout=30):
        return smtplib.SMTP("127.0.0.1", self.port, "client.test", timeout)

    def attempt(self, recipient, content):
        """Submits once; the code of the reply that ended it, 0 for none."""
        try:
            with self.client() as c:
                c.ehlo()
                c.sendmail("a@src.test", [recipient], content)
                return 250
        except smtplib.SMTPRecipientsRefused as e:
            return next(iter(e.recipients.values()))[0]
        except smtplib.SMTPResponseException as e:
            return e.smtp_code
        except (smtplib.SMTPServerDisconnected, OSError):
            return 0

    def send(self, sender, recipients, content, mail_options=(), rcpt_options=()):
        """Submits one message; returns its queue ID."""
        with self.client() as c:
            c.ehlo()
            code, text = c.mail(sender, list(mail_options))
            assert code == 250, (code, text)
            for r in recipients:
                code, text = c.rcpt(r, list(rcpt_options))
                assert code == 250, (r, code, text)
            code, text = c.data(content)
            assert code == 250, (code, text)
            return text.decode().rsplit(" ", 1)[-1]

    def ctl(self, *args, check=True):
        """Runs `postern`; the standard output."""
        argv = [os.path.join(BIN, "postern"), "-c", self.directory, *args]
        if os.getuid() == 0 and args[0] in ("check", "reload"):
            argv = in_namespace(self.directory, argv)  # they look for the services' users
        done = subprocess.run(argv, capture_output=True, text=True, timeout=stretched(60), check=False,
                              stdin=subprocess.DEVNULL)
        if check:
            assert done.returncode == 0, (args, done.returncode, done.stdout, done.stderr)
            return done.stdout
        return done

    def spool_files(self, folder="new"):
        found = []
        for base, _, names in os.walk(self.path("spool", folder)):
            found += [os.path.join(base, n) for n in names]
        return found
