"""Lookup tables that are servers, for tests: they answer by Postfix's tcp_table(5)
or socketmap_table(5), or misbehave.

    table = TcpTable({"a@b.test": "smtp:[127.0.0.1]:2525"})
    table.spec                     # "tcp:127.0.0.1:40123"
    table.answer = lambda key: ... # a value; None: not there; bytes: sent as they are;
                                   # SILENT; CLOSE; an exception's text: ask later
    table.keys, table.connections  # what was asked; how often somebody connected
"""
import os
import socket
import threading
from urllib.parse import quote, unquote_to_bytes

SILENT, CLOSE = object(), object()


class Later(Exception):
    """The table says that it cannot answer now."""


class _Server:
    def __init__(self, values, address):
        self.values, self.keys, self.connections, self.open = values, [], 0, []
        self.answer = lambda key: self.values.get(key)
        self.address = address
        self.listen()

    def listen(self):
        """Also after close(): at the same address."""
        path = isinstance(self.address, str)
        if path and os.path.exists(self.address):
            os.unlink(self.address)
        self.socket = socket.socket(socket.AF_UNIX if path else socket.AF_INET)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.address)
        if path:
            os.chmod(self.address, 0o666)
        self.address = self.socket.getsockname()
        self.socket.listen(64)
        threading.Thread(target=self._accept, args=(self.socket,), daemon=True).start()

    @property
    def where(self):
        return f"unix:{self.address}" if isinstance(self.address, str) \
            else f"inet:{self.address[0]}:{self.address[1]}"

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            self.open.append(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        try:
            with connection, connection.makefile("rb") as stream:
                while (key := self.read(stream)) is not None:
                    self.keys.append(key)
                    try:
                        value = self.answer(key)
                    except Later as e:
                        value = self.later(str(e))
                    if value is CLOSE:
                        return
                    if value is not SILENT:
                        connection.sendall(value if isinstance(value, bytes)
                                           else self.reply(value))
        except OSError:
            pass  # it has hung up

    def hang_up(self):
        """Closes all connections from this side."""
        for connection in self.open:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.open.clear()

    def close(self):
        """Harmless if it is closed."""
        try:
            self.socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.socket.close()
        self.hang_up()


class TcpTable(_Server):
    def __init__(self, values=None, address=("127.0.0.1", 0)):
        super().__init__(values or {}, address)
        self.spec = f"tcp:{self.address[0]}:{self.address[1]}"

    @staticmethod
    def read(stream):
        line = stream.readline()
        if not line:
            return None
        assert line.startswith(b"get ") and line.endswith(b"\n"), line
        return unquote_to_bytes(line[4:-1]).decode("utf-8", "surrogateescape")

    @staticmethod
    def reply(value):
        return b"500 no\n" if value is None else f"200 {quote(value, safe='[]:@./')}\n".encode()

    @staticmethod
    def later(text):
        return f"400 {text}\n".encode()


class Socketmap(_Server):
    def __init__(self, values=None, address=("127.0.0.1", 0), name="routes"):
        super().__init__(values or {}, address)
        self.name = name
        self.spec = f"socketmap:{self.where}:{name}"

    def read(self, stream):
        digits = b""
        while (c := stream.read(1)) != b":":
            if not c:
                return None
            digits += c
        body = stream.read(int(digits))
        assert stream.read(1) == b","
        name, key = body.split(b" ", 1)
        assert name.decode() == self.name
        return key.decode("utf-8", "surrogateescape")

    @staticmethod
    def netstring(text):
        return f"{len(text)}:{text},".encode()

    def reply(self, value):
        return self.netstring("NOTFOUND " if value is None else f"OK {value}")

    def later(self, text):
        return self.netstring(f"TEMP {text}")
