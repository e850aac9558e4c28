import { createSocket } from 'node:dgram';
import { createServer } from 'node:net';
import { type Answer, decode, encode, type Packet } from 'dns-packet';

/*
 * A name server for one test: `node name-server.ts ADDRESS ZONE`, with ZONE as JSON: records by name in lower case. Answers
 * over UDP and TCP, with the chain of CNAMEs that leads to the addresses, as resolvers do.
 */

type Zone = Readonly<
  Record<string, { readonly ttl: number; readonly A?: string; readonly AAAA?: string; readonly CNAME?: string }>
>;

const [address = '', text = '{}'] = process.argv.slice(2);
const zone: Zone = JSON.parse(text);

function answersTo(name: string, type: string): Answer[] {
  const found = zone[name.toLowerCase()];
  if (found === undefined) return [];
  const { ttl, CNAME } = found;
  if (CNAME !== undefined) return [{ name, type: 'CNAME', ttl, data: CNAME }, ...answersTo(CNAME, type)];
  if (type !== 'A' && type !== 'AAAA') return [];
  const data = found[type];
  return data === undefined ? [] : [{ name, type, ttl, data }];
}

function answer(query: Packet): Buffer {
  const [question] = query.questions ?? [];
  const answers = question === undefined ? [] : answersTo(question.name, question.type);
  const flags = 0x180 | (answers.length === 0 ? 3 : 0);
  return encode({ type: 'response', id: query.id ?? 0, flags, questions: query.questions ?? [], answers });
}

const udp = createSocket('udp4');
udp.on('message', (bytes, peer) => udp.send(answer(decode(bytes)), peer.port, peer.address));
udp.bind(53, address);
createServer((socket) => {
  socket.on('error', () => socket.destroy());
  let bytes = Buffer.alloc(0);
  socket.on('data', (more) => {
    bytes = Buffer.concat([bytes, more]);
    if (bytes.length < 2 || bytes.length < 2 + bytes.readUInt16BE(0)) return;
    const reply = answer(decode(bytes.subarray(2)));
    bytes = Buffer.alloc(0);
    socket.write(Buffer.concat([Buffer.from([reply.length >> 8, reply.length & 0xff]), reply]));
  });
}).listen(53, address);
