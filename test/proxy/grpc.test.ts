import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  type Client,
  credentials,
  type handleBidiStreamingCall,
  type handleUnaryCall,
  Metadata,
  type MethodDefinition,
  makeGenericClientConstructor,
  Server,
  ServerCredentials,
  type ServiceDefinition,
  type ServiceError,
  status,
} from '@grpc/grpc-js';
import type { ProxyImage } from '../../src/policy/proxy/image.ts';
import { allow, imageOf, paths, TestProxy, until } from './harness.ts';

const bytes = (value: Buffer): Buffer => value;
const method = (path: string, stream: boolean): MethodDefinition<Buffer, Buffer> => ({
  path,
  requestStream: stream,
  responseStream: stream,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});
const cart: ServiceDefinition = {
  Add: method('/shop.Cart/Add', false),
  Empty: method('/shop.Cart/Empty', false),
  Watch: method('/shop.Cart/Watch', true),
};

const add: handleUnaryCall<Buffer, Buffer> = ({ request, metadata }, done) => {
  if (request.toString() === 'bad') done({ code: status.INVALID_ARGUMENT, details: 'bad' });
  else done(null, Buffer.from(`added ${request.length} ${String(metadata.get('x-user'))}`));
};
const empty: handleUnaryCall<Buffer, Buffer> = (_call, done) => done(null, Buffer.from('emptied'));
const watch: handleBidiStreamingCall<Buffer, Buffer> = (call) => {
  call.on('data', (piece: Buffer) => call.write(Buffer.from(`seen ${piece.toString()}`)));
  call.on('end', () => call.end());
};

async function withClient(image: ProxyImage, run: (client: Client, proxy: TestProxy) => Promise<void>): Promise<void> {
  const server = new Server();
  server.addService(cart, { Add: add, Empty: empty, Watch: watch });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  const proxy = await TestProxy.start(port, image);
  const Cart = makeGenericClientConstructor(cart, 'Cart');
  const client = new Cart(`127.0.0.1:${proxy.port}`, credentials.createInsecure());
  try {
    await run(client, proxy);
  } finally {
    client.close();
    await proxy.close();
    server.forceShutdown();
  }
}

function call(client: Client, path: string, request: Buffer): Promise<Buffer> {
  const metadata = new Metadata();
  metadata.set('x-user', 'ann');
  return new Promise((resolve, reject) =>
    client.makeUnaryRequest(
      path,
      bytes,
      bytes,
      request,
      metadata,
      { deadline: Date.now() + 20_000 },
      (error, answer) => (error === null && answer !== undefined ? resolve(answer) : reject(error)),
    ),
  );
}

const codeOf = (wanted: number) => (error: ServiceError) => error.code === wanted;
const onlyAdd = imageOf([allow(paths('/shop.Cart/Add'))]);

test('a real client: what is allowed is answered, with its status; what is denied is PERMISSION_DENIED', () =>
  withClient(onlyAdd, async (client, proxy) => {
    assert.equal((await call(client, '/shop.Cart/Add', Buffer.from('tea'))).toString(), 'added 3 ann');
    await assert.rejects(call(client, '/shop.Cart/Empty', Buffer.alloc(0)), codeOf(status.PERMISSION_DENIED));
    await assert.rejects(call(client, '/shop.Cart/Add', Buffer.from('bad')), codeOf(status.INVALID_ARGUMENT));
    await assert.rejects(call(client, '/shop.Cart/Gone', Buffer.alloc(0)), codeOf(status.PERMISSION_DENIED));
    assert.equal(proxy.opened, 1);
    assert.equal((await call(client, '/shop.Cart/Add', Buffer.alloc(3_000_000))).toString(), 'added 3000000 ann');
    await until(() => proxy.shared.counts.streams === 0, 'calls end');
    assert.deepEqual(proxy.flows(), [
      'allow POST /shop.Cart/Add 200 0',
      'deny POST /shop.Cart/Empty 200 7 HTTP_DENIED',
      'allow POST /shop.Cart/Add 200 3',
      'deny POST /shop.Cart/Gone 200 7 HTTP_DENIED',
      'allow POST /shop.Cart/Add 200 0',
    ]);
  }));

test('a stream both ways lives through a change that allows it, and is PERMISSION_DENIED by one that does not', () =>
  withClient(imageOf([allow(paths('/shop.Cart/'))]), async (client, proxy) => {
    const stream = client.makeBidiStreamRequest('/shop.Cart/Watch', bytes, bytes);
    const seen: string[] = [];
    const failed = new Promise<ServiceError>((resolve) => stream.on('error', resolve));
    stream.on('data', (piece: Buffer) => seen.push(piece.toString()));
    stream.write(Buffer.from('one'));
    await until(() => seen.length === 1, 'an answer');
    proxy.take(imageOf([allow(paths('/shop.Cart/Watch'))]));
    stream.write(Buffer.from('two'));
    await until(() => seen.length === 2, 'another');
    proxy.take(onlyAdd);
    assert.equal((await failed).code, status.PERMISSION_DENIED);
    assert.deepEqual(seen, ['seen one', 'seen two']);
    assert.equal((await call(client, '/shop.Cart/Add', Buffer.from('tea'))).toString(), 'added 3 ann');
  }));

test('a drained proxy lets calls end, and the client goes on by another connection', () =>
  withClient(imageOf([allow(paths('/shop.Cart/'))]), async (client, proxy) => {
    const stream = client.makeBidiStreamRequest('/shop.Cart/Watch', bytes, bytes);
    const seen: string[] = [];
    stream.on('error', () => {});
    stream.on('data', (piece: Buffer) => seen.push(piece.toString()));
    stream.write(Buffer.from('one'));
    await until(() => seen.length === 1, 'an answer');
    const drained = proxy.intake.drain(60_000);
    stream.write(Buffer.from('two'));
    await until(() => seen.length === 2, 'it goes on');
    // Until the listening sockets close, what comes is served: here by the same process, else by the next.
    assert.equal((await call(client, '/shop.Cart/Add', Buffer.from('tea'))).toString(), 'added 3 ann');
    assert.equal(proxy.opened, 2);
    stream.end();
    await drained;
  }));
