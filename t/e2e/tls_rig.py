"""Certificates and clients for tests of TLS in smtpd.

    relay = make(directory, "relay.test")            # ECDSA, self-signed
    relay.file                                       # private key and chain, for smtpd_tls_chain_files
    with Postern(..., **relay.config) as p, starttls(p.port) as c: ...
"""
import os
import re
import smtplib
import socket
import ssl

from certs import run


class Made:
    """A key and its certificate in files of their own and in one."""

    def __init__(self, directory, name, kind="ec", by=None, days="30", san=None):
        path = os.path.join(str(directory), f"{name}-{kind}")
        self.name, self.key, self.certificate, self.file = (
            name, path + ".key", path + ".pem", path + ".chain")
        key = (["ec", "-pkeyopt", "ec_paramgen_curve:P-256"] if kind == "ec" else [kind])
        san = san if san is not None else f"DNS:{name}"
        if by:
            run("req", "-newkey", *key, "-nodes", "-keyout", self.key, "-out", path + ".csr",
                "-subj", f"/CN={name}")
            with open(path + ".ext", "w", encoding="ascii") as f:
                f.write("basicConstraints=CA:TRUE\n" + (f"subjectAltName={san}\n" if san else ""))
            run("x509", "-req", "-in", path + ".csr", "-CA", by.certificate, "-CAkey", by.key,
                "-CAcreateserial", "-days", days, "-extfile", path + ".ext",
                "-out", self.certificate)
        else:
            run("req", "-x509", "-newkey", *key, "-nodes", "-keyout", self.key,
                "-out", self.certificate, "-days", days, "-subj", f"/CN={name}",
                *(["-addext", f"subjectAltName={san}"] if san else []))
        self.chain(*([by] if by else []))
        self.config = {"smtpd_tls_security_level": "may", "smtpd_tls_chain_files": self.file}

    def chain(self, *above):
        """Writes the file with the key, the certificate and those above it."""
        text = "".join(open(f, encoding="ascii").read() for f in
                       [self.key, self.certificate, *(a.certificate for a in above)])
        write_secret(self.file, text)
        os.chmod(self.key, 0o600)

    def fingerprint(self):
        out = run("x509", "-in", self.certificate, "-noout", "-fingerprint", "-sha256").decode()
        return out.strip().split("=")[1]


make = Made


def write_secret(path, text):
    """Replaces a file as certificate tools do: whole, and for its owner only."""
    with open(path + ".new", "w", encoding="ascii", opener=lambda p, f: os.open(p, f, 0o600)) as f:
        f.write(text)
    os.rename(path + ".new", path)


def context(client=None, versions=None, trust=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.check_hostname = False
    c.verify_mode = ssl.CERT_NONE
    if trust:
        c.load_verify_locations(trust)
        c.verify_mode = ssl.CERT_REQUIRED
    if client:
        c.load_cert_chain(client.certificate, client.key)
    if versions:
        c.minimum_version, c.maximum_version = versions
    return c


def starttls(port, ctx=None, name=None):
    """A client that has changed to TLS and said EHLO."""
    c = smtplib.SMTP("127.0.0.1", port, "client.test", 20)
    try:
        c.ehlo()
        if name is None:
            assert c.starttls(context=ctx or context())[0] == 220
        else:
            assert c.docmd("STARTTLS")[0] == 220
            c.sock = (ctx or context()).wrap_socket(c.sock, server_hostname=name)
            c.file = None
        c.ehlo()
    except BaseException:
        c.close()
        raise
    return c


def wrapped(port, ctx=None, session=None):
    """A socket with TLS from the first byte."""
    s = socket.create_connection(("127.0.0.1", port), 20)
    try:
        return (ctx or context()).wrap_socket(s, session=session)
    except BaseException:
        s.close()
        raise


def common_name(sock):
    """Of the certificate that the server showed."""
    der = sock.getpeercert(binary_form=True)
    text = run("x509", "-inform", "DER", "-noout", "-subject", text=der).decode()
    return re.search(r"CN = (\S+)", text)[1]


def client_hello(name):
    """A ClientHello record with any bytes as its server name."""
    host = b"\x00" + len(name).to_bytes(2, "big") + name
    listed = len(host).to_bytes(2, "big") + host
    extensions = b"\x00\x00" + len(listed).to_bytes(2, "big") + listed
    extensions += b"\x00\x0a\x00\x04\x00\x02\x00\x17" + b"\x00\x0d\x00\x06\x00\x04\x04\x03\x08\x04"
    body = (b"\x03\x03" + b"r" * 32 + b"\x00" + b"\x00\x02\xc0\x2b" + b"\x01\x00"
            + len(extensions).to_bytes(2, "big") + extensions)
    message = b"\x01" + len(body).to_bytes(3, "big") + body
    return b"\x16\x03\x01" + len(message).to_bytes(2, "big") + message
