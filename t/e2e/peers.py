"""Other people's mail servers, as relays in front of Postern and as destinations.

t/peers unpacks Debian's packages without installing them. A server runs here in
mount and process namespaces of its own, with its package laid over /usr and its
configuration and accounts over /etc, on a port of 127.0.0.1; it ends with its
namespace. This needs root.

    with Postfix(place, relayhost=p.port) as server:          # hands all mail to p
    with Exim(place) as server:                               # keeps what it gets
        server.wait(1)[0]                                     # (recipient, content)
"""
import glob
import os
import re
import shutil
import signal
import smtplib
import socket
import subprocess

import pytest

from postern import free_port, wait_until

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="mail servers start as root")
STORE_UID = 64110  # of the user that owns delivered mail
MAILBOXES = [f"r{i}" for i in range(40)]  # @dst.test: who gets mail at a server that stores
TRACE = re.compile(rb"(?:(?:Received|Return-Path|Delivered-To|Envelope-to|Delivery-date"
                   rb"|X-Original-To): ?[^\n]*\n(?:[ \t][^\n]*\n)*)+", re.I)


def folder():
    """Where t/peers put the packages: found by a program that it made."""
    tool = shutil.which("smtp-sink")
    assert tool, "no smtp-sink: run t/peers DIR and put DIR/bin into PATH, as check does"
    return os.path.dirname(os.path.dirname(os.path.realpath(tool)))


def without_trace(content):
    """Content without the header lines that servers on its way put before it."""
    m = TRACE.match(content)
    return content[m.end():] if m else content


