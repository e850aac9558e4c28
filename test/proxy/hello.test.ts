import assert from 'node:assert/strict';
import { type AddressInfo, connect, createServer } from 'node:net';
import { test } from 'node:test';
import { type ConnectionOptions, connect as connectTls } from 'node:tls';
import fc from 'fast-check';
import { type HelloAnswer, readHello } from '../../src/proxy/tls/hello.ts';
import { piecesOf } from '../support/http.ts';

/** What OpenSSL says first. */
async function helloOf(options: ConnectionOptions): Promise<Uint8Array> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const heard = new Promise<Uint8Array>((resolve) =>
    server.once('connection', (socket) => {
      socket.on('error', () => {});
      const all: Buffer[] = [];
      socket.on('data', (bytes: Buffer) => {
        all.push(bytes);
        if (readHello(Buffer.concat(all)).kind !== 'more') resolve(Buffer.concat(all));
      });
    }),
  );
  const { port }: AddressInfo = JSON.parse(JSON.stringify(server.address()));
  const socket = connect(port, '127.0.0.1');
  socket.on('error', () => {});
  const tls = connectTls({ socket, ...options });
  tls.on('error', () => {});
  const bytes = await heard;
  tls.destroy();
  socket.destroy();
  server.close();
  return bytes;
}

const number = (value: number, size: number): number[] =>
  Array.from({ length: size }, (_, at) => (value >> (8 * (size - 1 - at))) & 0xff);
const vector = (size: number, content: readonly number[]): number[] => [...number(content.length, size), ...content];
const bytesOf = (text: string): number[] => [...Buffer.from(text, 'latin1')];
const serverName = (name: string): number[] => vector(2, [0, ...vector(2, bytesOf(name))]);
const extension = (type: number, content: readonly number[]): number[] => [...number(type, 2), ...vector(2, content)];

/** A ClientHello, made by hand. */
function message(extensions: readonly number[] | undefined, suites: readonly number[] = [0x13, 0x01]): number[] {
  const body = [3, 3, ...new Array<number>(32).fill(7), ...vector(1, []), ...vector(2, suites), ...vector(1, [0])];
  return [1, ...vector(3, [...body, ...(extensions === undefined ? [] : vector(2, extensions))])];
}

function records(content: readonly number[], size = 16_384): Uint8Array {
  const parts: number[] = [];
  for (let at = 0; at < content.length; at += size) parts.push(22, 3, 1, ...vector(2, content.slice(at, at + size)));
  return Uint8Array.from(parts);
}

const named = (name: string): Uint8Array => records(message(extension(0, serverName(name))));

test('what OpenSSL says is read, with a name and without, of TLS 1.2 and 1.3', async () => {
  for (const version of ['TLSv1.2', 'TLSv1.3'] as const) {
    const options = { minVersion: version, maxVersion: version } as const;
    const hello = await helloOf({ ...options, servername: 'Shop.Example' });
    assert.deepEqual(readHello(hello), { kind: 'hello', serverName: 'shop.example' });
    assert.deepEqual(readHello(await helloOf(options)), { kind: 'hello' });
  }
});

test('a ClientHello without extensions has no name', () => {
  assert.deepEqual(readHello(records(message(undefined))), { kind: 'hello' });
});

test('what comes behind its last record is not looked at', () => {
  const hello = Uint8Array.of(...named('a.example'), 20, 3, 3, 0, 1, 1, 99);
  assert.deepEqual(readHello(hello), { kind: 'hello', serverName: 'a.example' });
});

