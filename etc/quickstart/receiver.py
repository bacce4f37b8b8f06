#!/usr/bin/python3
"""receiver.py [ADDRESS:]PORT MAILDIR: the quickstart's receiving server. Keeps mail in a
Maildir; refuses recipients whose address begins with "nobody"."""
import asyncio
import mailbox
import signal
import sys

from aiosmtpd.smtp import SMTP


class Receiver:
    def __init__(self, maildir):
        self.box = mailbox.Maildir(maildir)

    async def handle_RCPT(self, server, session, envelope, address, options):
        if address.startswith("nobody"):
            return "550 5.1.1 there is no such mailbox here"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 Ok"

    async def handle_DATA(self, server, session, envelope):
        message = mailbox.MaildirMessage(envelope.original_content)
        message["Delivered-To"] = ", ".join(envelope.rcpt_tos)
        self.box.add(message)
        return "250 2.0.0 Ok: in the Maildir"


async def main(where, maildir):
    address, _, port = where.rpartition(":")
    loop = asyncio.get_running_loop()
    receiver = Receiver(maildir)
    server = await loop.create_server(
        lambda: SMTP(receiver, hostname="receiver.example", enable_SMTPUTF8=True),
        address or "127.0.0.1", int(port))
    stop = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    server.close()


asyncio.run(main(sys.argv[1], sys.argv[2]))
