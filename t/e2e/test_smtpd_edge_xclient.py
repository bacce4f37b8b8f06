"""XCLIENT and XFORWARD: what an authorised client says about the real one."""
import pytest

from smtpd_rig import MESSAGE, Client, Smtpd

TRUSTED, STRANGER = "127.0.0.1", "127.0.0.9"
XCLIENT = "XCLIENT NAME ADDR PORT PROTO HELO LOGIN DESTADDR DESTPORT"
XFORWARD = "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"


@pytest.fixture(scope="module")
def smtpd():
    with Smtpd(mynetworks="127.0.0.0/8 192.0.2.0/24", smtpd_hard_error_limit="1000",
               smtpd_soft_error_limit="1000", smtpd_client_connection_count_limit="3",
               smtpd_client_event_limit_exceptions="127.0.0.0/8",
               smtpd_authorized_xclient_hosts=TRUSTED,
               smtpd_authorized_xforward_hosts=TRUSTED) as s:
        yield s


def try_relay(client):
    client.expect("EHLO client.test", "250")
    client.expect("MAIL FROM:<a@src.test>", "250")
    return client.command("RCPT TO:<b@dst.test>")[0]


def test_announced_to_authorised_clients_only(smtpd):
    with smtpd.client() as c:
        text = c.expect("EHLO client.test", "250").split("\n")
        assert text[0] == "relay.test" and XCLIENT in text and XFORWARD in text
    with smtpd.client(source=STRANGER) as c:
        text = c.expect("EHLO client.test", "250")
        assert "XCLIENT" not in text and "XFORWARD" not in text
        c.expect("XCLIENT ADDR=192.0.2.1", "550 5.7.0")
        c.expect("XFORWARD ADDR=192.0.2.1", "550 5.7.0")


def test_xclient_makes_another_client(smtpd):
    with smtpd.client() as c:
        c.expect("EHLO proxy.test", "250")
        c.expect("XCLIENT NAME=mail.src.test ADDR=192.0.2.7 PORT=40001", "220 relay.test ESMTP")
        c.transaction()
        commit = smtpd.accept(c)
        c.command("QUIT")
    assert commit.client == b"mail.src.test[192.0.2.7]"
    assert b"from client.test (mail.src.test [192.0.2.7])" in commit.prefix
    smtpd.wait_log(r": client=mail\.src\.test\[192\.0\.2\.7\]$")
    smtpd.wait_log(r"disconnect from mail\.src\.test\[192\.0\.2\.7\] ehlo=2 .*xclient=1")


@pytest.mark.parametrize("attributes, code", [
    ("ADDR=203.0.113.7", 554),
    ("ADDR=IPV6:2001:db8::7 NAME=[UNAVAILABLE]", 554),
    ("ADDR=[UNAVAILABLE]", 554),
    ("ADDR=[TEMPUNAVAIL] NAME=[TEMPUNAVAIL]", 554),
    ("ADDR=192.0.2.9", 250),
    ("ADDR=203.0.113.7 LOGIN=user+40src.test", 250),
    ("ADDR=203.0.113.7 LOGIN=[UNAVAILABLE]", 554),
    ("HELO=other.test", 250),
])
def test_permission_is_the_real_clients(smtpd, attributes, code):
    with smtpd.client() as c:
        c.expect(f"XCLIENT {attributes}", "220")
        assert try_relay(c) == code


def test_client_without_address_and_login_in_the_log(smtpd):
    with smtpd.client() as c:
        c.expect("XCLIENT ADDR=[UNAVAILABLE] LOGIN=a+40b+0Ac", "220")
        c.transaction()
        commit = smtpd.accept(c)
    assert b"(unknown [unknown])" in commit.prefix
    smtpd.wait_log(r": client=unknown\[unknown\], sasl_method=XCLIENT, sasl_username=a@b\?c$")