const refused: readonly (readonly [name: string, bytes: Uint8Array])[] = [
  ['a record of another type', Uint8Array.of(23, 3, 1, 0, 1, 0)],
  ['another handshake message', records([2, 0, 0, 0])],
  ['an empty record', Uint8Array.of(22, 3, 1, 0, 0)],
  ['a record that is too long', Uint8Array.of(22, 3, 1, 0x40, 1)],
  ['another major version', Uint8Array.of(22, 2, 1, 0, 5)],
  ['a message beyond the limit', records([1, 1, 0, 0])],
  ['two messages in one record', records([...message(undefined), ...message(undefined)])],
  ['bytes behind the extensions', records([1, ...vector(3, [...message(extension(5, [])).slice(4), 0])])],
  ['no cipher suites', records(message(undefined, []))],
  ['an odd list of cipher suites', records(message(undefined, [1, 2, 3]))],
  ['an extension that ends too early', records(message([0, 0, 0, 9, 0]))],
  ['an extension twice', records(message([...extension(10, []), ...extension(10, [])]))],
  ['the server name twice', records(message([...extension(0, serverName('a.b')), ...extension(0, serverName('a.c'))]))],
  ['an empty server name', named('')],
  ['an empty list of server names', records(message(extension(0, vector(2, []))))],
  ['a server name extension as servers send it', records(message(extension(0, [])))],
  ['two server names', records(message(extension(0, vector(2, [0, ...vector(2, [97]), 0, ...vector(2, [98])]))))],
  ['a name of another type', records(message(extension(0, vector(2, [1, ...vector(2, [97])]))))],
  ['a zero byte in the name', named('a.example\0.b')],
  ['a dot at the end', named('a.example.')],
  ['two dots', named('a..example')],
  ['a name that is too long', named(`${'a.'.repeat(130)}b`)],
  ['a name that is not in ASCII', named('\xe9.example')],
  ['Encrypted Client Hello', records(message([...extension(0, serverName('a.b')), ...extension(0xfe0d, [0, 0])]))],
];

for (const [name, bytes] of refused)
  test(`refused: ${name}`, () => {
    assert.equal(readHello(bytes).kind, 'refused');
  });

test('in how many records and pieces ever, it is the same, and it waits for the last byte', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 200 }), fc.array(fc.nat()), (size, cuts) => {
      const bytes = records(message(extension(0, serverName('a.example'))), size);
      const pieces = piecesOf(bytes, cuts);
      let come = new Uint8Array(0);
      const answers = pieces.map((piece): HelloAnswer => {
        come = Uint8Array.of(...come, ...piece);
        return readHello(come);
      });
      const whole = pieces.findIndex(
        (_, at) => pieces.slice(0, at + 1).reduce((sum, p) => sum + p.length, 0) === bytes.length,
      );
      for (const [at, answer] of answers.entries())
        assert.deepEqual(answer, at < whole ? { kind: 'more' } : { kind: 'hello', serverName: 'a.example' });
    }),
  );
});

test('a ClientHello in single bytes, each in a record, is not waited for without end', () => {
  const much = message(extension(21, new Array<number>(12_000).fill(0)));
  assert.equal(readHello(records(much)).kind, 'hello');
  assert.equal(readHello(records(much, 1)).kind, 'refused');
});

/**
 * Reads the name as a lenient server would: by the first server_name extension that it comes by, whatever else is wrong.
 * What is let through must not have another name to such a one.
 */
function namesWithin(bytes: Uint8Array): Set<string> {
  const text = Buffer.from(bytes).toString('latin1');
  return new Set([...text.matchAll(/[a-z]\.example/gi)].map(([name]) => name.toLowerCase()));
}

test('whatever is changed in it, it is refused, waited for, or says a name that stands in it', () => {
  const base = named('a.example');
  const change = fc.record({ at: fc.nat({ max: base.length - 1 }), to: fc.nat({ max: 255 }) });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 3 }), (changes) => {
      const bytes = Uint8Array.from(base);
      for (const { at, to } of changes) bytes[at] = to;
      const answer = readHello(bytes);
      if (answer.kind !== 'hello' || answer.serverName === undefined) return;
      assert.ok(Buffer.from(bytes).toString('latin1').toLowerCase().includes(answer.serverName));
      if (answer.serverName.endsWith('.example')) assert.ok(namesWithin(bytes).size <= 1);
    }),
    { numRuns: 5000 },
  );
});
