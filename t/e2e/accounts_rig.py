"""quota alone, with stand-ins for smtpd and qmgr, and its socket."""
import base64
import hashlib
import hmac
import json
import os
import secrets
import shutil
import socket
import tempfile

from ipc import FakeMaster
from qmgr_peers import new_id

OK, FAILED, DENIED, TOO_MANY, TEMPORARY, NONE = range(6)
RESERVED, DELIVERED, REFUNDED = range(3)
FRESH, HELD_RATE, HELD, LETTER = 1, 2, 4, 8  # enum charge_flag
CLIENT = b"\xc0\x00\x02\x01"


class Refused(Exception):
    """An {"error": ...} of the accounts' socket."""


class Quota:
    OTHERS = ("ipc_account_notice", "ipc_charges_query", "ipc_heartbeat", "ipc_mail_forget",
              "ipc_account_pool")

    def __init__(self, plans="", config=None, directory=None, environment=None, ready=None):
        self.directory = directory or tempfile.mkdtemp(prefix="postern-")
        self.own_directory = not directory
        os.chmod(self.directory, 0o755)
        accounts = os.path.join(self.directory, "data", "accounts")
        os.makedirs(accounts, exist_ok=True)
        os.chmod(accounts, 0o777)
        # an empty database lets qmgr wait until something was changed in it
        self.ready = os.path.exists(os.path.join(accounts, "db")) if ready is None else ready
        self.socket_path = os.path.join(self.directory, "accounts")
        if os.path.exists(self.socket_path):
            os.unlink(self.socket_path)
        values = dict(accounts_enable="yes", accounts_minfree="0", scram_iterations="4096")
        values.update(config or {})
        self.master = FakeMaster("quota", values, directory=self.directory,
                                 listen=[self.socket_path], environment=environment)
        if plans:
            self.master.table("plans_file", 0, "plans.conf", plans)
            self.master.wait_log("plans read from")
        self.smtpd = self.master.peer("smtpd")
        self.smtpd.expect("ipc_quota_state")
        self.qmgr = self.master.peer("qmgr")
        self.key, self.first = secrets.token_bytes(32), 1 << 40
        self.qmgr.send("ipc_token_key", key=self.key, first=self.first)
        if self.ready:
            self.qmgr.expect("ipc_charges_ready")
        self.tag = self.batch = 0
        self.connection = None

    # ---- the socket

    def connect(self):
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.settimeout(20)
        self.connection.connect(self.socket_path)
        self.lines = self.connection.makefile("rb")

    def ask(self, request, **members):
        """Results and the last line."""
        if not self.connection:
            self.connect()
        self.connection.sendall(json.dumps({"request": request, **members}).encode() + b"\n")
        results = []
        while True:
            line = self.lines.readline()
            assert line, "the connection was closed\n" + self.master.log()
            value = json.loads(line)
            if "error" in value:
                raise Refused(value["error"])
            if value.get("done"):
                if not self.ready and request in ("account.add", "import") and \
                        not members.get("more"):
                    self.ready = True
                    self.qmgr.expect("ipc_charges_ready")
                return results, value
            results.append(value)

    def one(self, request, **members):
        (result,), _ = self.ask(request, **members)
        return result

    def account(self, name="acme", user="web", password="secret", domain="acme.test", **members):
        self.ask("account.add", account=name, **members)
        if user:
            self.ask("user.add", login=user, account=name, password=password)
        if domain:
            self.ask("domain.add", account=name, domain=domain)

    def usage(self, account="acme", **members):
        return self.one("usage.show", account=account, **members)

    # ---- smtpd

    def next_tag(self):
        self.tag += 1
        return self.tag

    def login(self, user="web", password="secret", client=CLIENT):
        self.smtpd.send("ipc_auth_password", tag=self.next_tag(), client=client, user=user,
                        password=password, flags=1)
        return self.smtpd.expect("ipc_auth_result")

    def mail(self, ticket, sender="a@acme.test", size=0):
        self.smtpd.send("ipc_mail_request", tag=self.next_tag(), ticket=ticket, client=CLIENT,
                        sender=sender, size=size)
        return self.smtpd.expect("ipc_mail_answer")

    def reserve(self, ticket, recipients=1, size=1000, sender="a@acme.test",
                authors=("a@acme.test",), id=None):
        id = id or new_id()
        self.smtpd.send("ipc_reserve", tag=self.next_tag(), ticket=ticket, id=id, client=CLIENT,
                        sender=sender, authors=[dict(address=a) for a in authors],
                        recipients=recipients, size=size)
        answer = self.smtpd.expect("ipc_reserved")
        answer.id = id
        return answer

    # ---- qmgr

    def charges(self, charges=(), settlements=(), wait=True):
        self.batch += 1
        self.qmgr.send("ipc_charges", batch=self.batch, charges=list(charges),
                       settlements=list(settlements))
        released = []  # may come at any time; they are for who asks for them
        while wait:
            message = self.qmgr.receive()
            assert message and message.name in ("ipc_charged", "ipc_charges_release", *self.OTHERS), \
                message
            if message.name == "ipc_charges_release":
                released.append(message)
            if message.name == "ipc_charged" and message.batch >= self.batch:
                self.qmgr.queue[:0] = released
                return

    def charge(self, id, owner="acme/web", size=1000, recipients=1, flags=FRESH, **more):
        self.charges([dict(id=id, owner=owner, arrival=1, size=size, recipients=recipients,
                           flags=flags)], **more)

    def settle(self, id, state=DELIVERED, recipients=(), **fields):
        packed = b"".join(i.to_bytes(4, "little") for i in recipients)
        self.charges((), [dict(id=id, state=state, recipients=packed, **fields)])

    def sent(self, ticket, state=DELIVERED, **fields):
        """A whole message: reserved, charged, settled."""
        answer = self.reserve(ticket, **fields)
        assert answer.code == 0, answer
        self.charge(answer.id, size=fields.get("size", 1000), recipients=fields.get("recipients", 1),
                    owner=answer.owner, flags=FRESH | (HELD_RATE if answer.flags & 128 else 0) |
                    (HELD if answer.flags & 32 else 0))
        if state is not None:
            self.settle(answer.id, state)
        return answer

    # ---- ends

    def kill(self):
        self.master.process.kill()
        self.master.process.wait()

    def again(self, plans="", config=None, environment=None):
        """A new process on the same database."""
        return Quota(plans, config, self.directory, environment, self.ready)

    def stop(self, remove=True):
        for peer in (self.smtpd, self.qmgr):
            peer.close()
        if self.connection:
            self.connection.close()
        self.master.stop()
        if remove:
            shutil.rmtree(self.directory, ignore_errors=True)


