/**
 * A customer: asks for a page again and again, a few at a time, and prints each answer as a line of JSON.
 * Runs inside a pod.
 *
 *   node shopper.ts URL COUNT TIMEOUT_MS
 */
const [url, count = '1', timeout = '3000'] = process.argv.slice(2);
if (url === undefined) {
  console.error('usage: shopper.ts URL COUNT TIMEOUT_MS');
  process.exit(2);
}
const atOnce = 4;
let left = Number(count);

async function shop(address: string): Promise<void> {
  while (left-- > 0) {
    const from = performance.now();
    const outcome = await fetch(address, { signal: AbortSignal.timeout(Number(timeout)) }).then(
      async (response) => ({ ok: response.ok, status: response.status, body: await response.text() }),
      (error: unknown) => ({ ok: false, status: 0, body: error instanceof Error ? error.message : String(error) }),
    );
    console.log(JSON.stringify({ ...outcome, ms: performance.now() - from }));
  }
}

await Promise.all(Array.from({ length: atOnce }, () => shop(url)));
