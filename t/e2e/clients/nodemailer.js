// nodemailer.js PORT SENDER RECIPIENT FILE [starttls|tls CA-FILE]: sends the file as it
// is, with nodemailer.
'use strict';
const fs = require('fs');
const nodemailer = require('nodemailer');

const [port, sender, recipient, file, tls, ca] = process.argv.slice(2);
const transport = nodemailer.createTransport({
    host: '127.0.0.1', port: Number(port), name: 'client.test',
    secure: tls === 'tls', requireTLS: tls === 'starttls', ignoreTLS: !tls,
    tls: ca ? { ca: [fs.readFileSync(ca)] } : {},
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
