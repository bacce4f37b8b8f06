"""Postfix's own postconf, postqueue, postsuper, postcat, mailq and sendmail beside ours:
the same options on the same main.cf, or on a like queue, have to give the same output and
exit status (COMPAT). What differs by nature (queue IDs, times, sizes) is made equal first."""
import json
import os
import re
import shutil
import subprocess

import pytest

from peers import Postfix, needs_root, package_root
from postern import BIN, Postern, free_port, wait_until

MAIN_CF = """\
# what this relay is for
myhostname = relay.test
queue_directory = /var/spool/beside
mynetworks = 127.0.0.0/8,
# of the office
    192.0.2.0/24

    198.51.100.0/24
relayhost = [127.0.0.1]:25
transport_maps = texthash:$queue_directory/transport
smtpd_recipient_restrictions = permit_mynetworks, permit_sasl_authenticated,
   reject_unauth_destination, permit_mynetworks, permit_sasl_authenticated, reject
#relayhost = [192.0.2.1]
"""
MASTER_CF = """\
# service type  private unpriv  chroot  wakeup  maxproc command
smtp      inet  n       -       y       -       -       smtpd
127.0.0.1:587 inet n - y - 2 smtpd
  -o syslog_name=postfix/submission -o smtpd_tls_security_level=encrypt
# more of it
  -o mynetworks=
"""


class Both:
    """The two programs, each with a directory of its own that holds the same files."""

    def __init__(self, place):
        self.place = str(place)
        root = package_root("postfix")
        arch = subprocess.run(["dpkg-architecture", "-qDEB_HOST_MULTIARCH"], text=True,
                              capture_output=True, check=True).stdout.strip()
        self.environment = {**os.environ, "LD_LIBRARY_PATH":
                            f"{root}/usr/lib/{arch}:{root}/usr/lib/postfix"}
        self.theirs = os.path.join(root, "usr/sbin/postconf")
        self.ours = os.path.join(self.place, "postconf")
        os.symlink(os.path.join(BIN, "postern"), self.ours)
        for name in ("theirs", "ours"):
            os.mkdir(self.directory(name))
        self.write(MAIN_CF, MASTER_CF)

    def directory(self, name):
        return os.path.join(self.place, f"conf-{name}")

    def write(self, main_cf, master_cf=MASTER_CF):
        for name in ("theirs", "ours"):
            for file, text in (("main.cf", main_cf), ("master.cf", master_cf)):
                with open(os.path.join(self.directory(name), file), "w", encoding="utf-8") as f:
                    f.write(text)

    def files(self, name):
        out = []
        for file in ("main.cf", "master.cf"):
            with open(os.path.join(self.directory(name), file), encoding="utf-8") as f:
                out.append(f.read())
        return out

    def run(self, name, options):
        """(status, output, errors) without what is the program's or the directory's name."""
        done = subprocess.run([getattr(self, name), "-c", self.directory(name), *options],
                              env=self.environment if name == "theirs" else None, text=True,
                              capture_output=True, check=False, timeout=60,
                              stdin=subprocess.DEVNULL)
        def clean(text):
            text = text.replace(self.directory(name), "DIRECTORY").replace(self.theirs, "postconf")
            return [l for l in text.splitlines()
                    # it does not know which of its parameters ours may not have, nor we its
                    if "unused parameter" not in l
                    and "multiple entries" not in l
                    # we have none such; it is where -c says
                    and not re.match(r"config_directory( =|$)|DIRECTORY$", l)]
        return done.returncode, clean(done.stdout), clean(done.stderr)

    def compare(self, options, errors=True):
        theirs, ours = self.run("theirs", options), self.run("ours", options)
        if not errors:
            theirs, ours = theirs[:2], ours[:2]
        assert ours == theirs, options
        assert self.files("ours") == self.files("theirs"), options
        return ours


@pytest.fixture
def both(place):
    return Both(place)


SHOWN = ["-n", "-nf", "-nh", "-nH", "-nx", "myhostname mynetworks", "-h mynetworks",
         "-H relayhost", "-f smtpd_recipient_restrictions", "-d relayhost", "-dh relayhost",
         "transport_maps", "-p transport_maps", "-o relayhost=[192.0.2.9] relayhost",
         "-o myhostname=x.test -h myhostname", "no_such_thing", "myhostname no_such_thing relayhost",
         "-M", "-Mf", "-M smtp", "-M smtp/inet", "-M */inet", "-M smtp/unix", "-M nobody/inet",
         "-F", "-F smtp/inet", "-Fh smtp/inet/command", "-FH smtp", "-F */*/chroot",
         "-P", "-Ph", "-PH", "-P 127.0.0.1:587/inet", "-P */inet/syslog_name", "-P smtp/inet"]


