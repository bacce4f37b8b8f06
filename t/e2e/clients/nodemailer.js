// nodemailer.js PORT SENDER RECIPIENT FILE [starttls|tls CA-FILE]: sends the file as it
// is, with nodemailer; logs in if SMTP_USER, SMTP_PASSWORD and SMTP_METHOD say so.
'use strict';
const fs = require('fs');
const nodemailer = require('nodemailer');

const [port, sender, recipient, file, tls, ca] = process.argv.slice(2);
const transport = nodemailer.createTransport({
    host: '127.0.0.1', port: Number(port), name: 'client.test',
    secure: tls === 'tls', requireTLS: tls === 'starttls', ignoreTLS: !tls,
    tls: ca ? { ca: [fs.readFileSync(ca)] } : {},
    ...(process.env.SMTP_USER ? {
        auth: { user: process.env.SMTP_USER, pass: process.env.SMTP_PASSWORD },
        authMethod: process.env.SMTP_METHOD,
    } : {}),
});
transport.sendMail({
    envelope: { from: sender, to: [recipient] },
    raw: fs.createReadStream(file),
}).then((info) => {
    console.log(info.response);
}, (error) => {
    console.error(error.message);
    process.exitCode = 1;
});
