"""LMTP over a UNIX socket by the whole relay: only sockets that the operator has
written down, with the rights of relay's user."""
import os
import pwd
import socket
import struct

import pytest

from postern import Postern, free_port, wait_until
from relay_rig import Script, plain
from table_servers import TcpTable

BODY = b"Subject: x\r\n\r\nbody\r\n"
LHLO = {"verb": "LHLO"}


@pytest.fixture
def path(place):
    return f"{place}/lmtp"


def relay(place, transport_maps, **config):
    return Postern(f"{place}/p", transport_maps=transport_maps, minimal_backoff_time="1s",
                   relayhost=f"[127.0.0.1]:{free_port()}", **config)


def table(place, text):
    name = f"{place}/transport"
    with open(name, "w", encoding="utf-8") as f:
        f.write(text)
    return f"texthash:{name}"


def user_of(place, peer):
    """Name of the user that the server sees at the other end."""
    with open(f"{place}/p/passwd", encoding="utf-8") as f:
        names = {int(line.split(":")[2]): line.split(":")[0] for line in f}
    return names[peer]


def test_a_socket_of_a_text_table(place, path):
    peers = []

    def session(c):
        raw = c.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        peers.append(struct.unpack("3i", raw)[1])
        c.mail_session(**LHLO)
    with Script(session, path=path) as server, \
            relay(place, table(place, f"dst.test lmtp:unix:{path}\n")) as p:
        p.send("a@src.test", ["b@dst.test"], BODY)
        line = p.wait_log(rf"relay=relay\.test\[{path}\], .*status=sent")
        assert "conn_use" not in line[0]
        assert server.connections[0].commands[2] == "RCPT TO:<b@dst.test>"
        if os.getuid() == 0:
            assert user_of(place, peers[0]) == "_postern-relay"
        else:
            assert peers == [os.getuid()] and pwd.getpwuid(peers[0])


def test_a_table_that_begins_to_name_it(place, path):
    with Script(plain(**LHLO), path=path), \
            relay(place, table(place, "dst.test retry:4.3.0 not yet\n")) as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], BODY)
        p.wait_log(rf"{queue_id}: .*status=deferred")
        table(place, f"dst.test lmtp:unix:{path}\n")
        p.wait_log("transport_maps: a file has changed")
        wait_until(lambda: p.ctl("queue", "requeue", "--all") and
                   f"{queue_id}: removed" in p.log(), 30, "delivery")


def test_a_socket_that_nobody_wrote_down(place, path):
    """A server's answer alone opens no socket; lmtp_permit_sockets does."""
    routes = TcpTable({"b@dst.test": f"lmtp:unix:{path}"})
    with Script(plain(**LHLO), path=path) as server, relay(place, routes.spec) as p:
        queue_id = p.send("a@src.test", ["b@dst.test"], BODY)
        p.wait_log(rf"{queue_id}: .*status=deferred .*no text table names this socket")
        assert not server.connections
        p.write_config(lmtp_permit_sockets=f"/run/other, {path}")
        p.ctl("reload")
        wait_until(lambda: p.ctl("queue", "requeue", "--all") and
                   f"{queue_id}: removed" in p.log(), 30, "delivery")
        assert len(server.connections) == 1
    routes.close()


@pytest.mark.skipif(os.getuid() != 0, reason="needs services that have users of their own")
def test_a_socket_that_is_not_for_our_user(place, path):
    with Script(plain(**LHLO), path=path) as server, \
            relay(place, table(place, f"dst.test lmtp:unix:{path}\n")) as p:
        os.chmod(path, 0o700)
        queue_id = p.send("a@src.test", ["b@dst.test"], BODY)
        p.wait_log(rf"{queue_id}: .*status=deferred .*Permission denied for user _postern-relay")
        assert not server.connections


def test_lmtp_permit_sockets_takes_paths_only(place):
    p = relay(place, "", start=False, lmtp_permit_sockets="unix:/run/lmtp")
    with pytest.raises(AssertionError):
        p.start(10)
    assert "lmtp_permit_sockets" in p.stderr() and "begin with /" in p.stderr()
