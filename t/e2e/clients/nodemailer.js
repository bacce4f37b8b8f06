// nodemailer.js PORT SENDER RECIPIENT FILE: sends the file as it is, with nodemailer.
'use strict';
const fs = require('fs');
const nodemailer = require('nodemailer');

const [port, sender, recipient, file] = process.argv.slice(2);
const transport = nodemailer.createTransport({
    host: '127.0.0.1', port: Number(port), secure: false, ignoreTLS: true, name: 'client.test',
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
