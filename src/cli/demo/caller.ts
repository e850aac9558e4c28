import { Agent, request } from 'node:http';

/**
 * Asks one server again and again, one request after the other on one connection, and prints each answer as a line of
 * JSON. Runs inside a pod, or wherever else a client stands.
 *
 *   node caller.ts http://HOST:PORT ROUNDS METHOD:PATH...
 */
const [base, rounds = '1', ...wanted] = process.argv.slice(2);
if (base === undefined || wanted.length === 0) {
  console.error('usage: caller.ts http://HOST:PORT ROUNDS METHOD:PATH...');
  process.exit(2);
}
const { hostname, port } = new URL(base);
const agent = new Agent({ keepAlive: true, maxSockets: 1 });
const connections = new Set<number | undefined>();

/** @returns The answer's status; 0 and why, where there was none. */
function call(method: string, path: string): Promise<{ status: number; failure?: string }> {
  return new Promise((resolve) => {
    const asked = request({ hostname, port, agent, method, path, timeout: 5000 }, (response) => {
      response.resume();
      response.on('end', () => resolve({ status: response.statusCode ?? 0 }));
    });
    asked.on('socket', (socket) => {
      if (socket.connecting) socket.once('connect', () => connections.add(socket.localPort));
    });
    asked.on('timeout', () => asked.destroy());
    asked.on('error', (error: NodeJS.ErrnoException) => resolve({ status: 0, failure: error.code ?? error.message }));
    asked.end();
  });
}

for (let round = 0; round < Number(rounds); round++)
  for (const each of wanted) {
    const [method = '', path = ''] = each.split(/:(.*)/s);
    const from = performance.now();
    const answer = await call(method, path);
    console.log(JSON.stringify({ request: `${method} ${path}`, ...answer, ms: performance.now() - from }));
  }
console.log(JSON.stringify({ connections: connections.size }));
agent.destroy();
