"""A DNS server on loopback with zones that a test gives, and able to misbehave.

    dns = DnsServer()
    dns.add("example.org", "MX", "10 mx.example.org")
    dns.add("mx.example.org", "A", "127.0.0.5")
    dns.servfail("broken.example.org")        # every type; or name, "MX"
    dns.silent("dead.example.org")            # never answers
    dns.raw("odd.example.org", "MX", [b"", b"\\0"])   # rdata as given
    dns.mangle("evil.example.org", lambda wire, tcp: wire[:20])   # or a list of packets
    ... resolver_nameservers = dns.address ...
    dns.asked("example.org", "MX")            # how often
    dns.stop()

It answers as a recursive server: CNAME chains are followed, RA is set.
"""
import socket
import socketserver
import struct
import threading
import time

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdata
import dns.rdataclass
import dns.rdataset
import dns.rdatatype
import dns.rrset

UDP_MAX = 1232


class DnsServer:
    def __init__(self, host="127.0.0.1"):
        self.records, self.faults, self.queries = {}, {}, []
        self.lock = threading.Lock()
        self.negative_ttl = 300
        server = self

        class Udp(socketserver.BaseRequestHandler):
            def handle(self):
                wire, sock = self.request
                reply = server.answer(wire, tcp=False)
                if reply is not None:
                    for packet in reply if isinstance(reply, list) else [reply]:
                        sock.sendto(packet, self.client_address)

        class Tcp(socketserver.StreamRequestHandler):
            def handle(self):
                while True:
                    head = self.rfile.read(2)
                    if len(head) < 2:
                        return
                    reply = server.answer(self.rfile.read(struct.unpack("!H", head)[0]), tcp=True)
                    if reply is None:
                        return
                    length = server.tcp_length if server.tcp_length else len(reply)
                    self.wfile.write(struct.pack("!H", length) + reply)
                    if server.tcp_length:
                        return

        class TcpServer(socketserver.ThreadingTCPServer):
            allow_reuse_address = daemon_threads = True

        self.tcp_length = None  # a lie about the length of answers over TCP
        for _ in range(20):
            self.udp = socketserver.ThreadingUDPServer((host, 0), Udp)
            self.udp.daemon_threads = True
            try:
                self.tcp = TcpServer(self.udp.server_address, Tcp)
                break
            except OSError:
                self.udp.server_close()
        self.udp.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.port = self.udp.server_address[1]
        self.address = f"{host}@{self.port}"
        for s in (self.udp, self.tcp):
            threading.Thread(target=s.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self):
        for s in (self.udp, self.tcp):
            s.shutdown()
            s.server_close()

    # ---- what it knows ----

    @staticmethod
    def _name(name):
        return name if isinstance(name, dns.name.Name) else dns.name.from_text(name)

    def _put(self, name, kind, rdatas, ttl):
        name, kind = self._name(name), dns.rdatatype.from_text(kind)
        rdataset = self.records.setdefault((name, kind), dns.rdataset.Rdataset(1, kind))
        for rdata in rdatas:
            rdataset.add(rdata, ttl)

    def add(self, name, kind, *texts, ttl=300):
        self._put(name, kind, [
            dns.rdata.from_text("IN", kind, text, dns.name.root, relativize=False)
            for text in texts], ttl)

    def raw(self, name, kind, rdatas, ttl=300):
        number = dns.rdatatype.from_text(kind)
        self._put(name, kind, [dns.rdata.GenericRdata(1, number, data) for data in rdatas], ttl)

    def exists(self, name):
        """A name without records of the types that mail asks for."""
        self.add(name, "TXT", '"here"')

    def remove(self, name):
        for key in [k for k in self.records if k[0] == self._name(name)]:
            del self.records[key]

    def _fault(self, name, kind, fault):
        self.faults[self._name(name), dns.rdatatype.from_text(kind) if kind else None] = fault

    def servfail(self, name, kind=None):
        self._fault(name, kind, "servfail")

    def silent(self, name, kind=None):
        self._fault(name, kind, "silent")

    def delay(self, name, seconds, kind=None):
        self._fault(name, kind, seconds)

    def mangle(self, name, change, kind=None):
        self._fault(name, kind, change)

    def heal(self, name, kind=None):
        del self.faults[self._name(name), dns.rdatatype.from_text(kind) if kind else None]

    def asked(self, name, kind=None):
        name = self._name(name)
        kind = dns.rdatatype.from_text(kind) if kind else None
        with self.lock:
            return sum(1 for n, k in self.queries if n == name and kind in (None, k))

    # ---- answering ----

    def _fill(self, reply, name, kind):
        """Follows CNAMEs as a recursive server does; returns the rcode."""
        for _ in range(100):
            found = self.records.get((name, kind))
            if found:
                reply.answer.append(dns.rrset.RRset(name, 1, kind))
                reply.answer[-1].update(found)
                return dns.rcode.NOERROR
            alias = self.records.get((name, dns.rdatatype.CNAME))
            if not alias:
                break
            reply.answer.append(dns.rrset.RRset(name, 1, dns.rdatatype.CNAME))
            reply.answer[-1].update(alias)
            name = alias[0].target
        known = any(n == name or n.is_subdomain(name) for n, _ in self.records)
        zone = dns.name.Name(name.labels[-2:])
        reply.authority.append(dns.rrset.from_text(
            zone, self.negative_ttl, "IN", "SOA",
            f"ns.test. root.test. 1 3600 600 86400 {self.negative_ttl}"))
        return dns.rcode.NOERROR if known else dns.rcode.NXDOMAIN

    def answer(self, wire, tcp):
        query = dns.message.from_wire(wire)
        question = query.question[0]
        with self.lock:
            self.queries.append((question.name, question.rdtype))
        fault = self.faults.get((question.name, question.rdtype)) \
            or self.faults.get((question.name, None))
        reply = dns.message.make_response(query, recursion_available=True)
        if fault == "silent":
            return None
        if isinstance(fault, (int, float)):
            time.sleep(fault)
        if fault == "servfail":
            reply.set_rcode(dns.rcode.SERVFAIL)
        else:
            reply.set_rcode(self._fill(reply, question.name, question.rdtype))
        out = reply.to_wire(max_size=65535)
        if not tcp and len(out) > UDP_MAX:
            reply.answer, reply.authority = [], []
            reply.flags |= dns.flags.TC
            out = reply.to_wire()
        return fault(out, tcp) if callable(fault) else out
