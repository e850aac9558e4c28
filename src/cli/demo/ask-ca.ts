/**
 * Asks the CA for a pod's certificate with a node's own credentials, as that node's agent would, and prints what came of it
 * as JSON. Runs in the node's network namespace.
 *
 *   node ask-ca.ts URL CERTIFICATE KEY BUNDLE REQUEST_JSON
 */
import { readFileSync } from 'node:fs';
import { z } from 'zod';
import { ControllerIssuer } from '../../identity/controller-issuer.ts';
import { buildCsr } from '../../identity/csr.ts';
import { newKeyPair } from '../../identity/x509.ts';
import { parseIp } from '../../model/address.ts';
import { MyelinError } from '../../model/error.ts';

const request = z.object({
  pod: z.object({ namespace: z.string(), name: z.string(), uid: z.string() }),
  serviceAccount: z.string(),
  addresses: z.array(z.string()),
});

const [url = '', certificate = '', key = '', bundle = '', text = ''] = process.argv.slice(2);
const issuer = new ControllerIssuer(
  { url },
  {
    credentials: () => ({ chain: readFileSync(certificate, 'utf8'), privateKey: readFileSync(key, 'utf8') }),
    roots: () => readFileSync(bundle, 'utf8'),
  },
);
const { pod, serviceAccount, addresses } = request.parse(JSON.parse(text));
const csr = await buildCsr(await newKeyPair());
try {
  await issuer.issue({ pod, serviceAccount, addresses: addresses.map(parseIp), csr }, AbortSignal.timeout(5000));
  console.log(JSON.stringify({ issued: true, reason: '' }));
} catch (error) {
  if (!(error instanceof MyelinError)) throw error;
  console.log(
    JSON.stringify({ issued: false, reason: `${String(error.data.reason ?? error.code)}: ${error.message}` }),
  );
} finally {
  issuer.close();
}
