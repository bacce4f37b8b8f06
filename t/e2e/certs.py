"""Certificates for tests, made by OpenSSL's command: an authority, and what it
signs.

    ca = Authority(directory)
    good = ca.server("mx.test", "*.other.test")   # good.chain, good.key, good.context()
    ca.pem                                        # what trusts it
    good.tlsa(3, 1, 1)                            # "3 1 1 0123..."
"""
import hashlib
import os
import ssl
import subprocess


def run(*args, text=None):
    return subprocess.run(["openssl", *args], check=True, capture_output=True, timeout=60,
                          input=text).stdout


class Certificate:
    def __init__(self, directory, name, authority=None):
        self.path = os.path.join(directory, name)
        self.key, self.certificate = self.path + ".key", self.path + ".pem"
        self.chain, self.authority = self.path + ".chain", authority

    def context(self, versions=None):
        """For a server of Python's ssl."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.chain, self.key)
        if versions:
            context.minimum_version, context.maximum_version = versions
        return context

    def tlsa(self, usage, selector, matching):
        """The text of a TLSA record for this certificate."""
        form = ["x509", "-in", self.certificate]
        if selector == 0:
            data = run(*form, "-outform", "DER")
        else:
            data = run("pkey", "-pubin", "-outform", "DER", text=run(*form, "-noout", "-pubkey"))
        if matching:
            data = (hashlib.sha256 if matching == 1 else hashlib.sha512)(data).digest()
        return f"{usage} {selector} {matching} {data.hex()}"


class Authority(Certificate):
    def __init__(self, directory, name="ca"):
        super().__init__(directory, name)
        self.directory, self.count = directory, 0
        run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", self.key, "-out", self.certificate, "-days", "30",
            "-subj", f"/CN={name} of the tests")

    @property
    def pem(self):
        with open(self.certificate, encoding="ascii") as f:
            return f.read()

    def below(self, length, name):
        """A certificate for `name` with `length` authorities between it and this one."""
        above, between = self, []
        for _ in range(length):
            self.count += 1
            c = Authority.__new__(Authority)
            Certificate.__init__(c, self.directory, f"between-{self.count}", above)
            c.directory, c.count = self.directory, 0
            config = c.path + ".ext"
            with open(config, "w", encoding="ascii") as f:
                f.write("basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign\n")
            run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
                "-keyout", c.key, "-out", c.path + ".csr", "-subj", f"/CN=between {self.count}")
            run("x509", "-req", "-in", c.path + ".csr", "-CA", above.certificate, "-CAkey",
                above.key, "-CAcreateserial", "-days", "30", "-extfile", config,
                "-out", c.certificate)
            between.insert(0, c)
            above = c
        server = above.server(name)
        with open(server.chain, "w", encoding="ascii") as out:
            for part in [server, *between, self]:
                with open(part.certificate, encoding="ascii") as f:
                    out.write(f.read())
        return server

    def server(self, *names, days="30", self_signed=False, names_text=None):
        """A certificate for these names; days may be negative (expired)."""
        self.count += 1
        c = Certificate(self.directory, f"{os.path.basename(self.path)}-{self.count}", self)
        san = names_text or ",".join(
            f"IP:{n}" if n.replace(".", "").isdigit() else f"DNS:{n}" for n in names)
        config = c.path + ".ext"
        with open(config, "w", encoding="ascii") as f:
            f.write(f"subjectAltName={san}\nbasicConstraints=CA:FALSE\n")
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-keyout", c.key, "-out", c.path + ".csr", "-subj", "/CN=server of the tests")
        signer = ["-signkey", c.key] if self_signed else \
            ["-CA", self.certificate, "-CAkey", self.key, "-CAcreateserial"]
        run("x509", "-req", "-in", c.path + ".csr", *signer, "-days", days, "-extfile", config,
            "-out", c.certificate)
        with open(c.chain, "w", encoding="ascii") as out:
            for part in [c] if self_signed else [c, self]:
                with open(part.certificate, encoding="ascii") as f:
                    out.write(f.read())
        return c