@pytest.mark.parametrize("options", SHOWN)
def test_postconf_shows_the_same(both, options):
    status, out, errors = both.compare(options.split())
    assert status == 0 and (out or errors or options in ("-P smtp/inet",))


def test_postconf_expands_the_same(both):
    """$name in values: as they are written, and with -x what they stand for."""
    both.write("myhostname = a.test\nmyorigin = $myhostname\nrelayhost = [mx.${myorigin}]:26\n")
    assert both.compare(["relayhost"])[1] == ["relayhost = [mx.${myorigin}]:26"]
    assert both.compare(["-x", "relayhost"])[1] == ["relayhost = [mx.a.test]:26"]
    assert both.compare(["-xh", "myorigin"])[1] == ["a.test"]


CHANGES = [
    (["-e", "relayhost = [192.0.2.7]:587"], []),
    (["-e", "relayhost=[192.0.2.7]:587", "myhostname =  b.test "], []),
    (["relayhost=[192.0.2.7]"], []),                       # -e goes without saying
    (["-e", "mynetworks = 127.0.0.0/8"], []),              # over several lines, with a comment
    (["-e", "smtpd_banner = $myhostname ESMTP a=b"], []),  # a new one
    (["-e", "relayhost="], []),
    (["-#", "mynetworks"], []),
    (["-#", "relayhost", "transport_maps"], []),
    (["-#", "smtpd_banner"], []),                          # not there
    (["-X", "mynetworks", "smtpd_recipient_restrictions"], []),
    (["-X", "smtpd_banner"], []),
    (["-#", "relayhost"], ["-e", "relayhost=again"]),
]


@pytest.mark.parametrize("options, then", CHANGES)
def test_postconf_changes_main_cf_the_same(both, options, then):
    before = both.files("ours")
    for step in (options, then):
        if step:
            assert both.compare(step) == (0, [], [])
    assert before[1] == both.files("ours")[1]
    if "smtpd_banner" not in options:
        assert before[0] != both.files("ours")[0], "nothing was changed"


def test_postconf_takes_the_last_of_two(both):
    assert both.compare(["-e", "relayhost=a", "relayhost=b"]) == \
        (0, [], ["postconf: warning: ignoring earlier request: 'relayhost = a'"])


def test_postconf_keeps_mode_and_owner_and_follows_a_link(both):
    path = os.path.join(both.directory("ours"), "main.cf")
    real = os.path.join(both.place, "real.cf")
    os.rename(path, real)
    os.symlink(real, path)
    os.chmod(real, 0o640)
    if os.getuid() == 0:
        os.chown(real, 0, 12)
    before = os.stat(real)
    assert both.run("ours", ["-e", "relayhost=[192.0.2.7]"]) == (0, [], [])
    assert os.path.islink(path)
    after = os.stat(real)
    assert (before.st_mode, before.st_uid, before.st_gid) == \
        (after.st_mode, after.st_uid, after.st_gid)
    assert sorted(os.listdir(both.directory("ours"))) == ["main.cf", "master.cf"]


WRONG = ["-e", "-e foo", "-e =x", "-e #a=b", "-nd", "-en a=b", "-dX relayhost", "-n# relayhost",
         "-eX relayhost", "-hH relayhost", "-Md", "-Mn", "-Mh", "-MH", "-F smtp/inet/nothing"]


@pytest.mark.parametrize("options", WRONG)
def test_postconf_refuses_the_same(both, options):
    status, out, errors = both.compare(options.split())
    assert status == 1 and out == [] and errors[0].startswith("postconf: fatal: ")


@pytest.mark.parametrize("options", [["-z"], ["-c"], ["-e", "a=b\nc"], ["-X"], ["-#"]])
def test_postconf_refuses_with_the_same_status(both, options):
    assert both.compare(options, errors=False) == (1, [])


def test_postconf_adds_nothing_that_the_relay_would_refuse(both):
    """Here it is stricter: an unknown name would keep the relay from starting."""
    before = both.files("ours")
    status, out, errors = both.run("ours", ["-e", "relayhost=x", "smtp_no_such_thing=1"])
    assert (status, out) == (1, []) and both.files("ours") == before
    assert errors == ["postconf: fatal: smtp_no_such_thing: unknown parameter; main.cf was not "
                      "changed"]
    # a value may make sense only with what is changed next
    status, out, errors = both.run("ours", ["-e", "message_size_limit=1O"])
    assert status == 0 and "message_size_limit = 1O" in both.files("ours")[0]
    assert errors[0].startswith("postconf: warning: the relay would refuse this configuration: "
                                "main.cf:14: message_size_limit")
    status, _, errors = both.run("ours", ["-Me", "smtp/inet=smtp inet n - y - - smtpd"])
    assert status == 1 and "master.cf is changed with an editor" in errors[0]


