import assert from 'node:assert/strict';
import { test } from 'node:test';
import { preface, sniff } from '../../src/proxy/sniff.ts';

const told = (text: string): string => sniff(Buffer.from(text, 'latin1'));

test('protocols are told by their first bytes', () => {
  assert.equal(told(''), 'more');
  assert.equal(told('G'), 'http1');
  assert.equal(told('PUT / HTTP/1.1'), 'http1');
  assert.equal(told('PRI * HTTP/1.1'), 'http1');
  assert.equal(told('\x16'), 'more');
  assert.equal(told('\x16\x03'), 'tls');
  assert.equal(told('\x16\x02'), 'none');
  for (const text of ['get / HTTP/1.1', '\r\n', '\0', '\x80', 'é', ' GET']) assert.equal(told(text), 'none', text);
});

test('the preface of HTTP/2 is waited for to its last byte', () => {
  for (let length = 1; length < preface.length; length++) assert.equal(sniff(preface.subarray(0, length)), 'more');
  assert.equal(sniff(preface), 'h2');
  assert.equal(sniff(Buffer.concat([preface, Buffer.of(0)])), 'h2');
});