def scram(quota, user, password, client=CLIENT, header="n,,"):
    """A client of RFC 5802: the answer, and the server's proof that it has to have."""
    bare = f"n={user},r=clientnonce"
    quota.smtpd.send("ipc_auth_scram", tag=quota.next_tag(), client=client, message=header + bare)
    while (answer := quota.smtpd.receive()).name in ("ipc_mail_forget", "ipc_heartbeat"):
        pass
    if answer.name == "ipc_auth_result":
        return answer, None
    challenge = answer.message.decode()
    parts = dict(p.split("=", 1) for p in challenge.split(","))
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), base64.b64decode(parts["s"]),
                                 int(parts["i"]))
    key = hmac.new(salted, b"Client Key", "sha256").digest()
    without = f"c={base64.b64encode(header.encode()).decode()},r={parts['r']}"
    message = f"{bare},{challenge},{without}".encode()
    signature = hmac.new(hashlib.sha256(key).digest(), message, "sha256").digest()
    proof = base64.b64encode(bytes(a ^ b for a, b in zip(key, signature))).decode()
    quota.smtpd.send("ipc_auth_response", tag=quota.tag, message=f"{without},p={proof}")
    answer = quota.smtpd.expect("ipc_auth_result")
    server = hmac.new(salted, b"Server Key", "sha256").digest()
    expected = base64.b64encode(hmac.new(server, message, "sha256").digest())
    return answer, b"v=" + expected