def test_helo_and_proto_stand_in_for_the_commands(smtpd):
    with smtpd.client() as c:
        c.expect("XCLIENT ADDR=192.0.2.8 HELO=first.test PROTO=ESMTP", "220")
        c.expect("MAIL FROM:<a@src.test>", "250")
        c.expect("RCPT TO:<b@dst.test>", "250")
        c.data(MESSAGE + b".\r\n")
        commit = smtpd.accept(c)
    assert b"from first.test (unknown [192.0.2.8])" in commit.prefix
    assert b"with ESMTP id" in commit.prefix


@pytest.mark.parametrize("argument", [
    "", "ADDR", "ADDR=", "NAME=bad_name! ADDR=1.2.3.4", "ADDR=1.2.3", "ADDR=::1", "PORT=65536",
    "PROTO=LMTP", "HELO=a+20b", "IDENT=x", "ADDR=1.2.3.4 ADDR=1.2.3.4", "LOGIN=a+2"])
def test_bad_xclient_changes_nothing(smtpd, argument):
    with smtpd.client() as c:
        code, text = c.command(f"XCLIENT {argument}")
        if argument == "ADDR=":  # empty is unavailable
            assert code == 220
            return
        assert (code, text[:5]) == (501, "5.5.4")
        assert try_relay(c) == 250


def test_not_inside_a_transaction(smtpd):
    with smtpd.client() as c:
        c.envelope()
        c.expect("XCLIENT ADDR=203.0.113.7", "503 5.5.1")
        c.expect("XFORWARD ADDR=203.0.113.7", "503 5.5.1")
        c.data(MESSAGE + b".\r\n")
        smtpd.accept(c)


def test_limits_count_the_real_client(smtpd):
    clients = []
    for _ in range(3):
        clients.append(smtpd.client())
        clients[-1].expect("XCLIENT ADDR=203.0.113.99", "220")
    with smtpd.client() as c:
        c.expect("XCLIENT ADDR=203.0.113.99", "421")
        assert c.closed()
    clients[0].expect("XCLIENT ADDR=203.0.113.98", "220")
    with smtpd.client() as c:
        c.expect("XCLIENT ADDR=203.0.113.99", "220")
    for c in clients:
        c.sock.close()


def test_xforward_is_for_the_log_and_one_message(smtpd):
    with smtpd.client() as c:
        c.expect("EHLO filter.test", "250")
        c.expect("XFORWARD NAME=mail.src.test ADDR=IPV6:2001:db8::7 PROTO=ESMTP", "250 2.0.0")
        c.expect("XFORWARD IDENT=4bXyZ HELO=src.test SOURCE=REMOTE PORT=1", "250 2.0.0")
        ids = []
        for _ in range(2):
            c.expect("MAIL FROM:<a@src.test>", "250")
            c.expect("RCPT TO:<b@dst.test>", "250")
            c.data(MESSAGE + b".\r\n")
            commit = smtpd.accept(c)
            assert commit.client == b"unknown[127.0.0.1]"
            ids.append(commit.id.decode())
    smtpd.wait_log(rf"{ids[0]}: client=unknown\[127\.0\.0\.1\], orig_queue_id=4bXyZ, "
                   r"orig_client=mail\.src\.test\[2001:db8::7\]$")
    smtpd.wait_log(rf"{ids[1]}: client=unknown\[127\.0\.0\.1\]$")


@pytest.mark.parametrize("end", ["RSET", "EHLO again.test"])
def test_B19_xforward_ends_with_the_transaction(smtpd, end):
    with smtpd.client() as c:
        c.expect("XFORWARD NAME=mail.src.test ADDR=203.0.113.7 IDENT=old", "250")
        c.expect(end, "250")
        c.transaction()
        commit = smtpd.accept(c)
    smtpd.wait_log(rf"{commit.id.decode()}: client=unknown\[127\.0\.0\.1\]$")


@pytest.mark.parametrize("argument", ["", "NAME", "ADDR=x", "LOGIN=a", "SOURCE=MOON", "PORT=x"])
def test_bad_xforward(smtpd, argument):
    with smtpd.client() as c:
        c.expect(f"XFORWARD {argument}", "501 5.5.4")


def test_strangers_greeting_is_not_disturbed(smtpd):
    with Client(smtpd.port, source=STRANGER) as c:
        assert try_relay(c) == 250
