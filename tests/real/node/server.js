'use strict';
// Answers one request from itself and ends: the image can be tried anywhere.
const express = require('express');
const http = require('http');

const app = express();
app.get('/', (_, res) => res.json({ hello: 'strata', node: process.version.split('.')[0] }));
const server = app.listen(0, '127.0.0.1', () => {
  if (process.argv[2] !== '--once') return;
  http.get({ host: '127.0.0.1', port: server.address().port }, (res) => {
    res.on('data', (d) => process.stdout.write(d + '\n'));
    res.on('end', () => server.close());
  });
});