# ---- the queue -------------------------------------------------------------------------

SENDERS = ["a@src.test", "", "b@src.test"]
CONTENT = b"Subject: beside\r\nMessage-ID: <1@src.test>\r\n\r\nfirst\r\n.second\r\n"


class LongIds(Postfix):
    def configure(self):
        super().configure()
        with open(os.path.join(self.etc, "postfix/main.cf"), "a", encoding="utf-8") as f:
            f.write("enable_long_queue_ids = yes\n")


class Queues:
    """The same three messages in both queues, with a next hop that is down."""

    def __init__(self, place):
        port = free_port()
        self.place = str(place)
        self.postfix = LongIds(place, relayhost=port)
        self.postern = Postern(os.path.join(self.place, "ours"), relayhost=f"[127.0.0.1]:{port}")
        self.port = port
        self.tools = os.path.join(self.place, "tools")
        os.mkdir(self.tools)
        shutil.copy(os.path.join(BIN, "postern"), os.path.join(self.tools, "postern"))
        for name in ("mailq", "postqueue", "postsuper", "postcat", "sendmail"):
            os.symlink("postern", os.path.join(self.tools, name))

    def __enter__(self):
        self.postfix.__enter__()
        self.postern.__enter__()
        wait_until(self.submitted, 30, "three messages in Postern's queue")
        for i, sender in enumerate(SENDERS):
            self.postfix.submit(sender, f"r{i}@dst.test", CONTENT)
        for name in ("theirs", "ours"):
            wait_until(lambda n=name: len(re.findall(r"refused\)|suspended", self.run(
                n, "postqueue -p")[1])) >= 3, 60, f"three deferred messages of {name}")
        return self

    def submitted(self):
        with self.postern.client() as c:
            c.ehlo()
            if c.mail("probe@src.test")[0] != 250:
                return False
        for i, sender in enumerate(SENDERS):
            self.postern.send(sender, [f"r{i}@dst.test"], CONTENT)
        return True

    def __exit__(self, *problem):
        self.postern.__exit__(*problem)
        self.postfix.__exit__(*problem)

    def run(self, name, command, text=None):
        """(status, output, errors) of a line of shell with this side's commands."""
        environment = {**os.environ, "TZ": "UTC"}
        if name == "theirs":
            with open(f"/proc/{self.postfix.process.pid}/task/{self.postfix.process.pid}/children",
                      encoding="ascii") as f:
                inside = f.read().split()[0]
            argv = ["nsenter", "-t", inside, "-m", "-p", "sh", "-c",
                    f"cd /; PATH=/usr/sbin:/usr/bin:/bin; {command}"]
        else:
            environment |= {"MAIL_CONFIG": self.postern.directory,
                            "PATH": self.tools + ":" + os.environ["PATH"]}
            argv = ["sh", "-c", command]
        done = subprocess.run(argv, env=environment, text=True, capture_output=True, check=False,
                              timeout=60, input=text or "")
        return done.returncode, done.stdout, done.stderr

    def ids(self, name):
        return re.findall(r"^([0-9A-Za-z]{6,})[*! ]", self.run(name, "mailq")[1], re.M)

    def normal(self, name, text):
        """Without what is not the same by nature."""
        for i, id in enumerate(self.ids(name)):
            text = text.replace(id, f"ID{i}")
        return text


@pytest.fixture(scope="module")
def queues(tmp_path_factory):
    place = tmp_path_factory.mktemp("beside")
    os.chmod(place, 0o755)
    for parent in place.parents:
        if str(parent).startswith("/tmp/"):
            os.chmod(parent, 0o755)
    with Queues(place) as q:
        yield q


def rows(text):
    """Of a list in mailq's form: columns, and what follows, without IDs, times and reasons."""
    out = []
    for line in text.splitlines():
        m = re.fullmatch(r"([0-9A-Za-z]+)([*!#]?) +(\d+) (\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d)( *\S.*)",
                         line)
        if m:
            out.append(("message", m[2], len(line) - len(m[5]) - len(str(m[5]).strip()) > 0, m[5]))
        elif re.match(r" *\(", line):
            out.append(("reason",))
        elif re.match(r"-- \d+ Kbytes in \d+ Request", line):
            out.append(re.sub(r"\d+ K", "N K", line))
        else:
            out.append(re.sub("-+Queue ID-+ .*", "heading", line))
    return out