def write_file(directory, name, text):
    path = os.path.join(directory, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        f.write(text)


def write_etc(etc, users, groups):
    """What /etc must have for a program: accounts, and lookups that ask no server."""
    users = {**users, "store": STORE_UID}
    groups = {**users, **groups}
    added = {"passwd": "".join(f"{n}:x:{i}:{i}::/nonexistent:/usr/sbin/nologin\n"
                               for n, i in users.items()),
             "group": "".join(f"{n}:x:{i}:\n" for n, i in groups.items())}
    for name, lines in added.items():
        with open(f"/etc/{name}", encoding="utf-8") as f:
            kept = [l for l in f if l.split(":")[0] not in groups]
        write_file(etc, name, "".join(kept) + lines)
    write_file(etc, "hosts", "127.0.0.1 localhost\n")
    write_file(etc, "nsswitch.conf", "passwd: files\ngroup: files\nshadow: files\n"
                                     "hosts: files\nservices: files\nprotocols: files\n")
    write_file(etc, "resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
    write_file(etc, "mailname", "peer.test\n")


def package_root(package):
    found = os.path.join(folder(), package)
    assert os.path.isdir(found), f"{found} is missing: run t/peers"
    return found


def laid_over(etc, package):
    """Lines of shell for a new mount namespace: the package over /usr, its files over /etc."""
    return (f"set -e\nmount -t overlay overlay -o lowerdir={etc}:/etc /etc\n"
            f"mount -t overlay overlay -o lowerdir={package_root(package)}/usr:/usr /usr\n")


class Peer:
    """One server. Subclasses say how it is configured and started."""
    package = None      # folder of t/peers
    users = {}          # name: number, with a group of the same name each
    groups = {}

    def __init__(self, place, relayhost=None, certificate=None):
        """With a certificate (certs.py) it offers STARTTLS; as a relay it demands it of
        the next hop, whose certificate it does not verify."""
        self.port = free_port()
        self.certificate = certificate
        self.directory = os.path.join(str(place), type(self).__name__.lower())
        self.etc = os.path.join(self.directory, "etc")
        self.store = os.path.join(self.directory, "store")
        self.relayhost = relayhost
        self.process = None
        for name in (self.etc, self.store):
            os.makedirs(name)
        os.chmod(self.directory, 0o755)
        os.chown(self.store, STORE_UID, STORE_UID)
        write_etc(self.etc, self.users, self.groups)
        self.configure()

    def configure(self):
        """Writes the configuration below self.etc."""
        raise NotImplementedError

    def prepare(self):
        """Lines of shell that run in the namespace before the server."""
        return ""

    def argv(self):
        raise NotImplementedError

    def write(self, name, text):
        write_file(self.etc, name, text)

    def __enter__(self):
        script = (f"{laid_over(self.etc, self.package)}"
                  "mount -t tmpfs -o mode=755 tmpfs /var/spool\n"
                  "mount -t tmpfs -o mode=755 tmpfs /var/lib\n"
                  "mount -t tmpfs -o mode=755 tmpfs /run\n"
                  "mount -t tmpfs -o mode=1777 tmpfs /dev/shm\n"
                  "mount -t proc proc /proc\n"
                  f"{self.prepare()}\n\"$@\" &\nwait $!\n")
        with open(os.path.join(self.directory, "output"), "ab") as out:
            self.process = subprocess.Popen(
                ["unshare", "--mount", "--propagation", "slave", "--pid", "--fork",
                 "--kill-child", "sh", "-c", script, "sh", *self.argv()],
                stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        try:
            wait_until(self._answers, 60, f"a greeting of {type(self).__name__}")
        except AssertionError:
            self.__exit__(AssertionError, None, None)
            raise
        return self

    def __exit__(self, kind, value, trace):
        if kind:
            print(self.output()[-5000:])
        self.process.send_signal(signal.SIGKILL)  # takes the whole namespace with it
        self.process.wait()

    def _answers(self):
        assert self.process.poll() is None, self.output()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 10) as s:
                return s.recv(512).startswith(b"220")
        except OSError:
            return False

    def output(self):
        """What the server said and logged."""
        found = ""
        for path in [os.path.join(self.directory, "output"),
                     *sorted(glob.glob(os.path.join(self.directory, "log", "*")))]:
            with open(path, encoding="utf-8", errors="replace") as f:
                found += f.read()
        return found

    # as a relay in front of Postern

    def submit(self, sender, recipient, content, options=()):
        """Hands the server a message by SMTP, for it to pass on."""
        self.submit_to_many(sender, [recipient], content, options)

    def submit_to_many(self, sender, recipients, content, options=()):
        with smtplib.SMTP("127.0.0.1", self.port, "user.test", 60) as c:
            c.ehlo()
            for code, text in (c.mail(sender, options), *map(c.rcpt, recipients), data(c, content)):
                assert code == 250, (code, text)

    # as a destination

    def messages(self):
        """(user, content) of each stored message; content has LF as line end."""
        found = []
        for path in glob.glob(os.path.join(self.store, "*", "new", "*")):
            with open(path, "rb") as f:
                found.append((os.path.basename(os.path.dirname(os.path.dirname(path))), f.read()))
        return found

    def wait(self, count, timeout=120):
        def there():
            return len(glob.glob(os.path.join(self.store, "*", "new", "*"))) >= count
        wait_until(there, timeout, f"message {count} in the store")
        return self.messages()


def assert_same(name, have, want):
    """Equal contents; else where they begin to differ."""
    if have != want:
        at = len(os.path.commonprefix([have, want]))
        raise AssertionError(f"{name}: {len(want)} bytes became {len(have)}; at {at} "
                             f"{want[at - 40:at + 40]} became {have[at - 40:at + 40]}")


def data(client, content):
    """DATA with exactly this content: smtplib's own changes line ends."""
    code, text = client.docmd("DATA")
    if code != 354:
        return code, text
    client.send(re.sub(rb"(?m)^\.", b"..", content) + b".\r\n")
    return client.getreply()


class Postfix(Peer):
    package = "postfix"
    users, groups = {"postfix": 64101}, {"postdrop": 64102}

    def configure(self):
        for name in ("postfix-files", "dynamicmaps.cf", "post-install", "postfix-script"):
            path = os.path.join(package_root("postfix"), "etc/postfix", name)
            if os.path.exists(path):
                os.makedirs(os.path.join(self.etc, "postfix"), exist_ok=True)
                shutil.copy(path, os.path.join(self.etc, "postfix", name))
        os.makedirs(os.path.join(self.directory, "log"))
        where = f"relayhost = [127.0.0.1]:{self.relayhost}\n" if self.relayhost else (
            f"virtual_mailbox_domains = static:all\nvirtual_mailbox_base = {self.store}\n"
            "virtual_mailbox_maps = texthash:/etc/postfix/mailboxes\nvirtual_mailbox_limit = 0\n"
            f"virtual_uid_maps = static:{STORE_UID}\nvirtual_gid_maps = static:{STORE_UID}\n")
        self.write("postfix/mailboxes", "".join(f"{u}@dst.test {u}/\n" for u in MAILBOXES))
        self.write("postfix/main.cf", (
            "compatibility_level = 3.6\nmyhostname = postfix.test\nmydestination =\n"
            "local_recipient_maps =\nalias_maps =\nmynetworks = 127.0.0.0/8\n"
            "inet_protocols = ipv4\ninet_interfaces = loopback-only\nmessage_size_limit = 0\n"
            # what it takes is passed on as it is
            "local_header_rewrite_clients =\nsmtp_line_length_limit = 0\n"
            "smtpd_relay_restrictions = permit_mynetworks, reject\nsmtpd_peername_lookup = no\n"
            + self.tls() +
            f"maillog_file = {self.directory}/log/maillog\n"
            f"maillog_file_prefixes = {self.directory}\n" + where))
        internal = ("cleanup", "bounce", "defer", "trace", "flush", "showq", "rewrite", "verify",
                    "error", "retry", "discard", "virtual", "smtp", "scache", "anvil", "proxymap")
        program = {"defer": "bounce", "trace": "bounce", "rewrite": "trivial-rewrite",
                   "retry": "error"}
        public, single = ("cleanup", "flush", "showq"), ("scache", "anvil", "verify")
        self.write("postfix/master.cf", (
            "tlsmgr unix - - n 1000? 1 tlsmgr\n"
            f"127.0.0.1:{self.port} inet n - n - - smtpd\n"
            "qmgr unix n - n 300 1 qmgr\npickup unix n - n 60 1 pickup\n"
            "postlog unix-dgram n - n - 1 postlogd\n"
            + "".join(f"{n} unix {'n' if n in public else '-'} {'n' if n == 'virtual' else '-'} n -"
                      f" {1 if n in single else 0} {program.get(n, n)}\n" for n in internal)))

    def tls(self):
        if not self.certificate:
            return "smtp_tls_security_level = none\n"
        return ("smtpd_tls_security_level = may\nsmtp_tls_security_level = encrypt\n"
                f"smtpd_tls_chain_files = {self.certificate.key}, {self.certificate.chain}\n"
                "smtp_tls_loglevel = 1\nsmtpd_tls_loglevel = 1\n")

    def prepare(self):
        private = "active bounce corrupt defer deferred flush hold incoming private saved trace"
        return (f"chmod 755 {self.directory}/log\n"
                "mkdir -p /var/spool/postfix/pid && cd /var/spool/postfix\n"
                f"mkdir -m 700 {private} && chown postfix {private}\n"
                "mkdir -m 730 maildrop && mkdir -m 710 public\n"
                "chown postfix:postdrop maildrop public\n"
                "mkdir -m 755 /var/lib/postfix && chown postfix /var/lib/postfix")

    def argv(self):
        return ["/usr/lib/postfix/sbin/master", "-d"]


class Exim(Peer):
    package = "exim"
    users = {"Debian-exim": 64103}

    def configure(self):
        route = ("smart:\n  driver = manualroute\n  route_list = * 127.0.0.1\n  self = send\n"
                 "  transport = out\n" if self.relayhost else
                 "stored:\n  driver = accept\n  transport = store\n")
        self.write("exim4/exim4.conf", (
            "primary_hostname = exim.test\nspool_directory = /var/spool/exim4\n"
            f"log_file_path = {self.directory}/log/%s\nlocal_interfaces = 127.0.0.1\n"
            f"daemon_smtp_ports = {self.port}\nacl_smtp_rcpt = accept\nhost_lookup =\n"
            f"rfc1413_query_timeout = 0s\nmessage_size_limit = 0\n{self.tls()}"
            "check_spool_space = 0\ncheck_log_space = 0\naccept_8bitmime = true\n"
            # header lines of any length come from the bodies without a separator
            "header_maxsize = 100M\nheader_line_maxsize = 100M\n"
            f"begin routers\n{route}"
            "begin transports\nout:\n  driver = smtp\n"
            f"  port = {self.relayhost or 25}\n"
            f"  {'hosts_require_tls' if self.certificate else 'hosts_avoid_tls'} = *\n"
            "  message_linelength_limit = 100M\n"
            "store:\n  driver = appendfile\n  maildir_format\n"
            # the table says which mailboxes there are: exim takes no peer's text for a path
            f"  directory = {self.store}/${{lookup{{$local_part}}lsearch{{/etc/users}}}}\n"
            "  user = store\n  group = store\n  delivery_date_add\n  return_path_add\n"
            "begin retry\n* * F,2h,5s\n"))
        self.write("users", "".join(f"{u}: {u}\n" for u in MAILBOXES))

    def tls(self):
        if not self.certificate:
            return "tls_advertise_hosts =\n"
        key = os.path.join(self.etc, "exim4", "key")    # it reads it as its own user
        os.makedirs(os.path.dirname(key))
        shutil.copy(self.certificate.key, key)
        os.chown(key, 0, self.users["Debian-exim"])
        os.chmod(key, 0o640)
        return (f"tls_advertise_hosts = *\ntls_certificate = {self.certificate.chain}\n"
                f"tls_privatekey = {key}\n")

    def prepare(self):
        return ("mkdir -m 750 /var/spool/exim4\nchown Debian-exim:Debian-exim /var/spool/exim4\n"
                f"mkdir -p {self.directory}/log\nchown Debian-exim {self.directory}/log")

    def argv(self):
        return ["/usr/sbin/exim4", "-bdf", "-q1m"]


class Opensmtpd(Peer):
    package = "opensmtpd"
    users = {"opensmtpd": 64104, "opensmtpq": 64105}

    def configure(self):
        pki, offer, scheme, verify = "", "", "smtp+notls", ""
        if self.certificate:
            pki = (f'pki opensmtpd.test cert "{self.certificate.chain}"\n'
                   f'pki opensmtpd.test key "{self.certificate.key}"\n')
            offer, scheme, verify = "tls pki opensmtpd.test", "smtp+tls", "tls no-verify"
        relay = f'relay host {scheme}://127.0.0.1:{self.relayhost} {verify}'
        action = relay if self.relayhost else (
            f'maildir "{self.store}/%{{dest.user}}" virtual <all>')
        self.write("smtpd.conf", (
            f'{pki}table all {{ "@" = "store" }}\nsmtp max-message-size 100M\n'
            f"listen on 127.0.0.1 port {self.port} {offer} hostname opensmtpd.test\n"
            f'action "out" {action}\nmatch from any for any action "out"\n'))

    def prepare(self):
        return ("mkdir -p /var/spool/smtpd /var/lib/opensmtpd/empty && chmod 711 /var/spool/smtpd\n"
                "cd /var/spool/smtpd\nmkdir -m 700 corrupt incoming queue temporary purge\n"
                "chown opensmtpq:root corrupt incoming queue temporary purge\n"
                "mkdir -m 770 offline && chown root:opensmtpq offline\ncd /")

    def argv(self):
        return ["/usr/sbin/smtpd", "-d"]


class Dovecot(Peer):
    """LMTP into Maildirs."""
    package = "dovecot"
    users = {"dovecot": 64106, "dovenull": 64107}

    def configure(self):
        self.write("dovecot/dovecot.conf", (
            f"protocols = lmtp\nlisten = 127.0.0.1\n{self.tls()}base_dir = /run/dovecot\n"
            f"log_path = {self.directory}/dovecot.log\n"
            f"mail_location = maildir:{self.store}/%n\nmail_uid = store\nmail_gid = store\n"
            f"first_valid_uid = {STORE_UID}\nauth_username_format = %n\n"
            f"passdb {{\n  driver = static\n  args = nopassword=y\n}}\n"
            f"userdb {{\n  driver = static\n  args = uid=store gid=store home={self.store}/%n "
            "allow_all_users=yes\n}\n"
            "service lmtp {\n  inet_listener lmtp {\n    address = 127.0.0.1\n"
            f"    port = {self.port}\n  }}\n}}\n"))

    def tls(self):
        if not self.certificate:
            return "ssl = no\n"
        return (f"ssl = yes\nssl_cert = <{self.certificate.chain}\n"
                f"ssl_key = <{self.certificate.key}\n")

    def argv(self):
        return ["/usr/sbin/dovecot", "-F", "-c", "/etc/dovecot/dovecot.conf"]
