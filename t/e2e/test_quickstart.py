"""./quickstart as a newcomer runs it, with the programs of this build, on a network of its own."""
import os
import re
import shutil
import subprocess

import pytest

from peers import needs_root
from postern import BIN, ROOT, in_namespace

WITHOUT_ROOT = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
# what else listens on this machine: a mail system on all addresses
TAKEN = ("import socket, subprocess, sys; s = socket.create_server(('0.0.0.0', 587)); "
         "sys.exit(subprocess.run(sys.argv[1:]).returncode)")


def quickstart(directory, *options, before=(), place=None):
    """Its exit status and what it says."""
    place = place or os.path.join(directory, "quickstart")
    argv = [*before, os.path.join(ROOT, "quickstart"), *options]
    script = ["sh", "-c", 'ip link set lo up && exec "$@"', "sh", *argv]
    alone = ["unshare", "--net"] + ([] if os.getuid() == 0 else ["--user", "--map-current-user",
                                                                "--keep-caps"])
    if os.getuid() == 0:
        script = in_namespace(directory, script)
    done = subprocess.run([*alone, *script], stdin=subprocess.DEVNULL, capture_output=True,
                          text=True, timeout=180, check=False,
                          env={**os.environ, "QUICKSTART_DIR": place, "QUICKSTART_BIN": BIN})
    return done.returncode, done.stdout + done.stderr


def assert_shown(directory, said, ports):
    """Mail went through all three, as said, and the customer's was counted."""
    place = os.path.join(directory, "quickstart")
    with open(os.path.join(place, "log"), encoding="utf-8") as f:
        log = f.read()
    assert "TLS connection established from" in log
    for method, port in (("PLAIN", ports[1]), ("LOGIN", ports[2])):
        assert re.search(rf"sasl_method={method}, sasl_username=web@acme.example$", log, re.M)
        assert re.search(rf"^\$ swaks --server 127.0.0.25:{port} .*--auth {method}", said, re.M), said
    assert f"$ swaks --server 127.0.0.25:{ports[0]} --from you@customer.example" in said
    assert re.search(r"^delivered: +2$", said, re.M), said
    subjects = re.findall(r"^  \S+@\S+ +(.*)$", said, re.M)
    assert {"a first message", "a second one", "Your message could not be delivered"} <= set(subjects)
    assert "carol@down.example" in said and "deferred" in said
    assert not os.path.exists(os.path.join(place, "run/master.pid"))


@pytest.fixture(name="place")
def _place(tmp_path):
    path = tmp_path
    while os.getuid() == 0 and str(path) not in ("/", "/tmp"):
        os.chmod(path, os.stat(path).st_mode | 0o111)
        path = path.parent
    return str(tmp_path)


@needs_root
def test_as_root_it_uses_the_usual_ports(place):
    status, said = quickstart(place)
    assert status == 0, said
    assert_shown(place, said, (25, 587, 465))
    assert "cannot be used" not in said
    # again, over what the first run has left
    status, said = quickstart(place)
    assert status == 0, said
    assert_shown(place, said, (25, 587, 465))


@needs_root
def test_a_port_that_is_taken_is_left_alone(place):
    status, said = quickstart(place, before=("/usr/bin/python3", "-c", TAKEN))
    assert status == 0, said
    assert "Port 587 of 127.0.0.25 cannot be used: another program has it. So these are" in said
    assert_shown(place, said, (2525, 2587, 2465))


def test_without_root(place):
    inner = os.path.join(place, "own")
    os.mkdir(inner, 0o755)
    if os.getuid() == 0:
        os.chown(inner, 65534, 65534)
    status, said = quickstart(place, before=WITHOUT_ROOT if os.getuid() == 0 else (),
                              place=os.path.join(inner, "quickstart"))
    assert status == 0, said
    if os.getuid() == 0:
        assert "Without root all services run as nobody, without chroots." in said
        assert "Port 25 of 127.0.0.25 cannot be used: only root may use it." in said
        assert_shown(inner, said, (2525, 2587, 2465))


@needs_root
def test_a_directory_of_somebody_else_is_not_touched(place):
    theirs = os.path.join(place, "quickstart")
    os.mkdir(theirs)
    os.chown(theirs, 65534, 65534)
    status, said = quickstart(place)
    assert status != 0 and "is somebody else's; name another place: QUICKSTART_DIR=" in said, said
    assert os.listdir(theirs) == []
    shutil.rmtree(theirs)
