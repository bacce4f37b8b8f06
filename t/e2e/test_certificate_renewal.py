"""Certificates that are renewed while others of the same service cannot be read."""
import re
import ssl

import faults as fault_points
import pytest

from postern import wait_until
from test_smtpd_tls import Relay
from tls_rig import make, starttls, write_secret


def text(path):
    with open(path, encoding="ascii") as f:
        return f.read()


def der(made):
    return ssl.PEM_cert_to_DER_cert(text(made.certificate))


class Whose:
    """As Relay wants it."""

    def __init__(self, relay):
        self.relay = relay


class Names:
    """A relay with certificates for all names, one.test and two.test; and newer ones."""

    def __init__(self, directory, **config):
        (directory / "new").mkdir()
        self.main, self.one, self.two = (make(directory, f"{n}.test") for n in
                                         ("main", "one", "two"))
        self.new_main, self.new_one, self.new_two = (make(directory / "new", f"{n}.test") for n in
                                                     ("main", "one", "two"))
        self.table = str(directory / "sni")
        write_secret(self.table, f"one.test {self.one.file}\ntwo.test {self.two.file}\n")
        self.relay = Relay(directory / "r", Whose(self.main),
                           smtpd_tls_chain_files=self.main.file,
                           tls_server_sni_maps=f"texthash:{self.table}", **config)

    def shown(self, name):
        with starttls(self.relay.port, name=name) as c:
            return c.sock.getpeercert(True)

    def awaited(self, name, made):
        wait_until(lambda: self.shown(name) == der(made), 30, f"the certificate of {name}")


@pytest.fixture(name="names", params=["keyd", "smtpd"])
def _names(request, tmp_path):
    made = Names(tmp_path, smtpd_tls_key_process=request.param)
    with made.relay:
        yield made


def test_a_broken_file_stands_in_no_others_way(names):
    p = names.relay
    write_secret(names.two.file, "garbage\n")
    p.wait_log(rf"error: .*renewed certificate: {names.two.file}: there is no certificate in it.*; "
               "the old one stays in use; all others are taken", 30)
    write_secret(names.one.file, text(names.new_one.file))
    write_secret(names.main.file, text(names.new_main.file))
    names.awaited("one.test", names.new_one)
    names.awaited("main.test", names.new_main)
    assert names.shown("two.test") == der(names.two)
    write_secret(names.two.file, text(names.new_two.file))
    names.awaited("two.test", names.new_two)


def test_a_new_name_with_a_broken_file(names):
    """It has the certificate of all others, which are renewed."""
    write_secret(names.main.file + ".three", "garbage\n")
    write_secret(names.table, text(names.table) + f"three.test {names.main.file}.three\n")
    names.relay.wait_log(r"error: .*\.three: .*; this name has no certificate of its own", 30)
    write_secret(names.one.file, text(names.new_one.file))
    names.awaited("one.test", names.new_one)
    assert names.shown("three.test") == der(names.main)
    write_secret(names.main.file + ".three", text(names.new_two.file))
    names.awaited("three.test", names.new_two)


def test_a_wrong_line_of_a_table_stands_in_no_others_way(names):
    write_secret(names.table, f"one.test {names.one.file}\ntwo.test\nthree.test x\n")
    names.relay.wait_log(rf"error: .*renewed certificate: {names.table}:2: .*; this line is left "
                         "out; all others are taken", 30)
    names.relay.wait_log(rf"{names.table}:3: .*; this line is left out", 5)
    write_secret(names.one.file, text(names.new_one.file))
    names.awaited("one.test", names.new_one)
    assert names.shown("two.test") == der(names.two), "its line was right once"
    write_secret(names.two.file, text(names.new_two.file))
    names.awaited("two.test", names.new_two)
    write_secret(names.table, f"2.test {names.two.file}\n")
    names.awaited("2.test", names.new_two)
    names.awaited("two.test", names.main)


def test_a_table_that_cannot_be_read_stands_in_no_others_way(names):
    """The names that were in it stay, and what is renewed of them is taken."""
    lines = text(names.table)
    write_secret(names.table, " one.test is behind a space\n" + lines)
    names.relay.wait_log(rf"error: .*renewed certificate: {names.table}:1: .*; the names that were "
                         "in it stay; all others are taken", 30)
    for name, new in (("one", names.new_one), ("main", names.new_main)):
        write_secret(getattr(names, name).file, text(new.file))
        names.awaited(f"{name}.test", new)
    assert names.shown("two.test") == der(names.two)
    write_secret(names.table, f"one.test {names.one.file}\n")
    names.awaited("two.test", names.new_main)
    assert names.shown("one.test") == der(names.new_one)


def test_a_broken_file_of_authorities_stands_in_no_renewal_s_way(tmp_path):
    ca = str(tmp_path / "ca.pem")
    (tmp_path / "ca").mkdir()
    authority = make(tmp_path / "ca", "ca.test")
    write_secret(ca, text(authority.certificate))
    names = Names(tmp_path, smtpd_tls_CAfile=ca)
    with names.relay as p:
        write_secret(ca, "garbage\n")
        p.wait_log(rf"error: .*renewed certificate: {ca}: there is no certificate in it.*; the "
                   "authorities that were in it stay; all others are taken", 30)
        write_secret(names.main.file, text(names.new_main.file))
        names.awaited("main.test", names.new_main)


@pytest.mark.skipif(not fault_points.available(), reason="built without fault points")
def test_what_is_wrong_is_told_each_day(tmp_path, place):
    """Until it is mended, by master, whose clock goes on in days here."""
    faults = fault_points.Faults(place)
    names = Names(tmp_path, environment={"POSTERN_FAULT_MASTER": faults.path})
    with names.relay as p:
        write_secret(names.two.file, "garbage\n")
        wrong = (f"error: master.cf:1: renewed certificate: {re.escape(names.two.file)}: there is no "
                 "certificate in it")
        p.wait_log(wrong, 30)
        for days in (1, 2):
            assert len(re.findall(wrong, p.log())) == days
            faults.shift("mono", days * 86400 + 60)
            wait_until(lambda n=days: len(re.findall(wrong, p.log())) > n, 10, "the next day's line")
        write_secret(names.two.file, text(names.new_two.file))
        names.awaited("two.test", names.new_two)
