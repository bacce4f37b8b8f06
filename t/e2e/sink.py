"""A receiving SMTP server for tests: aiosmtpd, with replies a test can choose."""
import threading

from aiosmtpd.controller import Controller

from aiosmtpd.smtp import SMTP

from postern import free_port, wait_until


SMTP.line_length_limit = 1 << 20  # Postern may send lines that RFC 5321 does not allow


class Message:
    def __init__(self, envelope, peer):
        self.peer = peer  # the client's address
        self.sender = envelope.mail_from
        self.mail_options = envelope.mail_options
        self.recipients = envelope.rcpt_tos
        self.rcpt_options = envelope.rcpt_options
        self.content = envelope.original_content


class Sink:
    """Records what it gets. `replies` maps a recipient to a reply ("550 5.1.1
    no such user"); `data_reply` answers the end of data. Both may be callables."""

    def __init__(self, port=None, **options):
        self.port = port or free_port()
        self.messages, self.attempts, self.lock = [], [], threading.Lock()
        self.replies, self.data_reply = {}, None
        options.setdefault("data_size_limit", 1 << 30)
        options.setdefault("enable_SMTPUTF8", True)
        # or aiosmtpd asks DNS for our name at each connection
        options.setdefault("server_hostname", "sink.test")
        self.controller = Controller(self, hostname="127.0.0.1", port=self.port, **options)
        self.controller.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def stop(self):
        if self.controller:
            self.controller.stop()
            self.controller = None

    async def handle_RCPT(self, server, session, envelope, address, rcpt_options):
        with self.lock:
            self.attempts.append(address)
        reply = self.replies(address) if callable(self.replies) else self.replies.get(address)
        if reply and not reply.startswith("2"):
            return reply
        envelope.rcpt_tos.append(address)
        envelope.rcpt_options.append(rcpt_options)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope):
        reply = self.data_reply(envelope) if callable(self.data_reply) else self.data_reply
        if reply and not reply.startswith("2"):
            return reply
        with self.lock:
            self.messages.append(Message(envelope, session.peer[0]))
        return "250 2.0.0 Ok"

    def wait(self, count, timeout=30.0):
        """Waits until `count` messages have come; all so far."""
        wait_until(lambda: len(self.messages) >= count, timeout,
                   f"message {count} (have {len(self.messages)})")
        return list(self.messages)
