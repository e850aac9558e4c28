import { createSocket, type Socket as Datagrams } from 'node:dgram';
import { connect, createServer, isIPv6, type Socket } from 'node:net';
import { createInterface } from 'node:readline';

/*
 * Connections that a test holds in its hand: opened, used and looked at when it says so. Runs inside a pod; each line of
 * standard input is a command, which is answered with a line. What happened is `echo`, `open`, `end`, `silence` (nothing for
 * as long as a test wants to wait) or an errno's name.
 *
 *   talk-program.ts serve PORT   echoes over TCP and UDP; `ends` says how connections ended since it was last asked
 *   talk-program.ts              `tcp NAME HOST PORT` opens, `udp NAME HOST PORT` makes a connected socket, `say NAME`
 *                                sends something and waits for its echo
 */

const silenceMs = 1200;

function serve(port: number): (line: string) => string {
  const ends: string[] = [];
  createServer((socket) => {
    let code = '';
    socket.on('error', (error: NodeJS.ErrnoException) => {
      code = error.code ?? error.message;
    });
    socket.on('close', () => ends.push(code === '' ? 'end' : code));
    socket.pipe(socket);
  }).listen(port, '::');
  const socket = createSocket('udp6', (datagram, peer) => socket.send(datagram, peer.port, peer.address, () => {}));
  socket.on('error', () => {});
  socket.bind(port);
  return () => JSON.stringify(ends.splice(0));
}

interface Talk {
  say(): Promise<string>;
}

/** @returns What came first: an event that was waited for, or nothing. */
function first(wait: (done: (what: string) => void) => void): Promise<string> {
  return new Promise((resolve) => {
    const timer = setTimeout(() => resolve('silence'), silenceMs);
    wait((what) => {
      clearTimeout(timer);
      resolve(what);
    });
  });
}

const codeOf = (error: Error): string => ('code' in error ? String(error.code) : error.message);

async function open(host: string, port: number): Promise<[string, Talk]> {
  let told = (_: string): void => {};
  const socket: Socket = connect({ host, port, noDelay: true });
  let over = '';
  socket.on('connect', () => told('open'));
  socket.on('data', () => told('echo'));
  socket.on('error', (error) => {
    over = codeOf(error);
    told(over);
  });
  socket.on('end', () => {
    over ||= 'end';
    told(over);
  });
  const wait = (): Promise<string> =>
    first((done) => {
      told = done;
      if (over !== '') done(over);
    });
  const talk: Talk = {
    say: () => {
      if (over === '') socket.write('x');
      return wait();
    },
  };
  return [await wait(), talk];
}

async function associate(host: string, port: number): Promise<[string, Talk]> {
  let told = (_: string): void => {};
  const socket: Datagrams = createSocket(isIPv6(host) ? 'udp6' : 'udp4');
  socket.on('message', () => told('echo'));
  socket.on('error', (error) => told(codeOf(error)));
  await new Promise<void>((resolve) => socket.connect(port, host, () => resolve()));
  const say = (): Promise<string> =>
    first((done) => {
      told = done;
      socket.send('x', (error) => {
        if (error !== null) done(codeOf(error));
      });
    });
  return [await say(), { say }];
}

async function talkTo(talks: Map<string, Talk>, line: string): Promise<string> {
  const [command, name = '', host = '', port = ''] = line.split(' ');
  if (command === 'say') return (await talks.get(name)?.say()) ?? 'nobody';
  const [outcome, talk] = await (command === 'tcp' ? open : associate)(host, Number(port));
  talks.set(name, talk);
  return outcome;
}

const [command, port = ''] = process.argv.slice(2);
const talks = new Map<string, Talk>();
const answer = command === 'serve' ? serve(Number(port)) : (line: string) => talkTo(talks, line);
console.log('ready');
for await (const line of createInterface({ input: process.stdin })) console.log(await answer(line));
process.exit(0);