@needs_root
@pytest.mark.parametrize("command", ["mailq", "postqueue -p", "sendmail -bp"])
def test_the_list_has_the_same_form(queues, command):
    (status, theirs, e1), (status2, ours, e2) = (queues.run(n, command) for n in ("theirs", "ours"))
    assert (status, e1) == (status2, e2) == (0, "")
    assert sorted(map(str, rows(ours))) == sorted(map(str, rows(theirs)))


@needs_root
def test_postqueue_j_has_the_same_keys(queues):
    lines = {}
    for name in ("theirs", "ours"):
        status, out, _ = queues.run(name, "postqueue -j")
        assert status == 0
        messages = sorted((json.loads(l) for l in out.splitlines()), key=lambda m: m["sender"])
        lines[name] = [(m["queue_name"], m["sender"], [r["address"] for r in m["recipients"]],
                        list(m), list(m["recipients"][0])) for m in messages]
    for theirs, ours in zip(lines["theirs"], lines["ours"], strict=True):
        assert ours[:3] == theirs[:3] and ours[4] == theirs[4]
        assert ours[3][:len(theirs[3])] == theirs[3], "additions come after"


@needs_root
@pytest.mark.parametrize("options", ["-q", "-bq", "-hq", "-bhq", "-eq"])
def test_postcat_has_the_same_parts(queues, options):
    shown = {}
    for name in ("theirs", "ours"):
        ids = {queues.run(name, f"postcat -eq {i}")[1].split("\nsender: ")[1].split("\n")[0]: i
               for i in queues.ids(name)}
        status, out, errors = queues.run(name, f"postcat {options} {ids['a@src.test']}")
        assert (status, errors) == (0, "")
        shown[name] = [l for l in out.splitlines() if re.match(
            r"\*\*\* [A-Z ]+|sender: |recipient: |original_recipient: |message_arrival_time: |"
            r"create_time: |Subject:|Message-ID:|first|\.second|$", l)]
        shown[name] = [re.sub(r"_time: .*|(?<=\*\*\* )([A-Z ]+) \S+ ", r"\1", l)
                       for l in shown[name]]
    assert shown["ours"] == shown["theirs"]


@needs_root
@pytest.mark.parametrize("command, status_only", [
    ("postqueue", False), ("postqueue -x", True), ("postqueue -p x", False),
    ("postqueue -i nonsense!", False), ("postqueue -s '*'", False), ("postsuper -d", True),
    ("postsuper -h nonsense!", False), ("postsuper -d ALL nowhere", False),
    ("postcat -q 4XyzBbCdfFz0001", False), ("postcat -q 'x/y'", False), ("postcat -Q", True)])
def test_what_is_wrong_is_refused_the_same(queues, command, status_only):
    """Ours is stricter with "postsuper -d all", which deletes nothing there and says so; and
    sendmail's wrong options are EX_USAGE here, not EX_TEMPFAIL, after which callers try again."""
    results = []
    for name in ("theirs", "ours"):
        status, out, errors = queues.run(name, command)
        results.append((status, out, "" if status_only else errors))
    assert results[1] == results[0]


@needs_root
def test_postsuper_says_the_same(queues):
    """Holds, releases, requeues and deletes; the last of all tests of this queue."""
    said = {}
    for name in ("theirs", "ours"):
        first, second, third = queues.ids(name)
        said[name] = []
        for command, text in ((f"postsuper -h {first}", None), ("postsuper -h -", f"{second}\n"),
                              ("postsuper -H ALL", None), (f"postsuper -r {third}", None),
                              (f"postsuper -d {first} -d {second}", None)):
            status, out, errors = queues.run(name, command, text)
            for i, id in enumerate((first, second, third)):
                errors = errors.replace(id, f"ID{i}")
            said[name].append((command.replace(first, "1").replace(second, "2").replace(third, "3"),
                               status, out, errors))
        queues.run(name, "postsuper -d ALL")
        said[name].append(queues.run(name, "postsuper -h ALL"))
        wait_until(lambda n=name: "empty" in queues.run(n, "mailq")[1], 20, "an empty queue")
        said[name].append(queues.run(name, "mailq"))
        said[name].append(queues.run(name, "postqueue -j"))
    assert said["ours"] == said["theirs"]
