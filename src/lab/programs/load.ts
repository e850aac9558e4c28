import { Agent, request } from 'node:http';
import { performance } from 'node:perf_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import { parseTarget } from './targets.ts';

/*
 * Stands in for a load generator: USERS users walk through the shop at FRONTEND_ADDR, each with a pause of a few seconds
 * between two pages, and every ten seconds a line says how it went.
 */

const pages = ['/', '/product/66VCHSJNUP', '/product/2ZYFJ3GM2N', '/cart', '/', '/cart/checkout'];
const pauseMs = { least: 1000, most: 5000 };
const reportEveryMs = 10_000;
const patienceMs = 5000;

const front = parseTarget(process.env.FRONTEND_ADDR ?? '');
const users = Math.min(100, Math.max(1, Number(process.env.USERS ?? 5) || 5));
const agent = new Agent({ keepAlive: true });
let seen = { requests: 0, failures: 0, slowestMs: 0 };

function visit(host: string, port: number, path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const call = request({ host, port, path, agent }, (response) => {
      response.resume();
      response.on('error', () => resolve(false));
      response.on('end', () => {
        clearTimeout(timer);
        resolve((response.statusCode ?? 500) < 400);
      });
    });
    const timer = setTimeout(() => call.destroy(new Error('timeout')), patienceMs);
    call.on('error', () => {
      clearTimeout(timer);
      resolve(false);
    });
    call.end();
  });
}

async function walk(host: string, port: number): Promise<never> {
  for (let step = Math.floor(Math.random() * pages.length); ; step++) {
    await sleep(pauseMs.least + Math.random() * (pauseMs.most - pauseMs.least));
    const from = performance.now();
    const ok = await visit(host, port, pages[step % pages.length] ?? '/');
    seen.requests++;
    if (!ok) seen.failures++;
    seen.slowestMs = Math.max(seen.slowestMs, Math.round(performance.now() - from));
  }
}

if (front === undefined) console.log('FRONTEND_ADDR is not set: nothing to do');
else for (let user = 0; user < users; user++) void walk(front.host, front.port);
setInterval(() => {
  if (front !== undefined) console.log(JSON.stringify({ time: new Date().toISOString(), ...seen }));
  seen = { requests: 0, failures: 0, slowestMs: 0 };
}, reportEveryMs);
process.on('SIGTERM', () => process.exit(0));
